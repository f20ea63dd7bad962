"""Kernels in C for decoding on a CPU: matrix products, and what a Llama does between them.

For a few rows, oneDNN's products read weights and PyTorch's attention keys at half the memory's
speed, and what is four passes here takes PyTorch a dozen of small operations. `kernels.c` is
compiled when first needed, by `cc` or what CC names, into a cache folder; where that cannot be, and
with LIMA_KERNELS=0, `available` is false and PyTorch does it all.

The threads are those that PyTorch keeps: the library is linked without OpenMP's own, so that it
finds the one already in the process, and the two never fight for cores.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from lima_ray import cache
from lima_ray.engine.cpu.threads import threads_allowed

SOURCE = Path(__file__).with_suffix(".c")
COMPILE = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-c")
WORTH_THREADS = 2**19
"""Elements that a pass reads from which it is shared among threads."""
WORTH_THREADS_PRODUCTS = 2**20
"""Multiplications of a matrix product from which it is."""


class Slots(Protocol):
    """Keys and values of all slots in one layer, such as `kv_slots.LayerCache`."""

    heads: int
    width: int
    addresses_S: torch.Tensor
    """Where a slot's keys (G, C, E) lie, its values behind them."""
    capacities_S: torch.Tensor
    """C of each slot."""


def available() -> bool:
    """Whether the kernels can be used here; compiles them when first asked."""
    return os.environ.get("LIMA_KERNELS") != "0" and load() is not None


