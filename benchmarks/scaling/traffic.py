"""What one worker sends in an optimizer step, by ZeRO stage, and how long it takes.

P is the model's parameters, N the workers, M the micro-batches of a worker in a step. A ring sends
(N - 1)/N of a tensor for a reduce-scatter or an all-gather, and twice that for an all-reduce.
"""

from dataclasses import dataclass
from typing import Literal

Implementation = Literal["paper", "deepspeed"]


@dataclass(frozen=True)
class Traffic:
    """Elements sent for gradients and for weights, where N is large."""

    gradients: float
    weights: float

    def sent(self, workers: int, width: int) -> float:
        """Return the bytes that one worker sends, for elements of so many bytes."""
        return (self.gradients + self.weights) * width * (workers - 1) / workers


def traffic(
    stage: int, parameters: int, micro_batches: int, implementation: Implementation
) -> Traffic:
    """Return what a stage sends in a step.

    `paper` is Rajbhandari et al. 2020 (ZeRO, section 7): 2P up to stage 2 and 3P in stage 3, for
    one micro-batch. With several, stages 2 and 3 reduce the gradients of each, and stage 3 gathers
    the weights twice for each. `deepspeed` is DeepSpeed 0.19.8 as it is configured here: stages 1
    and 2 reduce gradients by an all-reduce (`use_multi_rank_bucket_allreduce`), of which each
    worker keeps its part; that sends twice as much.
    """
    p = float(parameters)
    each = p * micro_batches
    reduction = p if implementation == "paper" else 2 * p
    if stage == 0:
        return Traffic(2 * p, 0.0)
    if stage == 1:
        return Traffic(reduction, p)
    if stage == 2:
        return Traffic(reduction * micro_batches, p)
    return Traffic(each, 2 * each)


@dataclass(frozen=True)
class Network:
    """GPUs of a node on NVLink, and nodes on InfiniBand."""

    name: str
    nics: int
    """Of 400 Gb/s in a node."""
    gpus_of_node: int = 8

    def bandwidth(self, workers: int) -> float:
        """Return the bytes a second that a ring of all workers carries.

        A node's rings leave it through its NICs together.
        """
        if workers <= self.gpus_of_node:
            return NVLINK
        return min(NVLINK, self.nics * INFINIBAND)


NVLINK = 370e9
"""Of NVLink 4's 900 GB/s (450 each way; NVIDIA's H200 data sheet), what NCCL reaches beside its
protocol, according to its maintainers: github.com/NVIDIA/nccl-tests/issues/212."""
INFINIBAND = 47e9
"""Of 400 Gb/s (50 GB/s), what a NIC reaches, according to NCCL's maintainers, 46 to 48 GB/s:
github.com/NVIDIA/nccl-tests/issues/290."""
NETWORKS = (
    Network("eight 400G NICs a node", 8),
    Network("one 400G NIC a node", 1),
)
"""A DGX H200 has eight (NVIDIA's DGX H100/H200 user guide); cheaper nodes have one."""
