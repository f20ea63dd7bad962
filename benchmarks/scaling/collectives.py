"""Count and time the collectives of a process: elements by kind, and seconds spent in them."""

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed as dist

GRADIENTS = ("all_reduce", "reduce_scatter_tensor", "_reduce_scatter_base", "reduce")
WEIGHTS = ("all_gather_into_tensor", "_all_gather_base", "all_gather", "broadcast")
RING = {"all_reduce": 2.0}
"""How often a ring sends a tensor, apart from (N - 1)/N; once where nothing is said."""


class Collectives:
    """What passed through `torch.distributed` since `reset`."""

    def __init__(self) -> None:
        self.elements: Counter[str] = Counter()
        self.seconds = 0.0
        self.depth = 0

    def reset(self) -> None:
        self.elements.clear()
        self.seconds = 0.0

    @property
    def sent(self) -> float:
        """Elements that a ring sends for them, where N is large."""
        return sum(RING.get(name, 1.0) * count for name, count in self.elements.items())

    def install(self) -> None:
        """Watch this process, before DeepSpeed takes hold of the functions."""
        for name in (*GRADIENTS, *WEIGHTS):
            for module in (dist, dist.distributed_c10d):
                function = getattr(module, name, None)
                if function:
                    setattr(module, name, self.watch(name, function))

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self.depth:  # one collective calls another
                return function(*args, **kwargs)
            self.depth += 1
            started = time.perf_counter()
            try:
                work = function(*args, **kwargs)
            finally:
                self.depth -= 1
                self.seconds += time.perf_counter() - started
            tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
            self.elements[name] += max((t.numel() for t in tensors), default=0)
            return Waited(work, self) if hasattr(work, "wait") else work

        return watched


class Waited:
    """A collective under way, whose wait counts."""

    def __init__(self, work: Any, collectives: Collectives) -> None:
        self.work, self.collectives = work, collectives

    def wait(self, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return self.work.wait(*args)
        finally:
            self.collectives.seconds += time.perf_counter() - started

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)
