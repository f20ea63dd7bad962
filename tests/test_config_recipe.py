"""Recipes hold the paper's values, and a wrong one is refused with the way out."""

import re
from pathlib import Path

import pytest
import yaml

from lima_ray.config.command_line import RecipeCommand, parse_command
from lima_ray.config.differences import flatten
from lima_ray.config.errors import UserError
from lima_ray.config.loading import load_recipe
from lima_ray.config.paths import PACKAGE, RECIPES, output_path, resolve
from lima_ray.config.recipe import Recipe, validate_recipe

PAPER = {  # LIMA section 3
    "data.train": "GAIR/lima",
    "data.max_tokens": 2048,
    "optim.epochs": 15,
    "optim.batch_examples": 32,
    "optim.learning_rate": 1e-5,
    "optim.final_learning_rate": None,  # a tenth
    "optim.beta1": 0.9,
    "optim.beta2": 0.95,
    "optim.weight_decay": 0.1,
    "model.residual_dropout": 0.3,
}
SMALLER = PAPER | {"optim.batch_examples": 64, "model.residual_dropout": 0.2}


def write_recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def refusal(path: str) -> str:
    """Return why a recipe cannot be loaded."""
    with pytest.raises(UserError) as error:
        load_recipe(path)
    return str(error.value)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_that_ship_load_and_hold_only_what_differs(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    sections = yaml.safe_load(path.read_text())
    default = Recipe().model_dump()
    same = [
        f"{section}.{field}"
        for section, fields in sections.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
        if default[section][field] == value and f"{section}.{field}" != "data.train"
    ]
    assert not same


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("lima-65b", {"model.base": "huggyllama/llama-65b"}),
        ("lima-30b", SMALLER | {"model.base": "huggyllama/llama-30b"}),
        ("lima-13b", SMALLER | {"model.base": "huggyllama/llama-13b"}),
        ("lima-7b", SMALLER | {"model.base": "huggyllama/llama-7b"}),
        ("llama3-8b", SMALLER | {"model.base": "meta-llama/Meta-Llama-3-8B"}),
        ("alpaca-65b", {"data.train": "tatsu-lab/alpaca", "optim.epochs": 3}),
    ],
)
def test_recipes_hold_the_papers_values(name: str, differs: dict[str, object]) -> None:
    values = load_recipe(name).identity()
    expected = PAPER | differs
    assert {field: values[field] for field in expected} == expected


def test_empty_file_is_the_defaults_under_the_files_name(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path, "# nothing yet\n")) == Recipe(name="mine")
    assert load_recipe(write_recipe(tmp_path, "name: other\n")).name == "other"


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "optim: {learning_rate: 3e-5}")
    assert load_recipe(path).optim.learning_rate == 3e-5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim: {epoch: 3}", "unknown key optim.epoch (value 3); did you mean optim.epochs?"),
        ("epochs: 3", "unknown key epochs (value 3); did you mean optim.epochs?"),
        ("optmi: {}", "unknown key optmi (value {}); did you mean optim?"),
        ("qqqq: 1", "unknown key qqqq (value 1)\n"),
        ("optim: {epochs: 0}", "optim.epochs is 0: input should be greater than or equal to 1"),
        ("optim: {beta1: 1.0}", "optim.beta1 is 1.0: input should be less than 1"),
        ("optim: {beta1: high}", "optim.beta1 is 'high': input should be a valid number"),
        ("model: {residual_dropout: 1}", "model.residual_dropout is 1: "),
        ("train: {zero_stage: 4}", "train.zero_stage is 4: input should be 'auto', 0, 1, 2 or 3"),
        ("data: {leaks: keep}", "data.leaks is 'keep': input should be 'stop' or 'drop'"),
        ("optim:", "optim is None: "),
        ("name: a/b", "name is 'a/b': string should match pattern '^([A-Za-z0-9_-]"),
        ("1: 2", "1 is 1: keys should be strings"),
    ],
)
def test_wrong_keys_and_values_are_named(tmp_path: Path, text: str, expected: str) -> None:
    message = refusal(write_recipe(tmp_path, text))
    assert f"{message}\n".startswith(f"{tmp_path / 'mine.yaml'}: {expected}")


