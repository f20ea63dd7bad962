"""Reports of studies: tables, verdicts, pictures and the best point, from the files of sweeps.

The builders below write what trainings and judges write; the grades are drawn so that the outcome
of each study is known.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from lima_ray.config import command_line
from lima_ray.config.loading import load_recipe as load_recipe
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.quality import Quality
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict
from lima_ray.results.intervals import crossed_mean
from tune import report, reproduce, space
from tune.reports import figure
from tune.reports.charts import bars, line, stacked
from tune.reports.finding import finding
from tune.reports.multi_axis_charts import heat_map, parallel
from tune.reports.tables import point_rows
from tune.results import Study
from tune.space import Sweep
from tune.sweep_directory import SweepDirectory

PROMPTS = 40
TWO = {"data.train": {"grid": {"filtered": "curated.jsonl", "unfiltered": "raw.jsonl"}}}
FILTERED = {"better": {"data.train": "filtered"}, "than": {"data.train": "unfiltered"}}
Level = Callable[[dict[str, str], int], float]
"""Mean grade of the point with these labels at a seed."""


def sweep_of(folder: Path, **tree: Any) -> Sweep:
    """A sweep that has begun in a folder, and nothing is done of it."""
    sweep = Sweep.model_validate({"name": "mine", "set": {"optim.epochs": 10}} | tree)
    base = space.base_recipe(sweep)
    with SweepDirectory(folder / "sweeps" / sweep.name) as directory:
        directory.check(sweep, base, space.points(sweep), [], resume=False)
        directory.write()
    return sweep


def study_of(folder: Path, level: Level, **tree: Any) -> Study:
    """A study whose every training is done; `level` says how well each point replies."""
    sweep = sweep_of(folder, **tree)
    for point in space.points(sweep):
        for seed in sweep.seeds:
            train(folder, sweep, point.number, seed, level(point.labels, seed))
    return Study.load(folder / "sweeps" / sweep.name)


def train(
    folder: Path,
    sweep: Sweep,
    point: int,
    seed: int,
    level: float,
    dev: float | None = None,
    stopped: float = 0.9,
) -> None:
    """Write a training that is done: its run, epoch 7 of 5 to 8 chosen, and what measures it."""
    run = Run(folder / "trials" / f"{point:06}{seed:06}")
    run.export_dir.mkdir(parents=True)
    space.base_recipe(sweep).save(run.recipe_file)
    write_json(run.export_dir / "lineage.json", {"epoch": 7})
    write_json(run.data_card_file, {"data": {"hash": "da7a"}, "base": {"hash": "ba5e"}})
    for epoch in range(5, 9):
        best = (level if dev is None else dev) + 0.1 * (epoch == 7)
        assess(run, epoch, best, seed, perplexity=1.5, stopped=stopped)
    measured = run.path / "measured" / "test-0"
    measured.mkdir(parents=True)
    write_jsonl(verdicts(level, seed), measured / "verdicts.jsonl")
    end(folder, sweep, point, seed, "done", measured=str(measured))


def end(folder: Path, sweep: Sweep, point: int, seed: int, status: str, **more: Any) -> None:
    """Write the line of a training that ended."""
    id = f"{point:06}{seed:06}"
    line = {"id": id, "status": status, "run": str(folder / "trials" / id), "measured": None}
    line |= {"error": "", "seconds": 60.0, "point": point, "seed": seed}
    with (folder / "sweeps" / sweep.name / "trainings.jsonl").open("a") as out:
        out.write(json.dumps(line | more) + "\n")


def assess(
    run: Run, epoch: int, level: float, seed: int, perplexity: float, stopped: float = 0.9
) -> None:
    """Write an epoch's dev replies as judged."""
    run.dev_dir(epoch).mkdir(parents=True)
    found = verdicts(level, seed)
    write_jsonl(found, run.dev_dir(epoch) / "verdicts.jsonl")
    grade = float(np.mean([v["grade"] for v in found]))
    quality = Quality(epoch, grade, 1, 6, stopped, len(found), 0, perplexity, "exact", 1.0)
    write_json(run.dev_dir(epoch) / "quality.json", asdict(quality))


