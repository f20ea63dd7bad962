"""Every command: what it is called, where it stands, and its arguments, which are read first.

Ray, torch and transformers take seconds to import; `--help` or a mistyped flag needs none of them.
So a command whose module imports them has its arguments elsewhere, and its module begins with

    if __name__ == "__main__":
        from lima_ray.config.command_line import run_command

        sys.exit(run_command("train"))

which reads the arguments, imports the module by its name (Ray's workers then find its classes
there), and calls its `main` with them. Other modules read their arguments themselves.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import BaseModel, ValidationError

from lima_ray.config import flags
from lima_ray.config.cluster import connect_during, set_ray_defaults
from lima_ray.config.errors import UserError, exit_on_user_error
from lima_ray.config.loading import DEFAULT_RECIPE, load_recipe
from lima_ray.config.paths import PACKAGE, RECIPES, resolve
from lima_ray.config.recipe import Recipe, describe_errors
from lima_ray.config.sections import Section
from lima_ray.config.storage.bucket import is_url


@dataclass(frozen=True)
class Command:
    module: str
    arguments: str = ""
    """`module:name` of what its `main` takes, a section or a function that reads it; empty where
    `main` reads the command line."""
    trains: bool = False
    """Whether `main` trains what the arguments' recipe says, so that it needs Ray at once."""


COMMANDS = {
    "demo": Command(
        "lima_ray.miniature.demo", "lima_ray.config.command_line:RecipeCommand", trains=True
    ),
    "curate": Command("lima_ray.curate", "lima_ray.curation.arguments:parse_curate"),
    "example": Command("lima_ray.example"),
    "encode": Command("lima_ray.encode"),
    "plan": Command("lima_ray.plan", "lima_ray.planning.arguments:PlanCommand"),
    "train": Command("lima_ray.train", "lima_ray.config.command_line:RecipeCommand", trains=True),
    "select": Command("lima_ray.select", "lima_ray.judging.choice:parse_selection"),
    "generate": Command("lima_ray.generate", "lima_ray.generation.arguments:GenerationJob"),
    "judge": Command("lima_ray.judge", "lima_ray.judging.arguments:JudgeCommand"),
    "verdicts": Command("lima_ray.verdicts", "lima_ray.judging.verdict_arguments:parse_verdicts"),
    "compare": Command("lima_ray.compare"),
    "study": Command("lima_ray.study", "lima_ray.judging.study.arguments:StudyCommand"),
    "stats": Command("lima_ray.stats"),
    "attribute": Command("lima_ray.attribute", "lima_ray.attribution.arguments:AttributeCommand"),
    "report": Command("lima_ray.report", "lima_ray.judging.report.arguments:ReportCommand"),
    "chat": Command("lima_ray.chat", "lima_ray.generation.arguments:ChatCommand"),
    "base": Command("lima_ray.base"),
    "sweep": Command("tune.sweep", "tune.arguments:SweepCommand"),
    "sweep_report": Command("tune.report", "tune.arguments:ReportCommand"),
    "reproduce": Command("tune.reproduce", "tune.arguments:ReproduceCommand"),
    "open": Command("serve.open", "serve.arguments:OpenCommand"),
    "serve": Command("serve.arguments"),
    "promote": Command("serve.promote", "serve.arguments:PromoteCommand"),
    "store": Command("serve.store"),
    "login": Command("serve.login"),
    "haproxy": Command("serve.haproxy"),
}
"""In the order in which one meets them."""


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """Run a command with `argv` or the command line's; bad input ends it with status 2."""
    command = COMMANDS[name]
    with exit_on_user_error():
        args = list(sys.argv[1:] if argv is None else argv)
        make_importable(command.module)
        set_ray_defaults()
        if command.arguments:
            given = parse_arguments(command, args)
            load = partial(importlib.import_module, command.module)
            starts = command.trains and will_train(given.recipe)
            (connect_during(load) if starts else load()).main(given)
        else:
            importlib.import_module(command.module).main(args)


def parse_arguments(command: Command, args: list[str]) -> Any:
    """Return the arguments of a command whose module reads none itself."""
    module, _, name = command.arguments.partition(":")
    kind = getattr(importlib.import_module(module), name)
    prog, doc = f"python -m {command.module}", docstring(command.module)
    if not isinstance(kind, type):
        return kind(args, prog, doc)
    if issubclass(kind, RecipeCommand):
        return parse_command(kind, prog, doc, args)
    return parse_flags(kind, tyro.MISSING_NONPROP, prog, doc, args)


def will_train(recipe: Recipe) -> bool:
    """Return whether a recipe's inputs are there and its run is not finished, at a glance."""
    inputs = (recipe.model.base, recipe.data.train)
    there = all(is_url(name) or resolve(name) for name in inputs)
    return there and not (recipe.run_dir / "export").exists()


def docstring(module: str) -> str:
    """Return the docstring of a module, which is not imported for it."""
    spec = find_spec(module)
    assert spec and spec.origin
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def make_importable(module: str) -> None:
    """Make a module of the checkout importable from anywhere; refuse where there is no checkout."""
    package = module.partition(".")[0]
    if package == PACKAGE.name:
        return
    checkout = PACKAGE.parent
    if not (checkout / package / f"{module.partition('.')[2]}.py").is_file():
        raise UserError(
            f"{module} is part of the source checkout alone, not of the installed package; after "
            "`pip install -e .` in a checkout, this command works in any folder"
        )
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))


POSITIONAL = (
    "RECIPE, first, is a file or one that ships: "
    f"{', '.join(sorted(path.stem for path in RECIPES.glob('*.yaml')))}; without it, "
    f"{DEFAULT_RECIPE}."
)


Arguments = TypeVar("Arguments", bound=BaseModel)


class RecipeCommand(Section):
    """What every step takes; a step with options of its own adds fields."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()


def parse_command(
    step: type[Arguments], prog: str, doc: str | None, argv: list[str] | None = None
) -> Arguments:
    """Read `[RECIPE] [--section.field value ...]`; `--help` shows the recipe's own values.

    Args:
        step: `RecipeCommand` or a subclass.
        prog: how the step is called, such as `python -m lima_ray.train`.
        doc: the step's module docstring, shown by `--help`.
        argv: arguments; none takes the command line's.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    reference = args.pop(0) if args and not args[0].startswith("-") else DEFAULT_RECIPE
    default = step.model_validate({"recipe": load_recipe(reference)})
    return parse_flags(
        step, default, f"{prog} [RECIPE]", f"{doc or ''}\n{POSITIONAL}", args, reference
    )


def parse_flags(
    command: type[Arguments],
    default: Arguments,
    prog: str,
    doc: str | None,
    args: list[str] | None,
    origin: str = "command line",
) -> Arguments:
    """Read `--section.field value ...` over defaults, by `flags.parse`; errors name `origin`."""
    try:
        return flags.parse(command, prog, doc, args, default)
    except ValidationError as error:
        raise UserError(describe_errors(error, origin)) from error
