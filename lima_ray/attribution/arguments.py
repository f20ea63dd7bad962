"""Arguments of the command that attributes replies to training rows; light to import."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from lima_ray.config.sections import ReadPath, Section
from lima_ray.records.attribution import Method


class AttributeCommand(Section):
    """Which replies, by which method, and where the rows found go."""

    run: Annotated[ReadPath, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run whose model replied."""
    replies: Annotated[ReadPath, tyro.conf.Positional, tyro.conf.arg(metavar="REPLIES")]
    """Directory of replies, or its replies.jsonl."""
    ids: tuple[str, ...] = ()
    """Prompts whose replies are attributed; without it all."""
    method: Method = "gradient"
    """gradient compares what the loss on a reply and on each row asks of the weights; text what
    replies say, at once."""
    epochs: tuple[int, ...] = ()
    """Kept epochs whose weights gradients are computed with, and scores averaged over; without it
    three, spread evenly up to the one that replied."""
    rows: int = Field(default=5, ge=1)
    """Rows to name for each reply."""
    out: Path | None = None
    """File of the rows found; none takes attribution.jsonl beside the replies."""
    show: int = Field(default=5, ge=0)
    """Replies to print at most; the file has all."""
    values: int = Field(default=8192, ge=1)
    """Values of a projected gradient, which all linear layers share; more is closer to the whole
    gradient and takes more disk, 4 bytes each for every training row."""
    any_model: bool = False
    """Attribute another model's replies too, as if this run's export had made them."""
