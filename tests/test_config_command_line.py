"""One entry point, arguments read before anything heavy, one dialect of switches."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro
from huggingface_hub import constants

from lima_ray import __version__
from lima_ray.config import flags
from lima_ray.config.command_line import (
    COMMANDS,
    RecipeCommand,
    docstring,
    parse_arguments,
    parse_command,
    run_command,
    will_train,
)
from lima_ray.config.errors import UserError
from lima_ray.config.paths import PACKAGE, RECIPES
from lima_ray.config.recipe import Recipe
from lima_ray.generation.arguments import GenerationJob
from lima_ray.records.lineage import check_base
from serve.arguments import Args, fields
from tune.arguments import SweepCommand

HEAVY = ("torch", "ray", "transformers", "scipy", "deepspeed", "gradio", "matplotlib", "openai")
ROOT = PACKAGE.parent


def called(*args: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a command says; the modules that it imports stand in its stderr."""
    command = [sys.executable, "-X", "importtime", "-m", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def imported(ended: subprocess.CompletedProcess[str]) -> set[str]:
    names = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert len(names) > 50
    return names & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_a_command_and_imports_nothing_heavy(name: str) -> None:
    takes_none = name in ("haproxy", "serve")
    ended = called(COMMANDS[name].module, *([] if takes_none else ["--help"]))
    assert imported(ended) <= ({"ray"} if name == "haproxy" else set())
    if not takes_none:
        assert ended.returncode == 0 and "usage: python -m" in ended.stdout
        first = docstring(COMMANDS[name].module).splitlines()[0]
        words = " ".join(ended.stdout.replace("│", " ").split())
        assert first in words


def test_every_argument_of_serve_run_is_listed_with_its_default() -> None:
    told = called("serve.arguments")
    assert told.returncode == 0 and not imported(told)
    assert {name for name, _, _ in fields()} == set(Args.model_fields)
    for name, field in Args.model_fields.items():
        assert f"\n{name}=" in told.stdout
        if name in ("model", "replicas", "slots", "queue", "page", "title", "database"):
            assert f"\n{name}={field.default}\n" in told.stdout


@pytest.mark.parametrize("name", ["train", "sweep", "open", "encode"])
def test_a_typo_costs_no_heavy_import(name: str) -> None:
    ended = called(COMMANDS[name].module, "--sed", "3")
    assert ended.returncode == 2 and not imported(ended)
    assert "error: there is no flag --sed" in ended.stderr


def test_the_entry_point_lists_the_commands_and_its_version() -> None:
    listed = called("lima_ray")
    assert listed.returncode == 0 and not imported(listed)
    for name, command in COMMANDS.items():
        assert f"{name:10} {docstring(command.module).splitlines()[0]}" in listed.stdout
        assert f"python -m {command.module}\n" in listed.stdout
    assert called("lima_ray", "--version").stdout == f"lima_ray {__version__}\n"
    wrong = called("lima_ray", "trian")
    assert wrong.returncode == 2 and "did you mean train?" in wrong.stderr


def test_commands_of_the_checkout_work_in_ones_own_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: miniature\nmetric: gradee\n")
    ended = called("lima_ray", "sweep", "mine.yaml", folder=tmp_path)
    assert ended.returncode == 2 and "metric is 'gradee'" in ended.stderr
    assert called("lima_ray", "open", "--help", folder=tmp_path).returncode == 0


def test_help_ends_quietly_where_nobody_reads_on() -> None:
    command = f"{sys.executable} -m lima_ray.train --help | head -n 1"
    ended = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.startswith("usage: ") and ended.stderr == ""


def test_making_a_base_prints_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("Some words to learn from.\n" * 9)
    sizes = ["--hidden", "32", "--layers", "1", "--heads", "2", "--vocab", "270"]
    run_command(
        "base", ["--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "base"), *sizes]
    )
    told = capfd.readouterr()
    assert told.out.count("\n") == 1 and "a random Llama" in told.out and told.err == ""


@pytest.mark.parametrize(
    ("args", "on"),
    [
        (["--train.offload_optimizer"], True),
        (["--train.offload_optimizer", "True"], True),
        (["--train.offload-optimizer", "--seed", "3"], True),
        (["--train.offload_optimizer=true"], True),
        (["--train.offload_optimizer", "false"], False),
        (["--train.no_offload_optimizer"], False),
    ],
)
def test_every_way_to_turn_a_switch(args: list[str], on: bool) -> None:
    assert (
        parse_command(
            RecipeCommand, "prog", None, ["lima-7b", *args]
        ).recipe.train.offload_optimizer
        is on
    )


def test_switches_are_one_dialect_in_all_commands() -> None:
    command = parse_arguments(
        COMMANDS["sweep"], ["quality", "--dry_run", "--seeds", "0", "1", "--resume"]
    )
    assert command == SweepCommand(sweep="quality", dry_run=True, resume=True, seeds=[0, 1])
    asked = ["m", "p", "--out", "o", "--endpoint", "http://h/v1", "--endpoint_extra"]
    generation = flags.parse(GenerationJob, "prog", None, asked)
    assert generation.server.extra and generation.server.url == "http://h/v1"
    assert not parse_arguments(COMMANDS["open"], ["runs/a", "--no_browser"]).browser
    assert not parse_command(RecipeCommand, "prog", None, ["--model.no_liger"]).recipe.model.liger


def test_values_that_look_like_flags_or_switches_stay_what_they_are() -> None:
    def say(text: tyro.conf.Positional[str], loud: bool = False, by: str = "") -> tuple:
        return text, loud, by

    assert flags.parse(say, "prog", None, ["true", "--by", "false"]) == ("true", False, "false")
    assert flags.parse(say, "prog", None, ["--loud", "a-b", "--by=--x y"]) == ("a-b", True, "--x y")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("optim.lr", "optim.learning_rate"),
        ("lr", "optim.learning_rate"),
        ("batch_size", "optim.batch_examples"),
        ("train.gradient_checkpointing", "train.activation_checkpointing"),
        ("data.max_length", "data.max_tokens"),
        ("sampling.max_length", "sampling.context"),
        ("select.firstepoch", "select.first_epoch"),
    ],
)
def test_what_others_call_a_field_is_found(given: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"no flag --{given}; did you mean --{meant}\?"):
        parse_command(RecipeCommand, "prog", None, [f"--{given}", "3"])
    with pytest.raises(UserError, match=rf"unknown key {given} .*did you mean {meant}\?"):
        Recipe().override({given: 3})


