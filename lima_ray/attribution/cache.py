"""The training rows' projected gradients in a file, so that they are computed once.

A row is done where its values are finite and not all zero: the file begins as NaN, and a kill
leaves what was computed.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lima_ray.attribution.gradients import RowGradients
from lima_ray.data.packing import MicroBatch, pack
from lima_ray.data.rows import Rows
from lima_ray.records.run import Run

VERSION = 1
"""Of how gradients are projected; a cache of another one is not read."""


def cache_file(run: Run, weights: str, data: str, values: int) -> Path:
    """Return where the gradients of a run's rows by some of its weights stand.

    Args:
        weights, data: hashes of them.
        values: of a projected gradient.
    """
    return run.path / "gradients" / f"{weights}-{data}-{values}-v{VERSION}.npy"


def pack_rows(rows: Rows, numbers: np.ndarray, budget: int) -> list[MicroBatch]:
    """Pack rows into micro-batches of at most `budget` tokens, or of the longest row."""
    if not len(numbers):
        return []
    lengths = rows.lengths_R[numbers]
    return list(pack(numbers, lengths, 1, max(budget, int(lengths.max()))).ranks[0])


def load_or_compute(
    gradients: RowGradients,
    rows: Rows,
    file: Path,
    budget: int,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Return every row's gradient, (R, values), read from the disk as it is needed.

    Args:
        budget: tokens of one forward and backward pass.
        advance: called with the number of rows done, at first and after each pass.
    """
    if file.exists():
        advance(len(rows))
        return np.load(file, mmap_mode="r")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    shape = (len(rows), gradients.values)
    if partial.exists():
        found_RV = np.lib.format.open_memmap(partial, mode="r+")
    else:
        found_RV = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        found_RV[:] = np.nan
    done_R = np.array(np.isfinite(found_RV).all(axis=1) & (found_RV != 0).any(axis=1))
    advance(int(done_R.sum()))
    for batch in pack_rows(rows, np.flatnonzero(~done_R), budget):
        found_RV[list(batch)] = gradients.compute(batch, rows)
        done_R[list(batch)] = True
        advance(int(done_R.sum()))
    found_RV.flush()
    partial.replace(file)
    return np.load(file, mmap_mode="r")
