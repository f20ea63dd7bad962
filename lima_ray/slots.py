"""A key-value cache of slots under a model's own forward, in which no row feels its neighbours.

A decoding step runs one token of every active request through the model as one batch of rows. For
the same seed to give the same reply in any company, a row's logits may not depend, in any bit, on
how many other rows there are, what they hold, or where in the batch the row stands. On a CPU:

- Matrix products choose their kernel by the number of rows, and one row, or a few odd ones, is
  summed in another order than eight or more. A batch is filled up to a multiple of `STRIDE` rows.
- Attention is computed for each row by itself, over exactly its own tokens.
- PyTorch's SiLU treats the last few elements of every thread's share by another formula than the
  rest; `SiLU` here does not.

This is what was seen on x86, and no library promises it: the engine checks it when it loads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.activations import SiLUActivation
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import logging

from lima_ray.errors import UserError
from lima_ray.model import check_plain_attention
from lima_ray.tokenizer import TOKENIZER_FILES

SLOTS = "lima_slots"
STRIDE = 8
"""Rows in a batch are a multiple of this."""
SMALLEST_CAPACITY = 128
"""Tokens that every slot has room for at first; the room doubles when one needs more."""
WORTH_THREADS_KEYS = 2**18
"""Elements of one row's keys from which its attention is shared among threads."""
WORTH_THREADS_TOKENS = 2**20
"""Tokens times the square of the hidden size from which a forward is shared among threads."""


