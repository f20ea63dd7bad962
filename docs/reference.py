"""Write docs/reference from the commands' own arguments and help texts.

    python docs/reference.py

The pages are committed; `tests/test_docs_reference.py` holds that they are current.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro
from docstring_parser import parse
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lima_ray import stats  # noqa: E402
from lima_ray.config.command_line import COMMANDS, RecipeCommand, docstring  # noqa: E402
from lima_ray.config.recipe import Recipe  # noqa: E402
from lima_ray.curation.dataset import LATER  # noqa: E402
from lima_ray.curation.reasons import OF_ALL, explain_reason  # noqa: E402
from lima_ray.curation.recipe import KINDS, Curation, Source, SourceSection  # noqa: E402
from lima_ray.curation.sources.registry import make_reader  # noqa: E402
from lima_ray.judging.choice import SelectionOptions  # noqa: E402
from lima_ray.judging.verdict_arguments import SUBCOMMANDS  # noqa: E402
from lima_ray.model.families import FAMILIES  # noqa: E402
from serve import store  # noqa: E402
from serve.api.schema import ChatRequest, CompletionRequest  # noqa: E402
from serve.arguments import fields as serve_fields  # noqa: E402
from tune.axis import Axis  # noqa: E402
from tune.space import Expectation, Sweep  # noqa: E402

OWN_PARSERS: dict[str, Any] = {
    "curate": "lima_ray.curation.arguments:CurateOptions",
    "example": "lima_ray.example:convert",
    "encode": "lima_ray.encode:EncodeCommand",
    "select": SelectionOptions,
    "compare": "lima_ray.compare:CompareCommand",
    "stats": {"verify": stats.verify, "power": stats.power},
    "base": "lima_ray.base:build",
    "verdicts": SUBCOMMANDS,
    "store": {"conversations": store.conversations, "verdicts": store.verdicts},
    "login": "serve.login:login",
}
"""What a command takes whose entry in COMMANDS does not name it."""
SECTIONS = {field.annotation: name for name, field in Recipe.model_fields.items()}
"""Sections of the recipe, each told once, in recipe.md."""
NAMES = {int: "integer", float: "number", str: "text", bool: "switch", Path: "path", date: "day"}
NAMES[Any] = "values"
MANY = 2**31 - 1
BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


class Argument(NamedTuple):
    """One line of a table."""

    name: str
    kind: str
    default: str
    help: str


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    return {
        "commands.md": commands_page(),
        "recipe.md": recipe_page(),
        "curation.md": curation_page(),
        "sweep.md": sweep_page(),
        "serve.md": serve_page(),
    }


def commands_page() -> str:
    parts = [
        "# Commands",
        "Each command is `python -m MODULE` from the checkout, or `lima_ray NAME` in any folder; "
        "`--help` shows the same arguments with the recipe's own values. A switch is turned on by "
        "its name (`--dry_run`) and off by `no_` before it (`--no_browser`).",
        ", ".join(f"[{name}](#{name})" for name in COMMANDS),
    ]
    for name, command in COMMANDS.items():
        doc = docstring(command.module).replace("<|", "&lt;|")
        parts += [f"## {name}", f"`python -m {command.module}`", doc]
        takes = OWN_PARSERS.get(name, command.arguments)
        several = isinstance(takes, dict)
        for subcommand, what in takes.items() if several else [("", takes)] if takes else ():
            if isinstance(what, str):
                module, _, attribute = what.partition(":")
                what = getattr(importlib.import_module(module), attribute)
            if several:
                parts.append(f"`{subcommand}`: {(inspect.getdoc(what) or '').splitlines()[0]}")
            parts += arguments_of(what)
    return page(parts)


def arguments_of(what: Any) -> Iterator[str]:
    """Yield a sentence on the recipe where a command takes one, and the table of its arguments."""
    rows = list(of_function(what)) if inspect.isfunction(what) else list(of_model(what, "--"))
    if what is SelectionOptions:
        yield "`RUN`, first, is the directory of a finished run."
    if inspect.isclass(what) and issubclass(what, RecipeCommand):
        yield (
            "`RECIPE`, first, is a file or the name of a recipe that ships; without it, the "
            "miniature. Any [field of the recipe](recipe.md) is a flag, such as "
            "`--optim.learning_rate 1e-5`."
        )
    if rows:
        yield table(rows)


def recipe_page() -> str:
    parts = [
        "# Recipe",
        "A recipe file is YAML and holds only what differs from these defaults, which are the "
        "paper's for LLaMA 65B. As a flag, a field has its section before it: "
        "`--optim.learning_rate 1e-5`. No value is `null` in a file and `None` as a flag.",
    ]
    top = [row for row in of_model(Recipe) if not row.name.endswith(".*")]
    parts += ["## Top level", table(top)]
    for section, name in SECTIONS.items():
        if inspect.isclass(section) and issubclass(section, BaseModel):
            parts += [f"## {name}", inspect.getdoc(section) or "", table(of_model(section))]
    trained_alone = [name for name, family in FAMILIES.items() if not family.decodes]
    parts += [
        "## Families of models",
        f"`model.base` is one of these: {', '.join(sorted(FAMILIES))}. Each is compared with "
        f"transformers; {', '.join(trained_alone)} can be trained and not decoded here.",
    ]
    return page(parts)


def curation_page() -> str:
    """Fields of a curation recipe, and of each kind of source."""
    parts = ["# Curation recipe", docstring("lima_ray.curation.recipe"), table(of_model(Curation))]
    shared = {row.name: row for row in of_model(SourceSection)}
    parts += ["## Every source", table(shared.values())]
    for section in get_args(get_args(Source)[0]):
        (kind,) = get_args(section.model_fields["kind"].annotation)
        # Of the shared fields those that have another default here.
        told = [
            row._replace(help=row.help or shared[row.name].help) if row.name in shared else row
            for row in of_model(section)
        ]
        own = [row for row in told if row != shared.get(row.name)]
        parts += [f"## {kind}", inspect.getdoc(section) or "", table(own), *reasons(kind)]
    every = [f"- `{name}`: {OF_ALL[name]}" for name in LATER]
    parts += ["## After all sources", "Then these reasons follow, in this order.", "\n".join(every)]
    return page(parts)


def reasons(kind: str) -> list[str]:
    """Return the filters of a kind of source, in the order in which rows meet them."""
    names: dict[str, None] = {}
    for more in ({}, {"categories": "list.csv"}, {"take": "titles"}):
        try:
            section = KINDS[kind].model_validate({"kind": kind, "path": "."} | more)
        except ValidationError:
            continue  # a field of another kind
        curation = Curation.model_validate({"sources": {"it": section}})
        names |= dict.fromkeys(make_reader(section, curation).filters)
    listed = "\n".join(f"- `{name}`: {explain_reason(kind, name)}" for name in names)
    return ["Its filters, in the order in which they are tried:", listed]


def sweep_page() -> str:
    doc = docstring("tune.space")
    parts = ["# Sweep file", doc, table(of_model(Sweep))]
    for title, section in (("axes", Axis), ("expect", Expectation)):
        parts += [f"## {title}", inspect.getdoc(section) or "", table(of_model(section))]
    return page(parts)


def serve_page() -> str:
    """Arguments of the app, and the fields of its API's requests."""
    arguments = [
        Argument(name, "", default_of(default), said) for name, default, said in serve_fields()
    ]
    chat = list(of_model(ChatRequest))
    completion = [row for row in of_model(CompletionRequest) if row not in chat]
    return page(
        [
            "# Serving",
            "## Arguments of the app",
            "Given to `serve run serve.app:build NAME=VALUE ...`, or under `args` of a config "
            "file; `python -m serve.arguments` lists them too.",
            table(arguments, kinds=False),
            "## POST /v1/chat/completions",
            "A field that is not named here is refused by its name.",
            table(chat),
            "## POST /v1/completions",
            "Beside the fields of chat completions up to `return_token_ids`:",
            table(completion),
        ]
    )


