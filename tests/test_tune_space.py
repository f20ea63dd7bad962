"""Sweep files: what they may say, the points they make, and the errors that stop them."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.local_servers.chat_server import ChatServer, serving
from lima_ray.config.errors import UserError
from lima_ray.config.paths import PACKAGE
from lima_ray.judging import preflight
from tune import space, training
from tune.measurement import read_measurement
from tune.space import SETTINGS, SWEEPS, base_recipe, check_names, load, points
from tune.workers.tune_trials import check_scheduler

ROWS = PACKAGE / "miniature" / "rows"
RATES = {"optim.learning_rate": {"grid": [1e-4, 3e-4]}}


def written(folder: Path, **tree: Any) -> str:
    """A sweep file."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_that_ship_can_run_on_the_miniature(path: Path) -> None:
    sweep = load(path.stem)
    check_names(sweep)
    made = training.prepare(sweep, base_recipe(sweep), points(sweep))
    assert len(made) == len(points(sweep)) * len(sweep.seeds) and len(sweep.seeds) >= 3
    assert len({one.id for one, _ in made}) == len(made)
    assert sweep.claim and sweep.name == path.stem


def test_the_benchmarks_sweep_has_its_twelve_trials() -> None:
    sweep = load(str(Path(__file__).parents[1] / "benchmarks" / "twelve.yaml"))
    check_names(sweep)
    assert len(points(sweep)) == 12


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("setting", sorted(p.stem for p in SETTINGS.glob("*.yaml")))
def test_one_line_puts_a_study_on_another_base(
    path: Path, setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load(path.stem, setting)
    check_names(sweep)
    made = points(sweep)
    monkeypatch.chdir(tmp_path)
    for file in sweep.files.values():
        if not file.startswith("lima_ray/"):
            Path(file).parent.mkdir(exist_ok=True)
            rows = "dialogues_test" if "dialogues_test" in file else "test"
            shutil.copy(ROWS / f"{rows}.jsonl", file)
    read_measurement(sweep, base_recipe(sweep))
    for point in made:
        recipe = base_recipe(sweep).override(point.values)
        assert recipe.select.judge != "none"
        assert ("7b" in recipe.model.base) == (setting == "lima-7b")
        if setting == "lima-7b":  # rates and sizes of the paper's models, not the miniature's
            assert recipe.optim.learning_rate <= 1e-4 and (recipe.data.rows or 0) >= 2000
        assert Path(recipe.data.train).suffix == ".jsonl"


def test_a_setting_leaves_the_axes_of_ones_own_file_alone(tmp_path: Path) -> None:
    mine = tmp_path / "dropout_lr.yaml"
    shutil.copy(SWEEPS / "dropout_lr.yaml", mine)
    assert load(str(mine), "lima-7b").axes == load("dropout_lr").axes
    assert load("dropout_lr", "lima-7b").axes != load("dropout_lr").axes


def test_perplexity_needs_dialogues_and_no_judge(tmp_path: Path) -> None:
    fields = {"select.judge": "none", "data.rows": 8, "data.test": None}
    sweep = load(written(tmp_path, metric="perplexity", set=fields, axes=RATES, seeds=[0]))
    made = training.prepare(sweep, base_recipe(sweep), points(sweep))
    assert all(one.by_loss and "heldout-loss-" in one.key for one, _ in made)
    none = sweep.model_copy(update={"set": fields | {"data.heldout": None}})
    with pytest.raises(UserError, match=r"neither prompts nor the recipe's data\.heldout"):
        read_measurement(none, base_recipe(none))
    with pytest.raises(UserError, match=r"`metric: perplexity` needs no judge"):
        other = sweep.model_copy(update={"metric": "grade"})
        read_measurement(other, base_recipe(other))
    asha = sweep.model_copy(update={"asha": True})
    with pytest.raises(UserError, match=r"asha and optuna go by the verdicts"):
        check_scheduler(asha, base_recipe(asha))


def test_losses_are_compared_on_the_same_tokens_at_every_point(tmp_path: Path) -> None:
    fields = {"select.judge": "none", "data.rows": 8, "data.test": None}
    axes = {
        "data.loss_on": {"grid": ["replies", "all"]},
        "data.max_tokens": {"grid": [64, 512]},
    }
    sweep = load(written(tmp_path, metric="perplexity", set=fields, axes=axes, seeds=[0]))
    made = training.prepare(sweep, base_recipe(sweep), points(sweep))
    assert len({one.id for one, _ in made}) == 4 and len({one.key for one, _ in made}) == 1
    encoded = [
        preflight.encode_heldout(one.heldout(), prepared.tokenizer) for one, prepared in made
    ]
    for rows in encoded:
        assert np.array_equal(rows.mask_N, encoded[0].mask_N)


def test_a_judge_is_asked_only_where_something_is_left_to_judge(tmp_path: Path) -> None:
    with serving(ChatServer()) as server:
        pass  # the port is closed again
    fields = {"select.judge": "endpoint", "select.endpoint": server.url, "data.rows": 8}
    fields |= {"select.endpoint_model": "judge-1", "runs_dir": str(tmp_path / "runs")}
    sweep = load(written(tmp_path, set=fields, seeds=[0, 1]))
    base = base_recipe(sweep)
    with pytest.raises(UserError, match=r"was asked 3 times and gave no answer"):
        training.prepare(sweep, base, points(sweep))
    measurement = read_measurement(sweep, base)
    for seed in sweep.seeds:
        one, _ = training.prepare_one(sweep, base, measurement, points(sweep)[0], seed)
        one.measured.mkdir(parents=True)
        (one.measured / "verdicts.jsonl").touch()
    assert len(training.prepare(sweep, base, points(sweep))) == 2


def test_recipes_and_settings_are_found_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("optim: {epochs: 9}\ndata: {train: x.jsonl}\n")
    (tmp_path / "laptop.yaml").write_text("recipe: own.yaml\nset: {optim.batch_examples: 4}\n")
    monkeypatch.chdir(tmp_path.parent)
    assert base_recipe(load(written(tmp_path, recipe="own.yaml"))).optim.epochs == 9
    both = base_recipe(load(written(tmp_path, setting="laptop.yaml")))
    assert (both.optim.epochs, both.optim.batch_examples) == (9, 4)
    with pytest.raises(UserError, match=r"no recipe 'other\.yaml': no such file"):
        base_recipe(load(written(tmp_path, recipe="other.yaml")))


def test_a_grid_is_every_combination_with_short_labels(tmp_path: Path) -> None:
    axes = RATES | {"model.residual_dropout": {"grid": [0, 0.1, 0.3]}}
    made = points(load(written(tmp_path, axes=axes)))
    assert [point.number for point in made] == list(range(6))
    assert made[-1].values == {"optim.learning_rate": 3e-4, "model.residual_dropout": 0.3}
    assert made[-1].name == "learning rate 0.0003, residual dropout 0.3"


def test_random_axes_are_drawn_the_same_every_time_and_within_their_ends(tmp_path: Path) -> None:
    axes = {
        "optim.learning_rate": {"loguniform": [1e-5, 1e-3]},
        "model.residual_dropout": {"uniform": [0.1, 0.2]},
        "optim.epochs": {"randint": [2, 5]},
        "data.loss_on": {"choice": ["replies", "all"]},
        "optim.batch_examples": {"grid": [32, 64]},
    }
    sweep = load(written(tmp_path, axes=axes, points=8))
    made = points(sweep)
    assert len(made) == 16 and made == points(sweep)
    rates = [point.values["optim.learning_rate"] for point in made]
    assert len(set(rates)) == 16 and all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert any(rate < 1e-4 for rate in rates)
    assert all(0.1 <= p.values["model.residual_dropout"] <= 0.2 for p in made)
    assert {p.values["optim.epochs"] for p in made} == {2, 3, 4}
    assert {p.values["data.loss_on"] for p in made} == {"replies", "all"}


def test_labels_name_datasets_and_groups_of_fields(tmp_path: Path) -> None:
    axes = {
        "data.train": {"grid": {"good": "rows", "bad": "lima_ray/miniature/rows/narrow.jsonl"}},
        "size": {
            "grid": {
                "small": {"data.rows": 10, "optim.epochs": 8},
                "large": {"data.rows": 20, "optim.epochs": 4},
            }
        },
    }
    files = {"rows": "lima_ray/miniature/rows/curated.jsonl"}
    sweep = load(written(tmp_path, axes=axes, files=files))
    check_names(sweep)
    first, *_, last = points(sweep)
    assert first.name == "data good, size small"
    assert first.values == {"data.train": files["rows"], "data.rows": 10, "optim.epochs": 8}
    assert last.values["data.train"].endswith("narrow.jsonl") and last.values["data.rows"] == 20


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"axis": {}}, r"axis is {}: unknown key; did you mean axes\?"),
    ({"axes": {"optim.learning_rate": {"grd": [1]}}}, r"unknown key; did you mean grid\?"),
    ({"axes": {"optim.learning_rate": {}}}, "an axis has one of grid, choice.*; this has none"),
    ({"axes": {"optim.learning_rate": {"grid": []}}}, "grid is empty"),
    ({"axes": {"optim.epochs": {"uniform": [3, 1]}}}, r"needs a lower and a higher end"),
    ({"axes": {"optim.epochs": {"loguniform": [0, 1]}}}, r"needs a lower and a higher end"),
    ({"seeds": []}, "seeds is .*at least 1 item"),
    ({"metric": "graed"}, "metric is 'graed': input should be 'grade', 'excellent'"),
    ({"name": "a b"}, "name is 'a b'"),
    ({"setting": "minature"}, r"no setting 'minature'.*did you mean miniature\?"),
    (
        {"axes": {"optim.learing_rate": {"grid": [1]}}},
        r"axes: unknown field optim.learing_rate; did you mean optim.learning_rate\?",
    ),
    (
        {"axes": {"size": {"grid": {"a": {"data.row": 1}}}}},
        r"axes.size: unknown field data.row; did you mean data.rows\?",
    ),
    ({"set": {"optim.epoch": 3}}, r"set: unknown field optim.epoch; did you mean optim.epochs\?"),
    (
        {"axes": {"optim.epochs": {"grid": [1, 2]}}, "expect": {"better": {"optim.epochs": 3}}},
        "expect: optim.epochs has no 3, only 1, 2",
    ),
    ({"expect": {"than": {"optim.epochs": 3}}}, "expect: there is no axis optim.epochs"),
    ({"axes": {"cluster.workers": {"grid": [1, 2]}}}, "cluster.workers changes no result"),
    ({"axes": {"seed": {"grid": [0, 1]}}}, "seed cannot vary; the sweep gives it itself"),
]