def load(model_dir: Path, device: torch.device, rows: int) -> tuple[Any, Any]:
    """The model of a directory, its attention in slots, and its tokenizer.

    Args:
        model_dir: a Hugging Face model with safetensors.
        device: a CPU computes in fp32, CUDA in bf16.
        rows: usual number of rows in a batch.

    Raises:
        UserError: what is missing there, or cannot be read, or is no plain causal attention.
    """
    needed = {
        "model": ("config.json",),
        "weights in safetensors": ("*.safetensors",),
        "tokenizer": TOKENIZER_FILES,
    }
    for what, patterns in needed.items():
        if not any(any(model_dir.glob(pattern)) for pattern in patterns):
            raise UserError(f"no {what} in {model_dir}: it lacks {' or '.join(patterns)}")
    register()
    logging.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
        model, info = loader.from_pretrained(
            str(model_dir),
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
            attn_implementation=SLOTS,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the model in {model_dir} cannot be loaded: {error}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(f"{model_dir} lacks {len(missing)} weights, such as {missing[0]}")
    check_plain_attention(model.config, model.config.max_position_embeddings)
    if (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") == "longrope":
        raise UserError(f"{model_dir} has longrope positions, which change with a row's neighbours")
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        steady_layers(model, rows)
    return model, tokenizer


class SlotCache:
    """Keys and values of S slots in every layer; each forward names the slots that its rows use.

    `together` computes the attention of all rows at once, padded to the longest: on a GPU one
    launch for each layer, where one for each row would take longer than its work.
    """

    def __init__(self, slots: int, together: bool) -> None:
        self.slots, self.together = slots, together
        self.layers_2SGCD: dict[int, torch.Tensor] = {}

    def aim(self, slots: list[int], starts: list[int], device: torch.device) -> None:
        """Say where the next forward's tokens go; rows beyond these only fill up the batch.

        Args:
            slots: slot of each row.
            starts: tokens that each row's slot holds already.
            device: of the model.
        """
        self.rows = list(zip(slots, starts, strict=True))
        self.slots_B = torch.tensor(slots, device=device)
        self.starts_B = torch.tensor(starts, device=device)

    def store(self, layer: int, key_BGTD: torch.Tensor, value_BGTD: torch.Tensor) -> torch.Tensor:
        """Write a layer's new keys and values, and return those of all slots (2, S, G, C, D)."""
        new_2BGTD = torch.stack((key_BGTD, value_BGTD))
        tokens = key_BGTD.shape[2]
        all_2SGCD = self.with_room(layer, max(start for _, start in self.rows) + tokens, new_2BGTD)
        if tokens > 1:
            ((slot, start),) = self.rows
            all_2SGCD[:, slot, :, start : start + tokens] = new_2BGTD[:, 0]
        else:
            new_B2GD = new_2BGTD[:, : len(self.rows), :, 0].transpose(0, 1)
            all_2SGCD[:, self.slots_B, :, self.starts_B] = new_B2GD
        return all_2SGCD

    def with_room(self, layer: int, tokens: int, like_2BGTD: torch.Tensor) -> torch.Tensor:
        """A layer's keys and values, with room for so many tokens in every slot."""
        old = self.layers_2SGCD.get(layer)
        capacity = SMALLEST_CAPACITY if old is None else old.shape[3]
        if old is not None and tokens <= capacity:
            return old
        while capacity < tokens:
            capacity *= 2
        _, _, heads, _, width = like_2BGTD.shape
        # On a CPU, memory that no token reaches is never taken; padded attention reads all of it.
        grown = like_2BGTD.new_empty(2, self.slots, heads, capacity, width)
        if self.together:
            grown.zero_()
        if old is not None:
            grown[:, :, :, : old.shape[3]] = old
        self.layers_2SGCD[layer] = grown
        return grown


def slot_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    slot_cache: SlotCache | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend to what the rows' slots hold: T tokens of one prompt, or one token of B rows.

    Args:
        module: the attention layer; its `layer_idx` is used.
        query_BHTD: queries.
        key_BGTD: keys of G heads, each shared by H / G query heads.
        value_BGTD: values, shaped as the keys.
        attention_mask: never given; see `register`.
        scaling: factor of the scores.
        slot_cache: aimed at the rows' slots.

    Returns:
        outputs (B, T, H, D), zero for filling rows, and no weights.
    """
    assert slot_cache is not None, "the engine passes slot_cache to every forward"
    layer: Any = module
    keys_SGCD, values_SGCD = slot_cache.store(layer.layer_idx, key_BGTD, value_BGTD)
    batch, heads, _, width = query_BHTD.shape
    if batch == 1:
        return prompt_attention(query_BHTD, keys_SGCD, values_SGCD, slot_cache.rows[0], scaling)
    # The heads that share a key stand where positions would: all of them see the whole row.
    query_BGHD = query_BHTD.reshape(batch, key_BGTD.shape[1], -1, width)
    outputs_BGHD = torch.zeros_like(query_BGHD)
    longest = max(start for _, start in slot_cache.rows) + 1
    if slot_cache.together:
        slots_B, starts_B = slot_cache.slots_B, slot_cache.starts_B
        mask_BL = torch.arange(longest, device=starts_B.device) <= starts_B[:, None]
        outputs_BGHD[: len(slots_B)] = scaled_dot_product_attention(
            query_BGHD[: len(slots_B)],
            keys_SGCD[slots_B, :, :longest],
            values_SGCD[slots_B, :, :longest],
            mask_BL[:, None, None],
            scale=scaling,
        )
    else:
        with threads_if(longest * key_BGTD.shape[1] * width >= WORTH_THREADS_KEYS):
            for row, (slot, start) in enumerate(slot_cache.rows):
                outputs_BGHD[row] = scaled_dot_product_attention(
                    query_BGHD[row : row + 1],
                    keys_SGCD[slot : slot + 1, :, : start + 1],
                    values_SGCD[slot : slot + 1, :, : start + 1],
                    scale=scaling,
                )[0]
    return outputs_BGHD.view(batch, 1, heads, width), None


def prompt_attention(
    query_1HTD: torch.Tensor,
    keys_SGCD: torch.Tensor,
    values_SGCD: torch.Tensor,
    row: tuple[int, int],
    scaling: float | None,
) -> tuple[torch.Tensor, None]:
    """Attend of a prompt's next T tokens to all that its slot holds up to each of them."""
    slot, start = row
    tokens = query_1HTD.shape[2]
    mask_TL = None
    if start:
        place_L = torch.arange(start + tokens, device=query_1HTD.device)
        mask_TL = place_L <= place_L[start:, None]
    outputs_1HTD = scaled_dot_product_attention(
        query_1HTD,
        keys_SGCD[slot : slot + 1, :, : start + tokens],
        values_SGCD[slot : slot + 1, :, : start + tokens],
        mask_TL,
        is_causal=not start,
        scale=scaling,
        enable_gqa=query_1HTD.shape[1] != keys_SGCD.shape[1],
    )
    return outputs_1HTD.transpose(1, 2), None


@contextmanager
def threads_if(worth: bool) -> Iterator[None]:
    """Keep PyTorch to this thread unless more are worth it.

    To wait for another thread takes microseconds on idle cores, and on busy ones some milliseconds
    for every small operation.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if worth else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN's kernel reads it; 2 to 3 times faster here."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """x W + b, as `nn.Linear`."""
        return torch.ops.mkldnn._linear_pointwise(x_BTD, self.packed, self.bias, "none", [], "")


class SiLU(nn.Module):
    """x / (1 + exp(-x)), by one formula for every element."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `nn.SiLU`, up to rounding."""
        return x / torch.exp(-x).add_(1)


def steady_layers(model: nn.Module, rows: int) -> None:
    """Give a model on a CPU, in fp32, the layers above; `rows` is its usual batch.

    Weights are repacked one layer at a time, and the old ones let go. A PyTorch without these
    private operations keeps its own linear layers.
    """
    packs = torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and packs:
                setattr(parent, name, PackedLinear(child, rows))
            elif isinstance(child, SiLUActivation | nn.SiLU):
                setattr(parent, name, SiLU())


def register() -> None:
    """Make `attn_implementation="lima_slots"` known, with no mask built for it."""
    AttentionInterface.register(SLOTS, slot_attention)
    AttentionMaskInterface.register(SLOTS, lambda *_, **__: None)