def of_model(model: type[BaseModel], dashes: str = "", prefix: str = "") -> Iterator[Argument]:
    """Yield the fields of a section; a section of the recipe's is one line that points to it."""
    for name, field in model.model_fields.items():
        kind, metadata = field.annotation, list(field.metadata)
        renamed = [n for m in metadata if (n := getattr(m, "name", None)) is not None]
        shown = renamed[0] if renamed else name
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            if kind is Recipe:
                continue
            if kind in SECTIONS:
                section = SECTIONS[kind]
                said = f"Every field of the recipe's [{section}](recipe.md#{section})."
                yield Argument(f"{dashes}{prefix}{shown}.*", "", "", said)
            else:
                yield from of_model(kind, dashes, f"{prefix}{shown}." if shown else prefix)
            continue
        positional = tyro.conf.Positional in metadata
        metavar = next((m.metavar for m in metadata if getattr(m, "metavar", None)), shown.upper())
        yield Argument(
            metavar if positional else f"{dashes}{prefix}{shown}",
            kind_of(kind, metadata),
            default_of(field.get_default(call_default_factory=True), field.is_required()),
            field.description or inherited(model, name),
        )


def inherited(model: type[BaseModel], name: str) -> str:
    """Return what the nearest section that a field comes from says of it; empty where none does."""
    bases = (base for base in model.__mro__ if issubclass(base, BaseModel))
    fields = (base.model_fields.get(name) for base in bases)
    return next((field.description for field in fields if field and field.description), "")


