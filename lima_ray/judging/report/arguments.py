"""Arguments of `lima_ray.report`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from lima_ray.config.sections import ReadPath, Section


class ReportCommand(Section):
    """Which verdicts are reported, and what else there is to show."""

    verdicts: Annotated[
        tuple[ReadPath, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VERDICTS")
    ] = Field(min_length=1)
    """Each a verdicts.jsonl, or a directory with one: of judges, a study of people, the exact
    judge, votes of the chat page."""
    replies: tuple[str, ...] = ()
    """SYSTEM=DIR of the judged replies, as `lima_ray.judge` takes them; a system may have several.
    None takes what judge.json or a replies.jsonl beside the verdicts tells."""
    out: Path = Path("report")
    """Directory for report.html, report.md, and figures as CSV and PNG."""
    authors: tuple[str, ...] = ()
    """Annotators who wrote the study; they are a group beside the crowd (LIMA section 4)."""
    passports: tuple[ReadPath, ...] = ()
    """Directories with a passport.json of the judges, beside those of the verdicts."""
    paper: bool = False
    """Show LIMA's own bars in any case; without it they stand beside systems of the same names."""
    run: tuple[ReadPath, ...] = ()
    """Runs, whose epochs are shown by grade and perplexity."""
    sweep: tuple[ReadPath, ...] = ()
    """Sweeps, whose pictures are shown."""
    changed: Literal["stop", "drop"] = "stop"
    """Verdicts on other replies than those that are given: stop and name them, or drop them."""