def add_norm(
    x_BTD: torch.Tensor, y_BTD: torch.Tensor | None, weight_D: torch.Tensor, eps: float
) -> torch.Tensor:
    """Add y to x in place, where there is one, and return the sum's RMSNorm."""
    out_BTD = torch.empty_like(x_BTD)
    size = x_BTD.shape[-1]
    y = None if y_BTD is None else y_BTD.data_ptr()
    loaded().add_norm(
        *(x_BTD.data_ptr(), y, weight_D.data_ptr(), out_BTD.data_ptr()),
        *(x_BTD.numel() // size, size, eps, threads_for(x_BTD.numel())),
    )
    return out_BTD


def silu_mul(gate_up_BTM: torch.Tensor) -> torch.Tensor:
    """silu(gate) · up of gate and up side by side (B, T, 2 M): (B, T, M)."""
    batch, tokens, both = gate_up_BTM.shape
    out_BTM = gate_up_BTM.new_empty(batch, tokens, both // 2)
    loaded().silu_mul(
        *(gate_up_BTM.data_ptr(), out_BTM.data_ptr()),
        *(batch * tokens, both // 2, threads_for(gate_up_BTM.numel())),
    )
    return out_BTM


@dataclass(frozen=True)
class Packed:
    """Weights of a linear layer as `multiply` reads them."""

    panels: torch.Tensor
    bias: torch.Tensor | None
    outs: int


def pack(weight_ND: torch.Tensor, bias_N: torch.Tensor | None) -> Packed:
    """Pack a linear layer's weights."""
    outs, ins = weight_ND.shape
    weight_ND = weight_ND.contiguous()
    padded = -(-outs // loaded().panel()) * loaded().panel()
    panels = weight_ND.new_empty(padded * ins)
    loaded().pack(weight_ND.data_ptr(), panels.data_ptr(), outs, ins, threads_allowed())
    bias = None if bias_N is None else torch.nn.functional.pad(bias_N, (0, padded - outs))
    return Packed(panels, bias, outs)


def multiply(x_BTD: torch.Tensor, weights: Packed) -> torch.Tensor:
    """x (B, T, D) times packed weights (N, D), plus their bias: (B, T, N)."""
    x_BTD = x_BTD.contiguous()
    batch, tokens, ins = x_BTD.shape
    y_BTN = x_BTD.new_empty(batch, tokens, weights.outs)
    products = batch * tokens * ins * weights.outs
    loaded().multiply(
        *(x_BTD.data_ptr(), weights.panels.data_ptr()),
        *(None if weights.bias is None else weights.bias.data_ptr(), y_BTN.data_ptr()),
        *(batch * tokens, ins, weights.outs),
        threads_allowed() if products >= WORTH_THREADS_PRODUCTS else 1,
    )
    return y_BTN


def turn(
    qkv_BTF: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    slots_R: torch.Tensor,
    starts_R: torch.Tensor,
    cache: Slots,
    heads: int,
) -> torch.Tensor:
    """Turn queries and keys by their places' angles, and put keys and values into slots.

    Args:
        qkv_BTF: H query heads, G key heads and G value heads of each token side by side; rows
            beyond R only fill up the batch.
        angles: cos and sin (C, E / 2) of every place.
        slots_R: slot of each row.
        starts_R: place of each row's first token there.
        cache: keys and values of all slots.
        heads: H.

    Returns:
        queries (R, T, H, E).
    """
    rows, tokens = len(slots_R), qkv_BTF.shape[1]
    queries_RTHE = qkv_BTF.new_empty(rows, tokens, heads, cache.width)
    loaded().turn(
        *(qkv_BTF.data_ptr(), *(part.data_ptr() for part in angles)),
        *(slots_R.data_ptr(), starts_R.data_ptr(), queries_RTHE.data_ptr()),
        *(cache.addresses_S.data_ptr(), cache.capacities_S.data_ptr()),
        *(rows, tokens, heads, cache.heads, cache.width, threads_for(qkv_BTF.numel())),
    )
    return queries_RTHE


def attend(
    queries_R1HE: torch.Tensor,
    cache: Slots,
    slots_R: torch.Tensor,
    starts_R: torch.Tensor,
    order_R: torch.Tensor,
    read: int,
    scaling: float,
    batch: int,
) -> torch.Tensor:
    """Attention of one token a row to all that its slot holds, itself included.

    Args:
        queries_R1HE: turned.
        cache: keys and values of all slots.
        slots_R: slot of each row.
        starts_R: place of each row's token there.
        order_R: the rows, those with most tokens first.
        read: tokens that the rows attend to, all together.
        scaling: factor of the scores.
        batch: rows to return; those beyond R are zero.

    Returns:
        outputs (batch, 1, H · E).
    """
    rows, _, heads, width = queries_R1HE.shape
    new = queries_R1HE.new_zeros if batch > rows else queries_R1HE.new_empty
    out_B1F = new(batch, 1, heads * width)
    elements = 2 * read * cache.heads * width
    loaded().attend(
        *(queries_R1HE.data_ptr(), cache.addresses_S.data_ptr(), cache.capacities_S.data_ptr()),
        *(order_R.data_ptr(), slots_R.data_ptr(), starts_R.data_ptr(), out_B1F.data_ptr()),
        *(rows, heads, cache.heads, width, scaling, threads_for(elements)),
    )
    return out_B1F


def attend_prompt(
    queries_1THE: torch.Tensor, cache: Slots, slot: int, start: int, scaling: float
) -> torch.Tensor:
    """Attention of a prompt's next T tokens to all that its slot holds up to each of them.

    Args:
        queries_1THE: turned.
        cache: keys and values of all slots.
        slot: the prompt's.
        start: tokens that the slot holds before these.
        scaling: factor of the scores.

    Returns:
        outputs (1, T, H · E).
    """
    _, tokens, heads, width = queries_1THE.shape
    keys, capacity = int(cache.addresses_S[slot]), int(cache.capacities_S[slot])
    values = keys + cache.heads * capacity * width * queries_1THE.itemsize
    out_1TF = queries_1THE.new_empty(1, tokens, heads * width)
    loaded().attend_prompt(
        *(queries_1THE.data_ptr(), keys, values, out_1TF.data_ptr()),
        *(tokens, start, heads, cache.heads, width, capacity, scaling, threads_allowed()),
    )
    return out_1TF


def threads_for(elements: int) -> int:
    """Threads that a pass over so many elements is worth."""
    return threads_allowed() if elements >= WORTH_THREADS else 1


def loaded() -> ctypes.CDLL:
    """The library, of which `available` said that it is there."""
    found = load()
    assert found is not None
    return found


@lru_cache
def load() -> ctypes.CDLL | None:
    """The compiled kernels; none, with a word of why, where they cannot be made."""
    named = os.environ.get("CC", "cc")
    compiler = shutil.which(named)
    try:
        if compiler is None:
            raise FileNotFoundError(f"there is no C compiler {named!r}; CC names another")
        found = ctypes.CDLL(str(compile_into_cache(compiler)))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        said = error
        if isinstance(error, subprocess.CalledProcessError):
            said = f"{' '.join(error.cmd)} failed: {error.stderr}"
        logging.getLogger(__name__).warning(
            "no kernels for decoding on this CPU, so PyTorch's slower operations are used "
            "(XDG_CACHE_HOME names the folder they are kept in): %s",
            said,
        )
        return None
    pointer, count, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    found.panel.restype = count
    found.pack.argtypes = [pointer] * 2 + [count] * 2 + [number]
    found.multiply.argtypes = [pointer] * 4 + [count] * 3 + [number]
    found.add_norm.argtypes = [pointer] * 4 + [count] * 2 + [ctypes.c_float, number]
    found.silu_mul.argtypes = [pointer] * 2 + [count] * 2 + [number]
    found.turn.argtypes = [pointer] * 8 + [count] * 5 + [number]
    found.attend.argtypes = [pointer] * 7 + [count] * 4 + [ctypes.c_float, number]
    found.attend_prompt.argtypes = [pointer] * 4 + [count] * 6 + [ctypes.c_float, number]
    for name in ("pack", "multiply", "add_norm", "silu_mul", "turn", "attend", "attend_prompt"):
        getattr(found, name).restype = None
    return found


def compile_into_cache(compiler: str) -> Path:
    """The library's file, made unless the cache has it for this source, compiler and CPU.

    Raises:
        OSError, RuntimeError: see `cache.kept`.
        subprocess.CalledProcessError: the compiler refuses.
    """
    version = run(compiler, "--version")
    made_of = (SOURCE.read_text(), *COMPILE, compiler, version, describe_cpu())
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]

    def build(file: Path) -> None:
        compiled = str(file.with_suffix(".o"))
        run(compiler, *COMPILE, str(SOURCE), "-o", compiled)
        run(compiler, "-shared", compiled, "-o", str(file))

    return cache.kept(f"kernels-{key}.so", build)


def run(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def describe_cpu() -> str:
    """What `-march=native` looks at: a folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
