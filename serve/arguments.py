"""List the arguments of `serve run serve.app:build NAME=VALUE`, with their defaults.

    python -m serve.arguments

Light to import, as are the arguments of the other commands of serving, which are read before Ray.
"""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro

from lima_ray.config import Section

MINIATURE = "runs/miniature/export"


class OpenCommand(Section):
    """What `serve.open` takes."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = MINIATURE
    """Directory of a run, an export or a base; several as NAME=DIR,NAME=DIR."""
    port: int = 8000
    """On 127.0.0.1."""
    browser: bool = True
    """Open the page in the browser, where there is a screen."""


class PromoteCommand(Section):
    """What `serve.promote` takes."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ""
    """Directory of a run, an export or a base, for the default name; or NAME=DIR."""
    rollback: bool = False
    """Back to the models before the last promotion, instead of MODEL."""
    app: str = ""
    """Name of the Serve application; without it the one there is."""
    address: str = "auto"
    """Of the Ray cluster."""


def main(_: list[str] | None = None) -> None:
    """`python -m serve.arguments`."""
    print(
        "serve run serve.app:build NAME=VALUE ... with any of these, as has the `args` of a config"
    )
    print("file; --help of `serve run` itself tells of Ray's own.\n")
    for name, default, said in fields():
        print(f"{name}={default}\n    {said}")


def fields() -> Iterator[tuple[str, str, str]]:
    """Name, default and help of every argument, from the source, which takes Ray to import."""
    folder = Path(__file__).parent
    for file, kind in (
        ("app.py", "Args"),
        ("engines/pool.py", "Settings"),
        ("access.py", "Access"),
    ):
        tree = ast.parse((folder / file).read_text(encoding="utf-8"))
        (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind)
        for field, after in pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said = " ".join(str(after.value.value).split())
                yield field.target.id, default_of(field.value), said


def default_of(value: ast.expr | None) -> str:
    """A default as it is written, without pydantic's `Field` around it."""
    if isinstance(value, ast.Call):
        value = next((word.value for word in value.keywords if word.arg == "default"), None)
    return ast.unparse(value).strip("'") if value else ""


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("serve")
