"""The operations of `kernels.py` by PyTorch: the same functions, arguments and results.

Tests hold the kernels against them; where there is no C compiler they take their place, and
attention is always theirs in models that are no plain Llama.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from lima_ray.engine.cpu.kv_layer import Batch, LayerCache
from lima_ray.engine.cpu.threads import threads_allowed, threads_if
from lima_ray.model.cpu_layers import rotate

WORTH_THREADS_KEYS = 2**21
"""Elements of all sequences' keys from which a layer's attention is shared among threads."""


def add_norm(
    x_BTD: torch.Tensor, y_BTD: torch.Tensor | None, weight_D: torch.Tensor, eps: float
) -> torch.Tensor:
    """Add y to x in place, where there is one, and return the sum's RMSNorm."""
    if y_BTD is not None:
        x_BTD.add_(y_BTD)
    return rms_norm(x_BTD, weight_D.shape, weight_D, eps)


def silu(x: torch.Tensor) -> torch.Tensor:
    """Return x / (1 + exp(-x)), by one formula for every element."""
    # PyTorch's own takes another for the last few elements of each thread's share.
    return x / torch.exp(-x).add_(1)


def silu_mul(gate_up_BTM: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) · up (B, T, M) of gate and up side by side (B, T, 2 M)."""
    gate_BTM, up_BTM = gate_up_BTM.chunk(2, dim=-1)
    return silu(gate_BTM).mul_(up_BTM)


def rotate_into_slots(
    qkv_BTF: torch.Tensor,
    angles_CE: torch.Tensor,
    cache: LayerCache,
    batch: Batch,
    heads: int,
) -> torch.Tensor:
    """Apply RoPE to queries and keys, and write keys and values into slots.

    Args:
        qkv_BTF: H query heads, G key heads and G value heads of each token side by side; padding
            may follow the batch's sequences.
        angles_CE: cos and sin of every position, E / 2 each, side by side.

    Returns:
        queries (B, T, H, E), without padding.
    """
    qkv_BTHE = qkv_BTF[: len(batch.slots)].unflatten(2, (-1, cache.width))
    positions_BT = batch.starts_B[:, None] + torch.arange(qkv_BTF.shape[1])
    cos_BT1E, sin_BT1E = angles_CE[positions_BT, None].chunk(2, dim=-1)
    rotated_BTHE = rotate(qkv_BTHE[:, :, : heads + cache.heads], cos_BT1E, sin_BT1E, 1)
    key_BGTE = rotated_BTHE[:, :, heads:].transpose(1, 2)
    cache.store(batch, key_BGTE, qkv_BTHE[:, :, heads + cache.heads :].transpose(1, 2))
    return rotated_BTHE[:, :, :heads]


def attend(
    queries_B1HE: torch.Tensor, cache: LayerCache, batch: Batch, scaling: float, size: int
) -> torch.Tensor:
    """Attend from one token a sequence to all that its slot holds, itself included.

    Every sequence is computed by itself, over exactly its own tokens.

    Args:
        queries_B1HE: with RoPE.
        size: sequences to return; those beyond B are zero.

    Returns:
        outputs (size, 1, H · E).
    """
    sequences, _, heads, width = queries_B1HE.shape
    # The heads that share a key stand where positions would: all of them see the whole sequence.
    queries = queries_B1HE.reshape(sequences, cache.heads, -1, width).split(1)
    outputs: list[torch.Tensor | None] = [None] * sequences

    @torch.inference_mode()
    def attend_some(places: list[int]) -> None:
        for place in places:
            keys_1GCE, values_1GCE = cache.views[batch.slots[place]]
            tokens = batch.starts[place] + 1
            outputs[place] = scaled_dot_product_attention(
                queries[place],
                keys_1GCE.narrow(2, 0, tokens),
                values_1GCE.narrow(2, 0, tokens),
                scale=scaling,
            )

    worth = batch.read * cache.heads * width >= WORTH_THREADS_KEYS
    threads = min(threads_allowed(), sequences) if worth else 1
    # PyTorch lets go of Python's lock meanwhile. Unlike the threads within an operation, these wait
    # for each other once, not once for each sequence.
    by_length = batch.order_B.tolist()
    shares = [by_length[number::threads] for number in range(threads)]
    others = [thread_pool().submit(attend_some, share) for share in shares[1:]]
    # PyTorch splits one query's keys among its threads, which gives other bits.
    with threads_if(False):
        attend_some(shares[0])
    for other in others:
        other.result()
    found = [output for output in outputs if output is not None]
    if size > sequences:
        shape = (size - sequences, cache.heads, heads // cache.heads, width)
        found.append(queries_B1HE.new_zeros(shape))
    return torch.cat(found).view(size, 1, heads * width)


@lru_cache
def thread_pool() -> ThreadPoolExecutor:
    """Return the threads that share sequences, made when first needed."""
    return ThreadPoolExecutor(initializer=keep_to_one_thread)


def keep_to_one_thread() -> None:
    """Keep PyTorch's operations in the calling thread to this thread."""
    torch.get_num_threads()  # else its first operation takes the process's number once more
    torch.set_num_threads(1)


def attend_prompt(
    queries_1THE: torch.Tensor, cache: LayerCache, batch: Batch, scaling: float
) -> torch.Tensor:
    """Attend from the next T tokens of a prompt to all that its slot holds up to each of them.

    Args:
        queries_1THE: with RoPE.
        batch: the prompt alone.

    Returns:
        outputs (1, T, H · E).
    """
    (slot,), (start,) = batch.slots, batch.starts
    keys_1GCE, values_1GCE = cache.views[slot]
    end = start + queries_1THE.shape[1]
    mask_TL = None
    if start:
        position_L = torch.arange(end)
        mask_TL = position_L <= position_L[start:, None]
    outputs_1HTE = scaled_dot_product_attention(
        queries_1THE.transpose(1, 2),
        keys_1GCE[:, :, :end],
        values_1GCE[:, :, :end],
        mask_TL,
        is_causal=not start,
        scale=scaling,
        enable_gqa=queries_1THE.shape[2] != cache.heads,
    )
    return outputs_1HTE.transpose(1, 2).flatten(2)
