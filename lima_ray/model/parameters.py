"""Parameters as a whole, wherever ZeRO 3 keeps their parts."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


def gathered(*parameters: nn.Parameter, change: bool = False) -> AbstractContextManager[Any]:
    """Make partitioned parameters whole inside the context; others are whole already.

    Args:
        parameters: what to gather from all workers (every worker must ask for the same).
        change: rank 0 changes them inside, and the others take its values after.
    """
    if not any(hasattr(p, "ds_id") for p in parameters):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if change else None)


def count_elements(tensor: torch.Tensor) -> int:
    """Return elements of a parameter, partitioned or not, or of a buffer."""
    return int(getattr(tensor, "ds_numel", tensor.numel()))