def verdicts(level: float, seed: int) -> list[dict[str, Any]]:
    """Audits of a reply to each prompt: hard prompts are hard at every seed and level."""
    hardness_P = np.random.default_rng(0).normal(0, 1, PROMPTS)
    luck_P = np.random.default_rng(seed + 1).normal(0, 0.3, PROMPTS)
    grades_P = np.clip(np.round(level - hardness_P + luck_P), 1, 6).astype(int)
    names = {6: "excellent", 5: "pass", 4: "pass"}
    return [
        {"id": f"prompt-{i:02}", "kind": "audit", "sample": 0, "grade": int(grade)}
        | {
            "annotator": "exact",
            "verdict": names.get(grade, "fail"),
            "stopped": bool(grade != 3),
            "group": "in",
        }
        for i, grade in enumerate(grades_P)
    ]


def lower_where(label: str, by: float) -> Level:
    """Seeds that differ a little, and points of this label that are worse."""
    return lambda labels, seed: 4 + 0.1 * seed - by * (label in labels.values())


def shown(study: Study) -> str:
    """What a terminal of 100 columns shows."""
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(report.table(study))
    return console.export_text()


FOUR = {"data.added_rows": {"grid": [0, 3, 10, 30]}}
ADDED = {"set": {"data.added": "more.jsonl"}, "axes": FOUR, "seeds": [0]}


def test_of_equal_dev_grades_the_one_that_stops_more_is_best_and_that_is_said(
    tmp_path: Path,
) -> None:
    sweep = sweep_of(tmp_path, **ADDED)
    for point, (dev, stopped) in enumerate([(4, 0.0), (3, 1.0), (4, 0.95), (4, 0.5)]):
        train(tmp_path, sweep, point, 0, 4.0, dev, stopped)
    study = Study.load(tmp_path / "sweeps" / "mine")
    assert study.best() == study.points[2]
    text = report.write(study).read_text()
    assert (
        "The dev grade is the same of added rows 0 (0.0 % stop); added rows 30 (50.0 % stop)"
        in (text)
    )
    assert "Of added rows 10 more of its dev replies stop (95.0 %)" in text
    assert load_recipe(str(study.path / "best.yaml")).data.added_rows == 10
    assert "95 % stop" in (study.path / "best.yaml").read_text()


def test_a_point_that_measures_better_than_the_best_on_dev_is_named(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, **ADDED)
    for point, (level, dev) in enumerate([(3.0, 3.0), (3.5, 5.0), (3.6, 4.0), (4.5, 4.5)]):
        train(tmp_path, sweep, point, 0, level, dev)
    study = Study.load(tmp_path / "sweeps" / "mine")
    assert study.best() == study.points[1]
    levels = [f"{study.estimate(study.points[n]).mean:.2f}" for n in (3, 1)]
    words = (
        f"On the measuring prompts added rows 30 is best: mean grade {levels[0]} against "
        f"{levels[1]}. best.yaml follows the dev prompts."
    )
    assert words in report.write(study).read_text()
    assert "On the measuring prompts added rows 30 is best" in shown(study)
    row = point_rows(study)[1]
    assert (row["dev grade"], row["epochs chosen"]) == (
        f"{study.dev_value(study.points[1]):.2f}",
        "7",
    )


def test_of_a_loss_the_lowest_is_the_best_on_the_measuring_prompts(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, metric="perplexity", **ADDED)
    losses = (1.5, 1.2, 1.9, 1.4)
    for point, (loss, dev) in enumerate(zip(losses, (3.0, 4.0, 3.5, 5.0), strict=True)):
        train(tmp_path, sweep, point, 0, 4.0, dev)
        rows = [Verdict(f"{n}", "loss", "loss", loss).to_json() for n in range(9)]
        measured = tmp_path / "trials" / f"{point:06}{0:06}" / "measured" / "test-0"
        write_jsonl(rows, measured / "verdicts.jsonl")
    study = Study.load(tmp_path / "sweeps" / "mine")
    assert study.best() == study.points[3]
    words = (
        "On the measuring prompts added rows 3 is best: loss on held-out dialogues 1.200 against "
        "1.400."
    )
    assert words in report.write(study).read_text()


def test_the_only_point_is_not_called_base(tmp_path: Path) -> None:
    study = study_of(tmp_path, lambda _, seed: 4.0, seeds=[0])
    assert study.points[0].name == "the recipe"


