"""Arguments of `lima_ray.curate`; light to import, to be read first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml
from pydantic import Field

from lima_ray.config.command_line import parse_flags
from lima_ray.config.errors import UserError
from lima_ray.config.flags import did_you_mean
from lima_ray.config.paths import stored_path
from lima_ray.config.sections import Section
from lima_ray.config.storage.working_copy import reference
from lima_ray.curation.recipe import CURATION_RECIPES, Curation, load_curation

CHANGEABLE = ("inputs", "out", "seed")
SOURCES = "sources."


class CurateOptions(Section):
    """What the command line says beside the recipe."""

    inputs: str | None = None
    """Folder of the dumps; none takes the recipe's."""
    out: str | None = None
    """Folder of the dataset, or a place in a bucket (s3://, gs://); none takes the recipe's,
    data/NAME."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """Seed of every draw; none takes the recipe's."""
    workers: int | None = Field(default=None, ge=0)
    """Tasks at a time over the Ray cluster; none takes all its cores, 0 reads in this process."""
    too_few: Literal["stop", "take"] = "stop"
    """Where a source has fewer rows than are asked for: stop and say which filter took most, or
    take what there is; the card says so."""
    damaged: Literal["stop", "keep"] = "stop"
    """Where a dump is damaged: stop once all else is read, or go on with what stands before it."""
    overwrite: bool = False
    """Replace a dataset that other choices made."""
    review: bool = False
    """Open a page on which people keep, edit or drop candidates; then run without it again."""
    lead: str = ""
    """Reviewer who decides where others are equally divided."""
    overlaps: bool = False
    """Print how many rows each two of the selectors `choose` have in common, instead of writing a
    dataset."""
    host: str = "127.0.0.1"
    """Address of that page; an open one needs a login file."""
    port: int = Field(default=7861, ge=0, lt=2**16)
    """Its port; 0 takes any."""
    login_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Who may review, a line each, as `python -m serve.login` makes them."""
    open: bool = True
    """Open the page in the browser."""
    census: Annotated[Path | None, tyro.conf.arg(metavar="DUMP")] = None
    """Tell what a dump of Stack Exchange or Reddit holds and which known traps are in it, instead
    of curating."""


RECIPE_ALONE = set(Curation.model_fields) - set(CurateOptions.model_fields)
"""Fields of a recipe that the options above do not name."""


class CurateCommand(CurateOptions):
    """Options with the recipe that they are for."""

    curation: Annotated[Curation | None, tyro.conf.Suppress] = None


def parse_curate(args: list[str], prog: str, doc: str) -> CurateCommand:
    """Read `RECIPE [--sources.NAME.field value] [options]`.

    Raises:
        UserError: no such recipe, or flags that do not agree with it.
    """
    asked = args.pop(0) if args and not args[0].startswith("-") else ""
    changes, rest = recipe_changes(args)
    shipped = ", ".join(sorted(path.stem for path in CURATION_RECIPES.glob("*.yaml")))
    doc = (
        f"{doc}\n\nRECIPE, first, is a file or one that ships: {shipped}. Any field of a recipe "
        "(docs/reference/curation.md) is a flag too: --FIELD value, of a source "
        "--sources.NAME.FIELD value; lists as [a, b]. What each filter drops stands there too."
    )
    check_names(rest)
    options = parse_flags(CurateOptions, CurateOptions(), f"{prog} RECIPE", doc, rest)
    said = options.model_dump()
    if options.census:
        return CurateCommand.model_validate(said)
    if options.review and options.overlaps:
        raise UserError("--review and --overlaps are two things to do; give one of them")
    if not asked:
        raise UserError(f"which recipe? {prog} RECIPE; those that ship are {shipped}")
    changes |= {name: said[name] for name in CHANGEABLE if said[name] is not None}
    curation = load_curation(asked, changes)
    if not Path(curation.inputs).expanduser().is_dir():
        raise UserError(f"no folder {curation.inputs}: --inputs names the folder of the dumps")
    # Tasks run in other folders and on other nodes.
    places = {"inputs": str(Path(curation.inputs).expanduser().absolute())}
    places |= {"out": reference(stored_path(curation.out))}
    return CurateCommand.model_validate(said | {"curation": curation.model_copy(update=places)})


def check_names(args: Sequence[str]) -> None:
    """Refuse a flag that is neither an option nor a field of a recipe, with the nearest of both.

    Raises:
        UserError: such a flag.
    """
    options = [*CurateOptions.model_fields, "help"]
    for arg in args:
        name = arg.removeprefix("--").partition("=")[0].replace("-", "_")
        if not arg.startswith("--") or name.removeprefix("no_") in options or not name:
            continue
        fields = [*options, *RECIPE_ALONE]
        section, dot, _ = name.partition(".")
        meant = f"; did you mean --{SOURCES}{name.partition('.')[2]}?" if dot else ""
        raise UserError(
            f"there is no flag --{name}"
            + (meant if section in ("source", "sources") else did_you_mean(name, fields, "--"))
        )


def recipe_changes(args: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split off the flags of the recipe's fields, whose values are read as YAML.

    Raises:
        UserError: one without a value, or with one that is no YAML.
    """
    changes, rest, left = {}, [], list(args)
    while left:
        arg = left.pop(0)
        given, equals, value = arg.removeprefix("--").partition("=")
        section, dot, field = given.rpartition(".")
        name = f"{section}{dot}{field.replace('-', '_')}"
        if not arg.startswith("--") or not (name.startswith(SOURCES) or name in RECIPE_ALONE):
            rest.append(arg)
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise UserError(f"{arg} needs a value")
            value = left.pop(0)
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{arg}: {value!r} is no YAML; put quotes in it: '\"...\"'") from error
    return changes, rest
