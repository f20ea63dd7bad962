"""Arguments of `python -m lima_ray.study`; light to import, to be read first."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from lima_ray.config.sections import Section
from lima_ray.judging.questions.item import ItemKind


class StudyCommand(Section):
    """Whose replies people judge, of what kind, and how the page is reached."""

    systems: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SYSTEM=REPLIES ...")
    ] = ()
    """Name and replies of each system: a directory of ours, or a table (CSV, JSON, Parquet)."""
    out: Path
    """Folder of the study; the same folder goes on where it stands."""
    kind: ItemKind = "pairwise"
    """What is asked: which of two is better, a grade of 1 to 6, excellent/pass/fail, or whether a
    reply is safe."""
    whole: bool = False
    """Judge dialogues as a whole instead of each of their replies."""
    pairs: Literal["first", "all"] = "first"
    """Compare each system with the first, or every two."""
    missing: Literal["stop", "drop"] = "stop"
    """Where a system lacks a reply that another has: stop and name it, or drop the prompt for all
    of them."""
    prompts: int = Field(default=0, ge=0)
    """Prompts to draw at random; 0 takes all. The paper's audit takes 50."""
    overlap: int = Field(default=50, ge=0)
    """Questions that every annotator is asked; their agreement is measured on these."""
    per_item: int = Field(default=1, ge=1)
    """Annotators of each other question."""
    annotators: int = Field(default=2, ge=1)
    """Annotators that are expected; the shared questions are spread over what each has to do."""
    check_every: int = Field(default=20, ge=0)
    """Questions among which one is an attention check; 0 has none."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of every draw."""
    title: str = "Study"
    """What the page is called; annotators read it."""
    host: str = "127.0.0.1"
    """Address of the page; an open one needs a login file."""
    port: int = Field(default=7862, ge=0, lt=2**16)
    """Its port; 0 takes any."""
    login_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Annotators' logins, a line each, as `python -m serve.login` makes them; without one each
    browser is asked for a name."""
    database: str = ""
    """Where answers are kept: a URL such as postgresql+psycopg://user@host/name; empty takes
    study.sqlite in --out."""
    open: bool = True
    """Open the page in the browser."""
    status: bool = False
    """Tell how far the study is, and what more answers would bring, instead of opening it."""
    export: bool = False
    """Write verdicts.jsonl instead of opening the page."""