def test_perplexity_compares_without_a_judge_lower_is_better_and_its_warning_is_there(
    tmp_path: Path,
) -> None:
    claim = {"better": {"optim.learning_rate": 1e-3}, "than": {"optim.learning_rate": 1e-5}}
    axes = {"optim.learning_rate": {"grid": [1e-5, 1e-3]}}
    fields = {"select.judge": "none"}
    sweep = sweep_of(tmp_path, axes=axes, set=fields, metric="perplexity", expect=claim)
    expected = {}
    for point in space.points(sweep):
        for seed in sweep.seeds:
            run = Run(tmp_path / "trials" / f"{point.number:06}{seed:06}")
            run.export_dir.mkdir(parents=True)
            space.base_recipe(sweep).save(run.recipe_file)
            write_json(run.export_dir / "lineage.json", {"epoch": 10})
            noise_P = np.random.default_rng(seed).normal(0, 0.02, PROMPTS)
            losses_P = np.linspace(1, 2, PROMPTS) - 0.5 * point.number + noise_P
            rows = [
                {"id": f"{n:06}", "kind": "loss", "annotator": "loss", "sample": 0, "tokens": 9}
                | {"verdict": float(loss)}
                for n, loss in enumerate(losses_P)
            ]
            write_jsonl(rows, run.path / "verdicts.jsonl")
            expected.setdefault(point.number, []).append(losses_P.mean())
            end(tmp_path, sweep, point.number, seed, "done", measured=str(run.path))
    study = Study.load(tmp_path / "sweeps" / sweep.name)
    rows = point_rows(study)
    for number, row in enumerate(rows):
        assert row["perplexity"] == f"{np.exp(np.mean(expected[number])):.3f}"
        assert row["loss, nats a token [95 %]"].startswith(f"{np.mean(expected[number]):.3f} [")
    assert study.best() is None and not (study.path / "best.yaml").exists()
    found = finding(study)
    assert found and found.answer == "agrees"
    text = report.write(study).read_text()
    assert "it does not track the quality of replies (LIMA appendix B)" in text
    assert "does not track" in shown(study) and (study.path / "figure.png").exists()


def test_the_table_holds_what_the_verdicts_say(tmp_path: Path) -> None:
    study = study_of(tmp_path, lower_where("unfiltered", 0.5), axes=TWO, expect=FILTERED)
    grades_PSN = np.array(
        [[[v["grade"] for v in verdicts(4 + 0.1 * s - d, s)] for s in (0, 1, 2)] for d in (0, 0.5)]
    )
    first, second = point_rows(study)
    own = crossed_mean(grades_PSN[0])
    level = f"{grades_PSN[0].mean():.2f} [{own.low:.2f}, {own.high:.2f}]"
    assert first["grade, 1 to 6 [95 %]"] == level
    apart = crossed_mean(grades_PSN[0] - grades_PSN[1])
    change = f"{apart.mean:+.2f} [{apart.low:+.2f}, {apart.high:+.2f}]"
    assert first["difference [95 %]"] == change and second["difference [95 %]"] == ""
    parts = [100 * np.mean(part) for part in (grades_PSN[1] == 6, grades_PSN[1] < 4)]
    assert second["excellent / pass / fail, %"] == (
        f"{parts[0]:.1f}/{100 - sum(parts):.1f}/{parts[1]:.1f}"
    )
    assert second["stop, %"] == f"{100 * np.mean(grades_PSN[1] != 3):.1f}"
    assert (first["data"], first["seeds"], first["epochs chosen"]) == (
        "filtered",
        "3 of 3",
        "7, 7, 7",
    )
    text = shown(study)
    assert level.replace(", ", ",") in text and change.replace(", ", ",") in text
    assert "6 of 6 trainings done" in text and "agrees" in text


