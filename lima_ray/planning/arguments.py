"""What `lima_ray.plan` is told, read before torch is imported."""

from typing import Annotated

import tyro
from pydantic import Field

from lima_ray.config.command_line import RecipeCommand


class PlanCommand(RecipeCommand):
    """Options of this step."""

    cluster: bool = False
    """Plan for the nodes of the Ray cluster (RAY_ADDRESS, or this machine's), not for a card."""
    measure: bool = False
    """Run three steps of each way on the cluster's workers, for a minute, and keep the figures."""
    gpu: str = "H100"
    """Card to plan for where there is no --cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """Cards of one machine, of those."""
    gpu_gib: float | None = Field(default=None, gt=0)
    """Memory of a card that is not listed, in GiB."""
    host_gib: float | None = Field(default=None, gt=0)
    """Memory of one machine beside its cards, in GiB; what is offloaded stands there."""
    rows: int | None = Field(default=None, ge=1)
    """Training rows, where the data is not at hand."""
    tokens_per_row: int | None = Field(default=None, ge=2)
    """Their mean tokens."""
    dollars_per_gpu_hour: float | None = Field(default=None, ge=0)
    """Price of one GPU for an hour; none names no cost."""
    llama: bool = False
    """Print what LLaMA 7B, 13B, 30B and 65B need on eight cards of 80 and of 141 GB."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the plan as JSON."""