def test_the_recipes_that_ship_stand_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command(RecipeCommand, "python -m step", "What it does.", ["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    assert f"RECIPE, first, is a file or one that ships: {names}" in text
    assert "A switch is turned on by its name alone" in text


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
def test_seeds_that_no_generator_takes_are_refused(seed: str) -> None:
    with pytest.raises(UserError, match=r"^lima-7b: seed is .*: input should be (greater|less)"):
        parse_command(RecipeCommand, "prog", None, ["lima-7b", "--seed", seed])
    with pytest.raises(UserError, match=r"seed is .*: input should be (greater|less) than"):
        Recipe().override({"seed": int(seed)})


def test_a_mistyped_base_is_reported_without_a_request_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bases" / "small").mkdir(parents=True)
    (tmp_path / "bases" / "small" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", None)  # whoever opens a connection fails
    with pytest.raises(UserError, match=r"bases holds small; did you mean bases/small\?"):
        check_base("bases/smal")


def test_a_base_that_the_hub_lacks_is_reported_after_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    began_s = time.monotonic()
    with pytest.raises(UserError, match=r"no such directory here, and the hub says: "):
        check_base("nobody/smal")
    assert time.monotonic() - began_s < 15


def test_ray_starts_beside_the_imports_where_a_training_will_need_it(recipe: Recipe) -> None:
    assert will_train(recipe)
    assert not will_train(recipe.override({"model.base": "nobody/nothing"}))
    assert not will_train(recipe.override({"data.train": "nothing.jsonl"}))
    (recipe.run_dir / "export").mkdir(parents=True)
    assert not will_train(recipe)