@pytest.mark.parametrize(
    ("lower", "by", "within", "answer"),
    [
        ("unfiltered", 0.5, None, "agrees"),
        ("filtered", 0.5, None, "disagrees"),
        ("unfiltered", 0.0, None, "not resolved"),
        ("unfiltered", 0.2, 0.5, "agrees"),
        ("filtered", 1.0, 0.5, "disagrees"),
        ("unfiltered", 0.5, 0.5, "not resolved"),
    ],
)
def test_the_interval_of_the_difference_decides(
    lower: str, by: float, within: float | None, answer: str, tmp_path: Path
) -> None:
    expect = FILTERED | {"within": within}
    study = study_of(tmp_path, lower_where(lower, by), axes=TWO, expect=expect)
    found = finding(study)
    assert found and found.answer == answer, found
    assert "over 3 seeds and 40 prompts" in found.sentence


def test_a_claim_pairs_points_over_the_axes_it_does_not_name(tmp_path: Path) -> None:
    """Rates differ far more than dropout does; within a rate dropout is a little better."""
    rates = [1e-4, 3e-4, 1e-3]
    axes = {
        "model.residual_dropout": {"grid": [0, 0.2]},
        "optim.learning_rate": {"grid": rates},
    }
    expect = {"better": {"model.residual_dropout": 0.2}, "than": {"model.residual_dropout": 0.0}}
    sweep = sweep_of(tmp_path, axes=axes, expect=expect)
    for point in space.points(sweep):
        rate = rates.index(point.values["optim.learning_rate"])
        for seed in sweep.seeds:
            if (point.number, seed) == (2, 1):
                end(tmp_path, sweep, 2, 1, "failed", error="out of memory")
            elif rate < 2 or point.number < 3:  # of the last rate, only one of the pair is done
                level = 2.5 + rate + 0.3 * (point.values["model.residual_dropout"] == 0.2)
                train(tmp_path, sweep, point.number, seed, level)
    study = Study.load(tmp_path / "sweeps" / "mine")
    found = finding(study)
    assert found and found.answer == "agrees"
    assert "the mean of 2 of 3 pairs that differ in nothing else" in found.sentence
    rows = point_rows(study)
    assert [bool(row["difference [95 %]"]) for row in rows] == [False] * 3 + [True, True, False]
    apart = study.compare(study.points[4], study.points[1])
    assert rows[4]["difference [95 %]"].startswith(f"{apart.mean:+.2f} ")
    assert float(rows[4]["p"].strip("<")) >= apart.p  # of two comparisons


@pytest.mark.parametrize(
    ("grade_rise", "perplexity_rise", "answer"),
    [
        (0.15, [0.1, 0.1, 0.1], "agrees"),
        (-0.15, [0.1, 0.1, 0.1], "disagrees"),
        (0.15, [-0.1, -0.1, -0.1], "disagrees"),
        (0.15, [0.1, 0.1, -0.1], "not resolved"),
        (0.0, [0.1, 0.1, 0.1], "not resolved"),
    ],
)
def test_epochs_agree_where_grade_and_perplexity_both_rise(
    grade_rise: float, perplexity_rise: list[float], answer: str, tmp_path: Path
) -> None:
    study = epochs_study(tmp_path, grade_rise, perplexity_rise)
    found = finding(study)
    assert found and found.answer == answer, found
    text = report.write(study).read_text()
    assert "| 3 |" in text and "held-out perplexity" in text
    assert "epoch" in shown(study)


def epochs_study(folder: Path, grade_rise: float, perplexity_rise: list[float]) -> Study:
    """A study of six epochs; perplexity is lowest at epoch 3, or falls to the end."""
    sweep = sweep_of(folder, every_epoch=True)
    for seed, rise in enumerate(perplexity_rise):
        train(folder, sweep, 0, seed, 4.0)
        run = Run(folder / "trials" / f"{0:06}{seed:06}")
        for epoch in (1, 2, 3, 4, 9, 10):
            perplexity = 1.5 + (abs(epoch - 3) * rise if rise > 0 else (10 - epoch) * 0.05)
            assess(run, epoch, 3.5 + grade_rise * epoch, seed, perplexity)
    return Study.load(folder / "sweeps" / "mine")


def test_a_study_without_a_rule_has_no_verdict(tmp_path: Path) -> None:
    study = study_of(tmp_path, lower_where("", 0), axes=TWO, seeds=[0])
    assert finding(study) is None
    assert "one seed says nothing of others" in report.write(study).read_text()