def of_function(function: Callable[..., Any]) -> Iterator[Argument]:
    """Yield the parameters of a function, their help from its docstring."""
    said = {p.arg_name: p.description or "" for p in parse(inspect.getdoc(function) or "").params}
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, metadata = hints[name], []
        if get_origin(kind) is Annotated:
            kind, *metadata = get_args(kind)
        required = parameter.default is inspect.Parameter.empty
        positional = tyro.conf.Positional in metadata
        yield Argument(
            name.upper() if positional else f"--{name}",
            kind_of(kind, metadata),
            default_of(parameter.default, required),
            said[name][:1].upper() + said[name][1:],
        )


def kind_of(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Say a type in words, with its bounds."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return kind_of(inner[0], inner[1:])
    if origin in (Union, UnionType):
        named = dict.fromkeys(kind_of(k) for k in inner if k is not type(None))
        return ", or ".join(named) + bounds(metadata)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        many = plural(kind_of(inner[0]))
        return f"{len(inner)} {many}" if origin is tuple and ... not in inner else f"list of {many}"
    if origin is dict or (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        return "mapping"
    return NAMES[kind] + bounds(metadata)


def plural(kind: str) -> str:
    """Return `lists of texts` of `list of texts`, and `values` as it is."""
    first, *rest = kind.split(" ", 1)
    return " ".join([first if first.endswith("s") else f"{first}s", *rest])


def bounds(metadata: Iterable[Any]) -> str:
    """Say the bounds that a person may meet, each after a comma."""
    found = [
        words.format(value)
        for name, words in BOUNDS.items()
        for m in metadata
        if (value := getattr(m, name, None)) is not None and abs(value) < MANY
    ]
    return f", {', '.join(found)}" if found else ""


def default_of(value: Any, required: bool = False) -> str:
    """Write a default as a recipe file or a command line would."""
    if required or value is PydanticUndefined:
        return "required"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == {}:
        return "none"
    return re.sub(r"e-0(\d)", r"e-\1", str(value))


def table(rows: Iterable[Argument], kinds: bool = True) -> str:
    """Lay out arguments as a Markdown table."""
    head = ("name", "type", "default", "meaning") if kinds else ("name", "default", "meaning")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        default = row.default if row.default in ("", "required", "none") else f"`{row.default}`"
        said = " ".join(row.help.split()).replace("<", "&lt;")
        cells = [f"`{row.name}`", *([row.kind] if kinds else []), default, said]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def page(parts: Iterable[str]) -> str:
    made = "<!-- Made by `python docs/reference.py`; edit the help text at its source. -->"
    return "\n\n".join([made, *(part.strip() for part in parts if part)]) + "\n"


if __name__ == "__main__":
    folder = ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder.relative_to(ROOT) / name)
