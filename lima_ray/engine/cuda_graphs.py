"""Forwards of a model in slots on a GPU, each recorded once and then launched as one CUDA graph.

A decoding step of a 7B model is about a thousand small kernels, which take more than twice as long
to launch from Python one by one as to run; a CUDA graph launches them all in one call. A graph is
made for one shape: the rows, the tokens of each, and how far back attention reaches. All three are
rounded up, so that there are few shapes, and each is recorded when first needed.

Row r of a decoding step is slot r, so that attention reads the cache where it lies. Rows without a
token to read fill up the batch: they write into a spare slot, and nobody reads what they say.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from lima_ray.engine.cpu.kv_slots import Row

LEAST_REACH = 256
"""Tokens that attention reaches back at least, and that every slot has room for at first."""
LEAST_CHUNK = 32
"""Tokens of a prompt computed together, at least; more than one, which is a decoding step."""
WAITS = (
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)
"""Operations whose result Python needs before it goes on, such as `tensor.item()`: no graph has
them, and an attempt to record one leaves PyTorch's random numbers on the GPU broken. Those that
models are known to call."""
RECORDING = threading.Lock()
"""One graph is recorded at a time, also by engines on other threads."""
log = logging.getLogger(__name__)


class Cache:
    """Keys and values of S slots and a spare one in every layer; each forward says its places."""

    def __init__(self, slots: int) -> None:
        self.slots, self.capacity = slots, 0
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Keys and values (S + 1, G, C, D) of each layer."""

    def grow(self, tokens: int) -> None:
        """Make room for so many tokens in every slot; what memory ran out for is made up later."""
        for number, (keys_SGCD, values_SGCD) in self.layers.items():
            if keys_SGCD.shape[2] < tokens:
                self.layers[number] = (widen(keys_SGCD, tokens), widen(values_SGCD, tokens))
        self.capacity = tokens

    def aim(self, slots_B: torch.Tensor, places_BT: torch.Tensor, reach: int) -> None:
        """Say where the next forward's tokens go, and how many of a slot's tokens it may read."""
        self.slots_B, self.places_BT = slots_B, places_BT
        seen_BTL = torch.arange(reach, device=places_BT.device) <= places_BT[..., None]
        self.seen_B1TL, self.reach = seen_BTL[:, None], reach

    def attend(
        self,
        layer: int,
        query_BHTD: torch.Tensor,
        key_BGTD: torch.Tensor,
        value_BGTD: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """Store a layer's new keys and values, and attend to what the rows' slots hold.

        Args:
            layer: number of the layer.
            query_BHTD: queries.
            key_BGTD: keys of G heads, each shared by H / G query heads.
            value_BGTD: values, shaped as the keys.
            scaling: factor of the scores.

        Returns:
            outputs (B, T, H, D).
        """
        batch, heads, tokens, width = query_BHTD.shape
        if layer not in self.layers:
            shape = (self.slots + 1, key_BGTD.shape[1], self.capacity, width)
            self.layers[layer] = (key_BGTD.new_zeros(shape), key_BGTD.new_zeros(shape))
        held: list[torch.Tensor] = []
        for all_SGCD, new_BGTD in zip(self.layers[layer], (key_BGTD, value_BGTD), strict=True):
            all_SGCD[self.slots_B[:, None], :, self.places_BT] = new_BGTD.transpose(1, 2)
            near_SGLD = all_SGCD[:, :, : self.reach]
            held.append(near_SGLD[:batch] if tokens == 1 else near_SGLD[self.slots_B])
        # The heads that share a key stand where positions would, one after another.
        shared = heads // key_BGTD.shape[1]
        seen_B1NL = self.seen_B1TL if tokens == 1 else self.seen_B1TL.repeat(1, 1, shared, 1)
        outputs_BGND = scaled_dot_product_attention(
            query_BHTD.reshape(batch, -1, shared * tokens, width),
            held[0],
            held[1],
            seen_B1NL,
            scale=scaling,
        )
        return outputs_BGND.reshape(batch, heads, tokens, width).transpose(1, 2)


@dataclass(frozen=True)
class Recorded:
    """A forward that can be launched again."""

    graph: Any
    """A CUDAGraph."""
    numbers: torch.Tensor
    """What it reads: token ids, starts and slots."""
    logits_BV: torch.Tensor | None
    """What it writes; another graph may write over it."""


class RecordedForward:
    """Reads tokens into slots and tells what follows, by recorded forwards where there is a GPU."""

    steady = False
    """Rounding may follow the number of rows."""
    chunk = 256
    """Tokens of a prompt computed together."""

    def __init__(self, model: Any, slots: int) -> None:
        """Record nothing yet.

        Args:
            model: whose attention is `slot_attention`.
            slots: how many there are.
        """
        self.model, self.slots, self.device = model, slots, model.device
        self.last_place: int = model.config.max_position_embeddings - 1
        self.cache = Cache(slots)
        self.recorded: dict[tuple[int, int, int], Recorded] = {}
        self.records = self.device.type == "cuda"
        self.memory: Any = None
        """What graphs share; it goes with the last of them."""

    def logits(self, rows: list[Row]) -> torch.Tensor:
        """Read a token into each slot named, and return logits (R, V) of what follows it."""
        batch = min(rounded(max(slot for slot, _, _ in rows) + 1), self.slots)
        tokens, starts, slots = [0] * batch, [0] * batch, [self.slots] * batch
        for slot, start, token in rows:
            tokens[slot], starts[slot], slots[slot] = token, start, slot
        logits_BV = self.run([[token] for token in tokens], starts, slots)
        assert logits_BV is not None
        return logits_BV[[slot for slot, _, _ in rows]]

    def read(self, slot: int, start: int, ids: list[int]) -> None:
        """Read a part of a prompt into a slot that holds `start` tokens."""
        filling = [0] * (rounded(len(ids), LEAST_CHUNK) - len(ids))
        self.run([ids + filling], [start], [slot])

    def reserve(self, slot: int, tokens: int) -> None:
        """Nothing: graphs read one cache of all slots, which grows as it is needed."""

    def release(self, slot: int) -> None:
        """Nothing: the room stays for the requests to come."""

    def run(self, ids: list[list[int]], starts: list[int], slots: list[int]) -> torch.Tensor | None:
        """One forward of rows of equally many tokens, recorded or to be."""
        batch, tokens = len(ids), len(ids[0])
        reach = rounded(max(starts) + tokens, LEAST_REACH)
        if reach > self.cache.capacity:
            # Graphs read the cache where it lay.
            self.recorded.clear()
            self.memory = torch.cuda.graph_pool_handle() if self.records else None
            self.cache.grow(reach)
        shape = (batch, tokens, reach)
        numbers = torch.tensor([*(i for row in ids for i in row), *starts, *slots])
        if self.records and shape not in self.recorded:
            self.record(shape, numbers)
        if recorded := self.recorded.get(shape):
            recorded.numbers.copy_(numbers)
            recorded.graph.replay()
            return recorded.logits_BV
        return self.compute(shape, numbers.to(self.device))

    def compute(self, shape: tuple[int, int, int], numbers: torch.Tensor) -> torch.Tensor | None:
        """Logits (B, V) where each row has one token, else nothing but what the slots then hold."""
        batch, tokens, reach = shape
        ids, starts_B, slots_B = numbers.split((batch * tokens, batch, batch))
        places_BT = starts_B[:, None] + torch.arange(tokens, device=self.device)
        self.cache.aim(slots_B, places_BT, reach)
        model = self.model if tokens == 1 else self.model.get_decoder()
        output = model(
            input_ids=ids.view(batch, tokens),
            position_ids=places_BT.clamp(max=self.last_place),  # beyond it, filling alone
            # Without a mask, `transformers` looks whether rows are packed, and waits for the GPU.
            attention_mask=self.cache.seen_B1TL,
            use_cache=False,
            slot_cache=self.cache,
        )
        return output.logits[:, 0] if tokens == 1 else None

    def record(self, shape: tuple[int, int, int], numbers: torch.Tensor) -> None:
        """Record the forward of a shape; a model that cannot be recorded is run as it is."""
        numbers = numbers.to(self.device)
        # What is made when first needed, such as the cache, must be there before.
        with Waits() as waits:
            self.compute(shape, numbers)
        if waits.found:
            self.launch_one_by_one(f"they wait for {waits}")
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with RECORDING, torch.cuda.graph(graph, self.memory, capture_error_mode="thread_local"):
                logits_BV = self.compute(shape, numbers)
        except RuntimeError as error:
            self.launch_one_by_one(str(error))
            return
        self.recorded[shape] = Recorded(graph, numbers, logits_BV)

    def launch_one_by_one(self, reason: str) -> None:
        """Record no more."""
        log.warning("this model's steps are launched kernel by kernel: %s", reason)
        self.records = False


class Waits(TorchDispatchMode):
    """Notes which of `WAITS` this thread calls inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __str__(self) -> str:
        return ", ".join(sorted(self.found))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Every operation passes here."""
        if func in WAITS:
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


def rounded(count: int, least: int = 1) -> int:
    """The smallest power of two that is neither below a number nor below `least`, another one."""
    return max(least, 1 << (count - 1).bit_length())


def widen(old_SGCD: torch.Tensor, capacity: int) -> torch.Tensor:
    """The same with room for more tokens."""
    slots, heads, held, width = old_SGCD.shape
    wide = old_SGCD.new_zeros(slots, heads, capacity, width)
    wide[:, :, :held] = old_SGCD
    return wide