def test_the_best_point_on_dev_is_a_recipe_to_train(tmp_path: Path) -> None:
    axes = {"optim.learning_rate": {"grid": [1e-4, 2e-5]}, "model.lora_rank": {"grid": [0, 8]}}
    study = study_of(tmp_path, lower_where("0.0001", 1.0), axes=axes, seeds=[3, 4])
    for outcome in study.of(study.points[2]):  # what measures must not choose
        assert outcome.measured
        write_jsonl(verdicts(1.0, 0), outcome.measured / "verdicts.jsonl")
    study = Study.load(study.path)
    report.write(study)
    best, text = load_recipe(str(study.path / "best.yaml")), (study.path / "best.yaml").read_text()
    changes = {"optim.learning_rate": 2e-5, "seed": 3, "name": "mine-best"}
    assert best == study.recipe.override(changes)
    assert text.startswith("# The best of 4 points of the sweep mine on the dev prompts")
    assert "weight_decay" not in text and "residual_dropout: 0.1" in text


GRIDS: dict[str, tuple[dict[str, Any], Any]] = {
    "names": ({"axes": TWO, "paper": {"filtered": 3.83}}, bars),
    "numbers": ({"axes": {"data.rows": {"grid": [8, 16, 64, 128]}}}, line),
    "audits": (
        {
            "axes": {"data.added_rows": {"grid": [0, 3, 30]}},
            "metric": "excellent",
            "set": {"data.added": "more.jsonl"},
            "paper": {"30": {"excellent": 76.1, "pass": 21.7, "fail": 2.2}},
        },
        stacked,
    ),
    "two": (
        {
            "axes": {
                "model.residual_dropout": {"grid": [0, 0.1]},
                "optim.learning_rate": {"grid": [1e-4, 3e-4]},
            }
        },
        heat_map,
    ),
    "three": (
        {
            "axes": {
                "model.residual_dropout": {"uniform": [0, 0.3]},
                "data.loss_on": {"choice": ["replies", "all"]},
                "optim.batch_examples": {"grid": [32, 64]},
            },
            "points": 4,
        },
        parallel,
    ),
    "none": ({}, bars),
}


FILLED = {bars: 40_000, heat_map: 250_000, stacked: 100_000}
"""Coloured dots of charts that have areas, so that one without them is told."""


def check_picture(paths: list[Path], least: int = 1000) -> None:
    """See that there is one, of 8 by 4.5 inches at 150 dots, and not only grey axes and text."""
    (path,) = paths
    colours_HWC = image.imread(path)[..., :3]
    assert colours_HWC.shape[:2] == (675, 1200)
    assert np.count_nonzero(np.ptp(colours_HWC, axis=2) > 0.3) > least, path


@pytest.mark.parametrize("kind", GRIDS)
def test_each_kind_of_study_has_its_picture(kind: str, tmp_path: Path) -> None:
    tree, chart = GRIDS[kind]
    sweep = sweep_of(tmp_path, seeds=[0, 1], **tree)
    points = space.points(sweep)
    assert figure.draw(Study.load(tmp_path / "sweeps" / "mine")) == []
    for point in points[: max(1, len(points) - 1)]:  # the last point failed
        for seed in sweep.seeds:
            train(tmp_path, sweep, point.number, seed, 4 + 0.2 * seed + 0.3 * point.number)
    if len(points) > 1:
        end(tmp_path, sweep, points[-1].number, 0, "failed", error="out of memory")
    study = Study.load(tmp_path / "sweeps" / "mine")
    assert figure.chart_of(study) is chart
    check_picture(figure.draw(study), FILLED.get(chart, 1000))


def test_epochs_have_their_picture(tmp_path: Path) -> None:
    check_picture(figure.draw(epochs_study(tmp_path, 0.2, [0.1, 0.2])))


def test_failed_and_missing_trainings_are_said(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes={"data.rows": {"grid": [8, 16, 32]}})
    for seed in (0, 2):
        train(tmp_path, sweep, 0, seed, 4.0)
    trace = "Traceback (most recent call last):\n  File x, line 3\nValueError: loss is nan\n"
    end(tmp_path, sweep, 0, 1, "failed", error=trace)
    end(tmp_path, sweep, 1, 0, "stopped")
    end(tmp_path, sweep, 1, 1, "failed", error="no room\non the disk")
    study = Study.load(tmp_path / "sweeps" / "mine")
    text = shown(study)
    assert "2 of 9 trainings done" in text
    assert "2 of 3, 1 failed" in text and "0 of 3, 1 failed, 1 stopped early" in text
    page = report.write(study).read_text()
    assert "rows 8, seed 1 (`000000000001`): ValueError: loss is nan\n" in page
    assert "rows 16, seed 1 (`000001000001`): no room on the disk\n" in page
    assert "**Not finished**: rows 16 (seed 2); rows 32 (seed 0, 1, 2)." in page


