"""The forward pass of a model in slots on a GPU, recorded once and launched as a CUDA graph.

A decoding step of a 7B model is about a thousand small kernels, which take more than twice as long
to launch from Python one by one as to run; a CUDA graph launches them all in one call. A graph is
made for one shape: the sequences, the tokens of each, and how far back attention reaches. All three
are rounded up, so that there are few shapes, and each is recorded when first needed.

Sequence b of a decoding step is slot b, so that attention reads the KV cache where it lies. Slots
without a new token are padding: they write into a spare slot, and their logits are not used.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from lima_ray.engine.forward import SlotToken

LEAST_REACH = 256
"""Tokens that attention reaches back at least, and that every slot has room for at first."""
LEAST_CHUNK = 32
"""Tokens of a prompt computed together, at least; more than one, which is a decoding step."""
SYNCHRONIZING = (
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)
"""Operations of models whose result Python waits for, such as `tensor.item()`: no graph has them,
and an attempt to record one leaves PyTorch's random numbers on the GPU broken."""
RECORDING = threading.Lock()
"""One graph is recorded at a time, also by engines on other threads."""
log = logging.getLogger(__name__)


class StaticSlotCache:
    """Keys and values of S slots and a spare one, which lie in one tensor a layer."""

    def __init__(self, slots: int) -> None:
        self.slots, self.capacity = slots, 0
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Keys and values (S + 1, G, C, D) of each layer."""

    def grow(self, tokens: int) -> None:
        """Make room for so many tokens in every slot; call it again where memory ran out."""
        for number, (keys_SGCD, values_SGCD) in self.layers.items():
            if keys_SGCD.shape[2] < tokens:
                self.layers[number] = (widen(keys_SGCD, tokens), widen(values_SGCD, tokens))
        self.capacity = tokens

    def set_batch(self, slots_B: torch.Tensor, positions_BT: torch.Tensor, reach: int) -> None:
        """Set where the next forward's tokens go, and how many of a slot's tokens it may read."""
        self.slots_B, self.positions_BT = slots_B, positions_BT
        mask_BTL = torch.arange(reach, device=positions_BT.device) <= positions_BT[..., None]
        self.mask_B1TL, self.reach = mask_BTL[:, None], reach

    def attend(
        self,
        layer: int,
        query_BHTD: torch.Tensor,
        key_BGTD: torch.Tensor,
        value_BGTD: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """Store a layer's new keys and values, and attend to what the sequences' slots hold.

        Shapes are those of `SlotCache.attend` in `cpu/kv_slots.py`, for T tokens of B sequences.
        """
        batch, heads, tokens, width = query_BHTD.shape
        if layer not in self.layers:
            shape = (self.slots + 1, key_BGTD.shape[1], self.capacity, width)
            self.layers[layer] = (key_BGTD.new_zeros(shape), key_BGTD.new_zeros(shape))
        held: list[torch.Tensor] = []
        for all_SGCD, new_BGTD in zip(self.layers[layer], (key_BGTD, value_BGTD), strict=True):
            all_SGCD[self.slots_B[:, None], :, self.positions_BT] = new_BGTD.transpose(1, 2)
            near_SGLD = all_SGCD[:, :, : self.reach]
            held.append(near_SGLD[:batch] if tokens == 1 else near_SGLD[self.slots_B])
        # The heads that share a key stand where positions would, one after another.
        shared = heads // key_BGTD.shape[1]
        mask_B1NL = self.mask_B1TL if tokens == 1 else self.mask_B1TL.repeat(1, 1, shared, 1)
        outputs_BGND = scaled_dot_product_attention(
            query_BHTD.reshape(batch, -1, shared * tokens, width),
            held[0],
            held[1],
            mask_B1NL,
            scale=scaling,
        )
        return outputs_BGND.reshape(batch, heads, tokens, width).transpose(1, 2)


@dataclass(frozen=True)
class RecordedGraph:
    graph: Any
    """A CUDAGraph."""
    inputs: torch.Tensor
    """Token ids, starts and slots."""
    logits_BV: torch.Tensor | None
    """Its output; another graph may write over it."""


class CudaGraphForward:
    """Prefills prompts into slots and decodes one token of many slots, by graphs on a GPU."""

    batch_invariant = False
    """Rounding may follow the batch size."""
    chunk = 256
    """Tokens of a prompt computed together."""

    def __init__(self, model: Any, slots: int) -> None:
        """Record nothing yet; the model's attention is `loading.slot_attention`."""
        self.model, self.slots, self.device = model, slots, model.device
        self.last_position: int = model.config.max_position_embeddings - 1
        self.cache = StaticSlotCache(slots)
        self.recorded: dict[tuple[int, int, int], RecordedGraph] = {}
        self.recording = self.device.type == "cuda"
        self.memory: Any = None
        """Memory pool that graphs share; it goes with the last of them."""

    def logits(self, batch: list[SlotToken]) -> torch.Tensor:
        size = min(power_of_two(max(slot for slot, _, _ in batch) + 1), self.slots)
        tokens, starts, slots = [0] * size, [0] * size, [self.slots] * size
        for slot, start, token in batch:
            tokens[slot], starts[slot], slots[slot] = token, start, slot
        logits_BV = self.run([[token] for token in tokens], starts, slots)
        assert logits_BV is not None
        return logits_BV[[slot for slot, _, _ in batch]]

    def prefill(self, slot: int, start: int, ids: list[int]) -> None:
        padding = [0] * (power_of_two(len(ids), LEAST_CHUNK) - len(ids))
        self.run([ids + padding], [start], [slot])

    def reserve(self, slot: int, tokens: int) -> None:
        """Do nothing: graphs read one cache of all slots, which grows as needed."""

    def release(self, slot: int) -> None:
        """Do nothing: the memory stays for the requests to come."""

    def run(self, ids: list[list[int]], starts: list[int], slots: list[int]) -> torch.Tensor | None:
        """Run a forward pass of sequences of equally many tokens, and record it where it is new."""
        batch, tokens = len(ids), len(ids[0])
        reach = power_of_two(max(starts) + tokens, LEAST_REACH)
        if reach > self.cache.capacity:
            # Graphs read the cache where it lay.
            self.recorded.clear()
            self.memory = torch.cuda.graph_pool_handle() if self.recording else None
            self.cache.grow(reach)
        shape = (batch, tokens, reach)
        inputs = torch.tensor([*(i for row in ids for i in row), *starts, *slots])
        if self.recording and shape not in self.recorded:
            self.record(shape, inputs)
        if recorded := self.recorded.get(shape):
            recorded.inputs.copy_(inputs)
            recorded.graph.replay()
            return recorded.logits_BV
        return self.compute(shape, inputs.to(self.device))

    def compute(self, shape: tuple[int, int, int], inputs: torch.Tensor) -> torch.Tensor | None:
        """Return logits (B, V) where each sequence has one token; longer ones only enter slots."""
        batch, tokens, reach = shape
        ids, starts_B, slots_B = inputs.split((batch * tokens, batch, batch))
        positions_BT = starts_B[:, None] + torch.arange(tokens, device=self.device)
        self.cache.set_batch(slots_B, positions_BT, reach)
        model = self.model if tokens == 1 else self.model.get_decoder()
        output = model(
            input_ids=ids.view(batch, tokens),
            position_ids=positions_BT.clamp(max=self.last_position),  # beyond it, padding alone
            # Without a mask, `transformers` looks for packed rows, and waits for the GPU.
            attention_mask=self.cache.mask_B1TL,
            use_cache=False,
            slot_cache=self.cache,
        )
        return output.logits[:, 0] if tokens == 1 else None

    def record(self, shape: tuple[int, int, int], inputs: torch.Tensor) -> None:
        """Record the forward pass of a shape, unless the model cannot be recorded."""
        inputs = inputs.to(self.device)
        # What is made when first needed, such as the KV cache, must be there before.
        with SyncDetector() as syncs:
            self.compute(shape, inputs)
        if syncs.found:
            self.stop_recording(f"they wait for {', '.join(sorted(syncs.found))}")
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with RECORDING, torch.cuda.graph(graph, self.memory, capture_error_mode="thread_local"):
                logits_BV = self.compute(shape, inputs)
        except RuntimeError as error:
            self.stop_recording(str(error))
            return
        self.recorded[shape] = RecordedGraph(graph, inputs, logits_BV)

    def stop_recording(self, reason: str) -> None:
        """Run every forward pass from Python from now on."""
        log.warning("this model's steps are launched kernel by kernel: %s", reason)
        self.recording = False


class SyncDetector(TorchDispatchMode):
    """Collects which of `SYNCHRONIZING` this thread calls inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in SYNCHRONIZING:
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


def power_of_two(count: int, least: int = 1) -> int:
    """Return the smallest power of two that is at least `count` and `least`, itself one."""
    return max(least, 1 << (count - 1).bit_length())


def widen(old_SGCD: torch.Tensor, capacity: int) -> torch.Tensor:
    """Return a copy with room for `capacity` tokens in each slot."""
    slots, heads, held, width = old_SGCD.shape
    new_SGCD = old_SGCD.new_zeros(slots, heads, capacity, width)
    new_SGCD[:, :, :held] = old_SGCD
    return new_SGCD
