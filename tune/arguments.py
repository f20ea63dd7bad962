"""Arguments of the sweep commands; light to import, so that they are parsed first."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from lima_ray.config.sections import ReadPath, Section, Spending

STUDIES = (
    *("quality", "diversity", "quantity", "dialogues", "structure"),
    *("dropout_lr", "epochs", "loss_on"),
)
"""The paper's, in the order of their page."""


class SweepCommand(Spending):
    """Arguments of `python -m tune.sweep`."""

    sweep: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]
    """A sweep file, or the name of one in tune/sweeps."""
    resume: bool = False
    """Go on with the sweep of this name, if it was begun."""
    dry_run: bool = False
    """Check everything, tell the points and the cost, and start nothing."""
    name: str = ""
    """Name of the sweep; empty takes the file's."""
    setting: str = ""
    """Setting to use instead of the file's, such as lima-7b."""
    runs_dir: str = ""
    """Folder of sweeps and trainings, or a place in a bucket (s3://, gs://); empty takes the
    recipe's. On a cluster, shared storage."""
    seeds: list[int] = Field(default=[])
    """Seeds instead of the file's."""
    concurrent: int = Field(default=0, ge=0)
    """Trainings at once; 0 takes the file's, or as many as fit."""


class ReportCommand(Section):
    """Arguments of `python -m tune.report`."""

    path: Annotated[ReadPath, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP_DIR")]
    """Directory of a sweep, such as runs/sweeps/quality."""


class ReproduceCommand(Spending):
    """Arguments of `python -m tune.reproduce`."""

    setting: str = ""
    """Setting of all studies; empty takes the miniature."""
    studies: list[str] = Field(default=list(STUDIES))
    """Studies to run, in this order."""
    seeds: list[int] = Field(default=[])
    """Seeds of every training; empty takes the studies' own."""
    runs_dir: str = ""
    """Folder of sweeps and trainings; empty takes the recipe's."""
    out: Path = Path("runs/reproduce")
    """Folder for the page and its pictures."""
