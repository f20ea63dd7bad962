"""Kernels in C for decoding on a CPU: matrix products, and what a Llama does between them.

For few tokens, oneDNN's products read weights and PyTorch's attention keys at half the memory's
speed, and what is four passes here takes PyTorch a dozen of small operations. Each function checks
that what it points C to is dense fp32 of the right shape on a CPU. What it computes stands in
`reference.py` under the same name (`multiply`: `torch.nn.functional.linear` of the weights in
fp32); `compiler.py` says when they are there.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from lima_ray.engine.cpu.compiler import library
from lima_ray.engine.cpu.kv_layer import Batch, LayerCache
from lima_ray.engine.cpu.threads import threads_allowed
from lima_ray.engine.cpu.weights import HeldWeights

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""What C calls the format of weights."""
WORTH_THREADS = 2**19
"""Elements that a pass reads from which it is shared among threads."""
WORTH_THREADS_PRODUCTS = 2**20
"""Multiplications of a matrix product from which it is."""


def add_norm(
    x_BTD: torch.Tensor, y_BTD: torch.Tensor | None, weight_D: torch.Tensor, eps: float
) -> torch.Tensor:
    out_BTD = torch.empty_like(x_BTD)
    shape = x_BTD.shape
    size = shape[-1]
    library().add_norm(
        pointer(x_BTD),
        None if y_BTD is None else pointer(y_BTD, shape),
        pointer(weight_D, (size,)),
        out_BTD.data_ptr(),
        *(x_BTD.numel() // size, size, eps, threads_for(x_BTD.numel())),
    )
    return out_BTD


def silu_mul(gate_up_BTM: torch.Tensor) -> torch.Tensor:
    batch, tokens, both = gate_up_BTM.shape
    out_BTM = gate_up_BTM.new_empty(batch, tokens, both // 2)
    library().silu_mul(
        *(pointer(gate_up_BTM), out_BTM.data_ptr()),
        *(batch * tokens, both // 2, threads_for(gate_up_BTM.numel())),
    )
    return out_BTM


@dataclass(frozen=True)
class PackedWeights:
    """Weights (N, K) of a linear layer as `multiply` reads them."""

    panels: torch.Tensor
    """Words of 32 bits, each of 1, 2 or 4 weights."""
    scales: torch.Tensor | None
    """Of weights in 8 bits, in panels too."""
    bias: torch.Tensor | None
    outs: int
    ins: int
    format: int
    """Number of the weights' format in C."""

    @cached_property
    def addresses(self) -> tuple[int, int | None, int | None]:
        """Addresses of weights, scales and bias, found once: a token takes a hundred products."""
        scales, bias = (None if t is None else t.data_ptr() for t in (self.scales, self.bias))
        return self.panels.data_ptr(), scales, bias


def pack(weights: HeldWeights, bias_N: torch.Tensor | None) -> PackedWeights:
    """Lay weights out for `multiply`; ValueError where C cannot read them."""
    values_NK, scales_NG = weights.values_NK, weights.scales_NG
    outs, ins = values_NK.shape
    if values_NK.dtype not in FORMATS or not values_NK.is_cpu:
        raise ValueError(
            f"the kernel was given weights in {values_NK.dtype} on {values_NK.device}; it reads "
            "fp32, bf16 and int8 on a CPU"
        )
    if (values_NK.dtype is torch.int8) != (scales_NG is not None):
        raise ValueError("the kernel was given scales without int8, or int8 without scales")
    in_word = 4 // values_NK.dtype.itemsize
    padded_NK = torch.nn.functional.pad(values_NK, (0, -ins % in_word)).contiguous()
    panels = in_panels(padded_NK.view(torch.int32))
    scales = None
    if scales_NG is not None:
        pointer(scales_NG, (outs, -(-ins // library().group())))
        scales = in_panels(scales_NG.view(torch.int32))
    padding = -outs % library().panel()
    bias = None if bias_N is None else torch.nn.functional.pad(bias_N, (0, padding))
    if bias is not None:
        pointer(bias, (outs + padding,))
    return PackedWeights(panels, scales, bias, outs, ins, FORMATS[values_NK.dtype])


def in_panels(words_NW: torch.Tensor) -> torch.Tensor:
    """Return words of 32 bits in the order in which a product reads them."""
    outs, count = words_NW.shape
    panels = words_NW.new_empty(-(-outs // library().panel()) * library().panel() * count)
    addresses = words_NW.data_ptr(), panels.data_ptr()
    library().pack(*addresses, outs, count, threads_allowed())
    return panels


def multiply(x_BTK: torch.Tensor, weights: PackedWeights) -> torch.Tensor:
    """Return x (B, T, K) times packed weights (N, K), plus their bias: (B, T, N)."""
    batch, tokens, ins = x_BTK.shape
    if ins != weights.ins:
        raise ValueError(f"the kernel was given {ins} inputs; the weights take {weights.ins}")
    y_BTN = x_BTK.new_empty(batch, tokens, weights.outs)
    products = batch * tokens * ins * weights.outs
    x_BTK = x_BTK.contiguous()
    library().multiply(
        *(pointer(x_BTK), *weights.addresses, y_BTN.data_ptr()),
        *(batch * tokens, ins, weights.outs, weights.format),
        threads_allowed() if products >= WORTH_THREADS_PRODUCTS else 1,
    )
    return y_BTN


def rotate_into_slots(
    qkv_BTF: torch.Tensor,
    angles_CE: torch.Tensor,
    cache: LayerCache,
    batch: Batch,
    heads: int,
) -> torch.Tensor:
    size, tokens, features = qkv_BTF.shape
    sequences, width = len(batch.slots), cache.width
    if size < sequences or features != (heads + 2 * cache.heads) * width:
        raise ValueError(
            f"the kernel was given {size} sequences of {features} features; {sequences} of "
            f"{heads} + 2 · {cache.heads} heads of {width} are to be stored"
        )
    queries_BTHE = qkv_BTF.new_empty(sequences, tokens, heads, width)
    library().rotate_into_slots(
        *(pointer(qkv_BTF), pointer(angles_CE, (angles_CE.shape[0], width))),
        *(batch.slots_B.data_ptr(), batch.starts_B.data_ptr(), queries_BTHE.data_ptr()),
        *slot_pointers(cache),
        *(sequences, tokens, heads, cache.heads, width, threads_for(qkv_BTF.numel())),
    )
    return queries_BTHE


def attend(
    queries_B1HE: torch.Tensor, cache: LayerCache, batch: Batch, scaling: float, size: int
) -> torch.Tensor:
    sequences, _, heads, width = queries_B1HE.shape
    new = queries_B1HE.new_zeros if size > sequences else queries_B1HE.new_empty
    out_B1F = new(size, 1, heads * width)
    elements = 2 * batch.read * cache.heads * width
    library().attend(
        pointer(queries_B1HE, (len(batch.slots), 1, heads, cache.width)),
        *slot_pointers(cache),
        *(batch.order_B.data_ptr(), batch.slots_B.data_ptr(), batch.starts_B.data_ptr()),
        out_B1F.data_ptr(),
        *(sequences, heads, cache.heads, width, scaling, threads_for(elements)),
    )
    return out_B1F


def attend_prompt(
    queries_1THE: torch.Tensor, cache: LayerCache, batch: Batch, scaling: float
) -> torch.Tensor:
    _, tokens, heads, width = queries_1THE.shape
    (slot,), (start,) = batch.slots, batch.starts
    keys_1GCE, values_1GCE = cache.views[slot]
    out_1TF = queries_1THE.new_empty(1, tokens, heads * width)
    library().attend_prompt(
        pointer(queries_1THE, (1, tokens, heads, cache.width)),
        *(pointer(keys_1GCE), pointer(values_1GCE), out_1TF.data_ptr()),
        *(tokens, start, heads, cache.heads, width, keys_1GCE.shape[2], scaling),
        threads_allowed(),
    )
    return out_1TF


def pointer(tensor: torch.Tensor, shape: tuple[int, ...] | None = None) -> int:
    """Return the address of a tensor that C reads as dense fp32.

    Raises:
        ValueError: another dtype or device, gaps between its elements, or another shape.
    """
    fits = tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous()
    if not fits or (shape is not None and tensor.shape != shape):
        wanted = "" if shape is None else f" of shape {tuple(shape)}"
        raise ValueError(
            f"the kernel was given {tensor.dtype} on {tensor.device} of shape "
            f"{tuple(tensor.shape)} and strides {tensor.stride()}; it reads contiguous fp32 on a "
            f"CPU{wanted}"
        )
    return tensor.data_ptr()


def slot_pointers(cache: LayerCache) -> tuple[int, int]:
    """Return the addresses of the tables of a cache's slots and of their capacities.

    Raises:
        ValueError: its keys and values are no fp32.
    """
    if cache.dtype is not torch.float32:
        raise ValueError(f"the kernel was given a KV cache of {cache.dtype}; it reads fp32")
    return cache.addresses_S.data_ptr(), cache.capacities_S.data_ptr()


def threads_for(elements: int) -> int:
    return threads_allowed() if elements >= WORTH_THREADS else 1
