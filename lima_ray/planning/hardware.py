"""What there is to train on: named cards, or the nodes of a Ray cluster."""

import os
from collections import Counter
from dataclasses import dataclass

import psutil
import torch

from lima_ray.config.cluster import connect
from lima_ray.config.errors import UserError
from lima_ray.config.flags import did_you_mean

GIB = 1 << 30
CARDS = {
    "H100": 79.1,
    "H200": 139.8,
    "B200": 178.4,
    "A100-40G": 39.4,
    "A100": 79.1,
    "L40S": 44.4,
    "A6000": 47.4,
    "A10G": 22.1,
    "L4": 22.0,
    "4090": 23.5,
    "V100": 15.8,
    "T4": 14.6,
}
"""GiB that PyTorch finds on a card, a little under what its maker names."""
PROCESS_GIB = 1.65
"""GiB of a GPU that a process takes beside its tensors: CUDA's context and the collectives' buffers
(an H200's, by the out-of-memory errors in docs/benchmarks/gpu-training.json)."""
CPU_PROCESS_GIB = 0.55
"""GiB that a worker on a CPU takes before it loads a model: PyTorch, transformers, DeepSpeed."""
ACCELERATOR = "accelerator_type:"
THIS_DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class Node:
    """A machine that trains."""

    gpus: int
    card: str
    """Name of its GPUs; empty without any."""
    gpu_bytes: float | None
    """Memory of one GPU that tensors can have; none where it is not known."""
    cores: float
    host_bytes: float | None
    """Memory beside the GPUs'; none where it is not known."""

    @property
    def is_gpu(self) -> bool:
        return self.gpus > 0


@dataclass(frozen=True)
class Hardware:
    """Where the workers are to run."""

    nodes: tuple[Node, ...]
    source: str
    """Where this is known from, for people."""

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    @property
    def is_gpu(self) -> bool:
        return self.gpus > 0

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.is_gpu else "cpu")

    @property
    def card(self) -> str:
        return next((node.card for node in self.nodes if node.is_gpu), "")

    def bytes_of_worker(self, workers: int) -> float | None:
        """Return the memory that a worker's tensors can have: a GPU's, or a share of a node's."""
        if self.is_gpu:
            known = [node.gpu_bytes for node in self.nodes if node.is_gpu]
            return None if None in known else min(k for k in known if k is not None)
        share = self.host_bytes_of_worker(workers)
        return None if share is None else max(0.0, share - CPU_PROCESS_GIB * GIB)

    def host_bytes_of_worker(self, workers: int) -> float | None:
        """Return a worker's share of its node's own memory; none where it is not known."""
        known = [node.host_bytes for node in self.nodes if node.host_bytes]
        return min(known) / self.workers_of_node(workers) if known else None

    def workers_of_node(self, workers: int) -> int:
        """Return how many of the workers one node has, where they are spread evenly."""
        if self.is_gpu:
            return min(workers, max(node.gpus for node in self.nodes))
        return -(-workers // len(self.nodes))


def named_hardware(
    card: str, workers: int, per_node: int, card_gib: float | None, host_gib: float | None
) -> Hardware:
    """Return nodes with as many GPUs of a named card as there are workers."""
    if card not in CARDS and card_gib is None:
        raise UserError(
            f"the memory of a {card} is not listed{did_you_mean(card, list(CARDS))}; give it: "
            f"--gpu_gib 48. Listed are {', '.join(CARDS)}"
        )
    own = tensor_bytes(CARDS[card] if card_gib is None else card_gib)
    whole, rest = divmod(workers, per_node)
    sizes = [per_node] * whole + [rest] * bool(rest)
    host = None if host_gib is None else host_gib * GIB
    nodes = tuple(Node(gpus, card, own, 0, host) for gpus in sizes)
    return Hardware(nodes, f"{workers} x {card}, up to {per_node} in a machine")


def this_machine() -> Hardware:
    """Return this machine without GPUs."""
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().available
    return Hardware((Node(0, "", None, cores, memory),), f"this machine: {cores} cores")


def cluster_hardware(card_gib: float | None, device: str = "auto") -> Hardware:
    """Join the Ray cluster and look at its nodes.

    Args:
        card_gib: memory of a GPU whose card is not listed.
        device: `cpu` looks at no GPUs; `gpu` takes it that there will be some.
    """
    import ray

    connect()
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cpu":
        found = [{kind: n for kind, n in of.items() if kind != "GPU"} for of in found]
    nodes = tuple(read_node(resources, card_gib) for resources in found)
    if any(node.is_gpu for node in nodes):
        nodes = tuple(node for node in nodes if node.is_gpu)
    elif device == "gpu":  # machines that come when they are asked for
        nodes = (Node(1, "GPU", None, 0, None),)
    kinds = Counter((node.gpus, node.card, node.cores) for node in nodes)
    told = [
        f"{count} node{'s' * (count > 1)} of "
        + (f"{gpus} x {card}" if gpus else f"{cores:g} cores")
        for (gpus, card, cores), count in kinds.items()
    ]
    return Hardware(nodes, f"the Ray cluster: {', '.join(told)}")


def read_node(resources: dict[str, float], card_gib: float | None) -> Node:
    """Return a node by Ray's resources of it; a card that is not listed has unknown memory."""
    gpus = int(resources.get("GPU", 0))
    memory = resources.get("memory", 0) + resources.get("object_store_memory", 0)
    cores = resources.get("CPU", 0)
    if not gpus:
        return Node(0, "", None, cores, memory)
    card = next((r.removeprefix(ACCELERATOR) for r in resources if r.startswith(ACCELERATOR)), "")
    known = max((name for name in CARDS if name in card), key=len, default="")
    listed = CARDS.get(known) if card_gib is None else card_gib
    own = None if listed is None else tensor_bytes(listed)
    return Node(gpus, card or "GPU", own, cores, memory)


def tensor_bytes(card_gib: float) -> float:
    """Return what of a card's memory is left to tensors."""
    return (card_gib - PROCESS_GIB) * GIB