@pytest.mark.parametrize(("tree", "expected"), WRONG, ids=[expected for _, expected in WRONG])
def test_wrong_files_are_refused_with_the_way_out(
    tree: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.compile(expected, re.S)):
        check_names(load(written(tmp_path, **tree)))


def test_every_wrong_name_is_reported_at_once(tmp_path: Path) -> None:
    tree = {"axes": {"optim.lr": {"grid": [1]}, "model.drop": {"grid": [1]}}, "set": {"x": 1}}
    with pytest.raises(UserError) as error:
        check_names(load(written(tmp_path, **tree)))
    assert str(error.value).count("unknown field") == 3


def test_every_invalid_point_is_listed_before_anything_starts(tmp_path: Path) -> None:
    sweep = load(
        written(
            tmp_path,
            set={"cluster.workers": 1},
            axes={
                "model.residual_dropout": {"grid": [0.1, 1.5]},
                "data.rows": {"grid": [100, 9999]},
            },
            seeds=[0, 1],
        )
    )
    with pytest.raises(UserError) as error:
        training.prepare(sweep, base_recipe(sweep), points(sweep))
    message = str(error.value)
    assert "6 of 8 trainings cannot run" in message
    assert "model.residual_dropout is 1.5: input should be less than 1" in message
    assert "data.rows is 9999, but there are 950 rows" in message
    assert "residual dropout 0.1, rows 9999 (seed 1)" in message


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"set": {"select.judge": "none"}}, "a sweep compares judged replies"),
        ({"group": "froms"}, "no prompt of .* is in the group 'froms'; groups are form, in, ood"),
        ({"metric": "dialogues"}, "nothing gives the metric dialogues for these prompts"),
        ({"metric": "safe"}, "gives grade, stopped, excellent, accepted"),
        ({"prompts": "nowhere.jsonl"}, "no data at nowhere.jsonl"),
        (
            {"prompts": "lima_ray/miniature/rows/structure.jsonl"},
            "training prompts are among the prompts that measure",
        ),
    ],
)
def test_a_metric_that_nothing_gives_is_refused(
    tree: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    sweep = load(written(tmp_path, axes=RATES, **tree))
    with pytest.raises(UserError, match=expected):
        training.prepare(sweep, base_recipe(sweep), points(sweep))


def test_a_training_is_named_by_what_decides_it(tmp_path: Path) -> None:
    def ids(**tree: Any) -> list[str]:
        sweep = load(written(tmp_path, seeds=[0], **tree))
        return [one.id for one, _ in training.prepare(sweep, base_recipe(sweep), points(sweep))]

    rows = tmp_path / "rows.jsonl"
    rows.write_text(Path("lima_ray/miniature/rows/curated.jsonl").read_text())
    plain = ids(set={"data.train": str(rows)}, axes=RATES)
    assert len(set(plain)) == 2
    other_name = ids(set={"data.train": str(rows), "log.project": "x"}, axes=RATES, keep="all")
    assert other_name == plain
    none_added = {"data.added": "lima_ray/miniature/rows/dialogues.jsonl", "data.added_rows": 0}
    assert ids(set={"data.train": str(rows)} | none_added, axes=RATES) == plain
    assert not {*ids(set={"data.train": str(rows), "data.rows": 90}, axes=RATES)} & {*plain}
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[1:]))
    training.encoded.cache_clear()
    assert not {*ids(set={"data.train": str(rows)}, axes=RATES)} & {*plain}


def test_a_sweep_that_does_not_exist_names_those_that_ship() -> None:
    with pytest.raises(UserError, match=r"no sweep 'qualty'.*did you mean quality\?"):
        space.load("qualty")


def test_an_asha_that_compares_nothing_is_refused(tmp_path: Path) -> None:
    sweep = load(written(tmp_path, axes=RATES, asha=True, set={"optim.epochs": 2}))
    with pytest.raises(UserError, match=r"asha compares epochs from 2 on .* and there are 2"):
        check_scheduler(sweep, base_recipe(sweep))


def test_changed_dev_prompts_make_another_training(tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    lines = (ROWS / "dev.jsonl").read_text().splitlines(keepends=True)

    def id() -> str:
        tree = {"set": {"data.dev": str(dev)}, "seeds": [0]}
        sweep = load(written(tmp_path, **tree))
        return training.prepare(sweep, base_recipe(sweep), points(sweep))[0][0].id

    dev.write_text("".join(lines))
    first = id()
    dev.write_text("".join(lines[1:]))
    assert id() != first