def test_the_page_has_the_papers_figures_and_where_all_came_from(tmp_path: Path) -> None:
    paper = {"filtered": 3.83, "unfiltered": {"excellent": 10, "pass": 20, "fail": 70}}
    study = study_of(
        tmp_path,
        lower_where("unfiltered", 0.5),
        axes=TWO,
        expect=FILTERED,
        paper=paper,
        claim="Filtered rows are better.",
    )
    text = report.write(study).read_text()
    assert text.startswith("# mine\n\nThe claim: Filtered rows are better.\n\n**Agrees**. The mean")
    assert "![mine](figure.png)" in text and (study.path / "figure.png").exists()
    assert "| 3.83 |" in text and "| 10.0/20.0/70.0 |" in text
    for text_part in ("seed 0, 1, 2", "40 prompts", "judged by exact", "1 sample for each"):
        assert text_part in text
    row = "| data unfiltered | 2 | done | 7 | da7a | ba5e | `../../trials/000001000002` |"
    assert row in text
    assert str(tmp_path) not in text


def test_verdicts_that_could_not_be_read_are_counted_and_left_out(tmp_path: Path) -> None:
    study = study_of(tmp_path, lower_where("", 0), axes=TWO, seeds=[0, 1])
    for outcome in study.outcomes:
        graded = [
            {"id": v["id"], "sample": 0, "kind": "grade", "annotator": "judge", "stopped": True}
            for v in verdicts(4, 0)
        ]
        for number, verdict in enumerate(graded):
            verdict["verdict"] = 2 if number else "invalid"
        assert outcome.measured
        write_jsonl(graded, outcome.measured / "verdicts.jsonl")
    study = Study.load(study.path)
    row = point_rows(study)[0]
    assert row["grade, 1 to 6 [95 %]"] == "2.00 [2.00, 2.00]" and not any("pass" in k for k in row)
    text = report.write(study).read_text()
    assert "4 verdicts could not be read and are left out" in text
    assert "left out: 2 of data filtered, 2 of data unfiltered." in text


def test_the_command_reports_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(tmp_path, lower_where("unfiltered", 0.5), axes=TWO, seeds=[0, 1])
    command_line.run_command("sweep_report", [str(study.path)])
    printed = capsys.readouterr().out
    assert shown(study) in printed and f"report       {study.path / 'report.md'}" in printed
    with pytest.raises(SystemExit) as ended:
        command_line.run_command("sweep_report", [str(tmp_path)])
    assert ended.value.code == 2
    assert "is no sweep: it holds no sweep.yaml" in capsys.readouterr().err


def test_the_page_of_several_studies_shows_each_with_its_pictures(tmp_path: Path) -> None:
    studies = []
    for name in ("first", "second"):
        claim = f"The {name} claim | of two."
        folder = tmp_path / name
        tree = {"name": name, "axes": TWO, "expect": FILTERED, "claim": claim, "seeds": [0, 1]}
        studies.append(study_of(folder, lower_where("unfiltered", 1.0), **tree))
        report.write(studies[-1])
    with reproduce.Stopwatch(tmp_path / "reproduce.json") as stopwatch:
        pass
    page = reproduce.write(studies, tmp_path / "out", stopwatch)
    text = page.read_text()
    assert text.startswith(
        "# The paper's ablations, measured here\n\n`python -m tune.reproduce`: 4 trainings "
    )
    assert "| [second](#second) | The second claim \\| of two. | The mean grade is " in text
    assert text.count("| **agrees** |") == 2
    assert text.count("## first\n\n**Agrees**. The mean grade is") == 1
    assert text.count("![first](first-figure.png)") == 1
    assert all((page.parent / f"{name}-figure.png").exists() for name in ("first", "second"))