def test_every_wrong_field_is_listed_at_once(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "optim: {epochs: 0, lrate: 1}\ntrain: {zero_stage: 9}\nx: 1")
    message = refusal(path)
    lines = message.splitlines()
    assert len(lines) == 4
    assert all(line.strip().startswith(f"{path}: ") for line in lines)
    named = ("optim.epochs is 0", "key optim.lrate", "train.zero_stage is 9", "unknown key x")
    assert all(part in message for part in named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "holds a list; a recipe is a mapping"),
        ("[]", "holds a list; a recipe is a mapping"),
        ("just words", "holds a str; a recipe is a mapping"),
        ("optim: {epochs: 3", "is not YAML"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(write_recipe(tmp_path, text)).startswith(f"{tmp_path / 'mine.yaml'} {expected}")


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(UserError, match="is not YAML"):
        load_recipe(str(path))


def test_file_whose_name_cannot_name_a_run(tmp_path: Path) -> None:
    path = tmp_path / "my recipe.yaml"
    path.write_text("seed: 1")
    with pytest.raises(UserError, match="name is 'my recipe': string should match"):
        load_recipe(str(path))
    path.write_text("name: mine")
    assert load_recipe(str(path)).name == "mine"


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no recipe 'lima7b'.* did you mean lima-7b\?") as error:
        load_recipe("lima7b")
    assert all(path.stem in str(error.value) for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({"train.tokens_per_micro_batch": 2047}, "2047, less than data.max_tokens 2048"),
        ({"optim.final_learning_rate": 2e-5}, "2e-05 is above optim.learning_rate 1e-05"),
        ({"data.added_rows": 3}, "data.added_rows is 3, but data.added names no rows"),
        (
            {"train.zero_stage": 0, "train.offload_optimizer": True},
            "offload_optimizer needs train.zero_stage 1, 2 or 3, not 0",
        ),
        (
            {"train.zero_stage": 0, "train.precision": "bf16"},
            "train.precision bf16 needs train.zero_stage 1, 2 or 3",
        ),
        (
            {"train.zero_stage": 2, "train.offload_params": True},
            "offload_params needs train.zero_stage 3, not 2",
        ),
        (
            {"cluster.workers": 2, "cluster.min_workers": 3},
            "cluster.min_workers 3 is above cluster.workers 2",
        ),
        (
            {"cluster.workers": 33},
            "optim.batch_examples 32 is smaller than cluster.workers 33",
        ),
    ],
)
def test_fields_that_disagree_are_refused(point: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        Recipe().override(point)


@pytest.mark.parametrize(
    "point",
    [
        {"train.tokens_per_micro_batch": 2048},
        {"optim.final_learning_rate": 1e-5},
        {"train.zero_stage": 1, "train.offload_optimizer": True},
        {"train.zero_stage": 1, "train.precision": "bf16"},
        {"train.zero_stage": 3, "train.offload_params": True},
        {"cluster.workers": 2, "cluster.min_workers": 2},
        {"cluster.workers": 32},
    ],
)
def test_fields_that_just_agree_are_accepted(point: dict[str, object]) -> None:
    values = flatten(Recipe().override(point).model_dump())
    assert {name: values[name] for name in point} == point


def test_override_replaces_dotted_names_in_a_copy() -> None:
    recipe = Recipe(name="a")
    other = recipe.override({"optim.learning_rate": 3e-5, "seed": 7, "data.dev": "dev.jsonl"})
    assert (other.optim.learning_rate, other.seed, other.data.dev) == (3e-5, 7, "dev.jsonl")
    assert other.optim.epochs == recipe.optim.epochs
    assert recipe == Recipe(name="a")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("optim.learning_rat", "; did you mean optim.learning_rate?"),
        ("learning_rate", "; did you mean optim.learning_rate?"),
        ("optimizer.epochs", "; did you mean optim.epochs?"),
        ("corpus.test", "; did you mean data.test?"),
        ("optim.epochs.x", "; did you mean optim.epochs?"),
        ("seed.x.y", "; did you mean seed?"),
        ("runs_dir.r", "; did you mean runs_dir?"),
    ],
)
def test_override_refuses_unknown_names(name: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe().override({name: 1})
    assert str(error.value) == f"unknown key {name} (value 1){expected}"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().optim.epochs = 3


def test_saved_recipe_loads_as_it_was(tmp_path: Path) -> None:
    recipe = load_recipe("lima-7b").override(
        {"data.dev": "dév.jsonl", "optim.learning_rate": 3.3e-6}
    )
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    saved = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert saved == recipe.model_dump()


def test_parse_takes_a_recipe_and_flags() -> None:
    argv = ["lima-7b", "--optim.epochs", "3", "--model.liger", "False", "--data.dev", "d.jsonl"]
    recipe = parse_command(RecipeCommand, "prog", None, argv).recipe
    changes = {"optim.epochs": 3, "model.liger": False, "data.dev": "d.jsonl"}
    assert recipe == load_recipe("lima-7b").override(changes)


def test_parse_takes_a_file(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "seed: 5")
    assert parse_command(RecipeCommand, "prog", None, [path, "--name", "n"]).recipe == Recipe(
        name="n", seed=5
    )


def test_parse_reads_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x.py", "lima-13b", "--seed", "4"])
    assert parse_command(RecipeCommand, "prog", None).recipe == load_recipe("lima-13b").override(
        {"seed": 4}
    )


def test_steps_add_options_of_their_own() -> None:
    class Show(RecipeCommand):
        count: int = 3

    step = parse_command(Show, "prog", None, ["lima-7b", "--count", "5"])
    assert (step.count, step.recipe) == (5, load_recipe("lima-7b"))


def test_help_shows_the_recipes_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command(RecipeCommand, "python -m step", "What it does.", ["lima-7b", "--help"])
    assert exit_.value.code == 0
    text = " ".join(re.sub("[│╭╰╮╯─]", " ", capsys.readouterr().out).split())
    assert "python -m step [RECIPE]" in text
    assert "What it does." in text
    assert re.search(r"--optim.batch_examples INT Examples of one .*? \(default: 64\)", text)
    assert re.search(r"--model.base STR .*? \(default: huggyllama/llama-7b\)", text)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--optim.epochs", "many"], "--optim.epochs"),
        (["--data.loss_on", "prompts"], "'replies', 'all'"),
    ],
)
def test_wrong_flags_are_explained(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_command(RecipeCommand, "prog", None, ["lima-7b", *flags])
    assert exit_.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_value_that_its_field_refuses_is_told_by_the_flags_name() -> None:
    with pytest.raises(UserError, match=r"--optim\.epochs is 0: input should be greater than"):
        parse_command(RecipeCommand, "prog", None, ["lima-7b", "--optim.epochs", "0"])


def test_flags_that_disagree_with_the_recipe_are_a_user_error() -> None:
    with pytest.raises(
        UserError, match=r"^lima-7b: train\.offload_params needs train\.zero_stage 3"
    ):
        parse_command(RecipeCommand, "prog", None, ["lima-7b", "--train.offload_params", "True"])


@pytest.mark.parametrize(
    ("point", "same"),
    [
        ({"cluster.workers": 4, "cluster.device": "gpu"}, True),
        ({"log.tracker": "wandb", "log.project": "p"}, True),
        ({"checkpoint.state_every_steps": 9}, True),
        ({"name": "other"}, True),
        ({"runs_dir": "/elsewhere"}, True),
        ({"seed": 1}, False),
        ({"data.max_tokens": 1024}, False),
        ({"model.residual_dropout": 0.2}, False),
        ({"optim.epochs": 16}, False),
        ({"train.precision": "fp32"}, False),
    ],
)
def test_only_what_decides_the_weights_is_in_the_hash(point: dict[str, object], same: bool) -> None:
    recipe = Recipe()
    assert (recipe.override(point).hash() == recipe.hash()) is same
    assert re.fullmatch("[0-9a-f]{12}", recipe.hash())


def test_resolve_finds_files_and_what_the_package_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    assert resolve("rows.jsonl") == tmp_path / "rows.jsonl"
    assert resolve(str(tmp_path / "rows.jsonl")) == tmp_path / "rows.jsonl"
    assert resolve("lima_ray/recipes") == PACKAGE / "recipes"
    assert resolve("lima_ray/nothing") is None
    assert resolve("lima_ray") is None
    assert resolve("GAIR/lima") is None
    Path("lima_ray/recipes").mkdir(parents=True)
    assert resolve("lima_ray/recipes") == tmp_path / "lima_ray/recipes"


def test_resolve_knows_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base").mkdir()
    assert resolve("~/base") == tmp_path / "base"


def test_runs_of_a_ray_job_go_to_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, job = tmp_path / "home", tmp_path / "session/runtime_resources/working_dir_files/x"
    job.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert output_path(Path("runs")) == tmp_path / "runs"
    monkeypatch.chdir(job)
    assert output_path(Path("runs")) == home / "lima_ray/runs"
    assert output_path(Path("/data/runs")) == Path("/data/runs")
    assert output_path(Path("~/runs")) == home / "runs"
    assert validate_recipe({"name": "a"}).run_dir == home / "lima_ray/runs/a"


def test_the_last_rate_is_a_tenth_of_the_first_unless_it_is_given() -> None:
    assert Recipe().optim.last_learning_rate == pytest.approx(1e-6)  # LIMA section 3
    assert Recipe().override(
        {"optim.learning_rate": 3e-4}
    ).optim.last_learning_rate == pytest.approx(3e-5)
    assert Recipe().override({"optim.final_learning_rate": 0}).optim.last_learning_rate == 0


def test_a_command_without_flags_has_its_recipe_as_it_stands() -> None:
    assert parse_command(RecipeCommand, "train", "", []).recipe == load_recipe("miniature")
    assert parse_command(RecipeCommand, "train", "", ["lima-7b"]).recipe == load_recipe("lima-7b")
