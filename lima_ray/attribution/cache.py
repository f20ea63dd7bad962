"""The training rows' projected gradients in a file, so that they are computed once.

A row is done where its values are finite and not all zero: the file begins as NaN, and a kill
leaves what was computed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from lima_ray.attribution.gradients import RowGradients
from lima_ray.config.storage.working_copy import location
from lima_ray.data.packing import MicroBatch, pack
from lima_ray.data.rows import Rows
from lima_ray.records.files import acquire_lock
from lima_ray.records.run import Run

VERSION = 1
"""Of how gradients are projected; a cache of another one is not read."""


def cache_file(run: Run, weights: str, data: str, values: int) -> Path:
    """Return where the gradients of a run's rows by some of its weights stand.

    Args:
        weights, data: hashes of them.
        values: of a projected gradient.
    """
    folder = run.path / "gradients"
    if location(run.path):  # beside the copy, which is kept as the store has it
        folder = run.path.with_name(f".{run.path.name}.gradients")
    return folder / f"{weights}-{data}-{values}-v{VERSION}.npy"


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

    Raises:
        UserError: another process computes the same gradients.
    """
    shape = (len(rows), gradients.values)
    found_RV = _open(file, "r", shape)
    if found_RV is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(
            file.with_name(f".{file.name}.lock"),
            f"another process computes the gradients in {file}; wait for it",
        )
        try:
            _compute(gradients, rows, file, budget, advance)
        finally:
            lock.release()
        return np.load(file, mmap_mode="r")
    advance(len(rows))
    return found_RV


def _compute(
    gradients: RowGradients, rows: Rows, file: Path, budget: int, advance: Callable[[int], None]
) -> None:
    """Compute what a partial file lacks, and give it its name."""
    partial, shape = file.with_name(f".{file.name}.partial"), (len(rows), gradients.values)
    found_RV = _open(partial, "r+", shape)
    if found_RV is None:
        found_RV = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    done_R = np.array(np.isfinite(found_RV).all(axis=1) & (found_RV != 0).any(axis=1))
    found_RV[~done_R] = np.nan
    advance(int(done_R.sum()))
    for batch in pack_rows(rows, np.flatnonzero(~done_R), budget):
        found_RV[list(batch)] = gradients.compute(batch, rows)
        done_R[list(batch)] = True
        advance(int(done_R.sum()))
    found_RV.flush()
    partial.replace(file)


def _open(file: Path, mode: Literal["r", "r+"], shape: tuple[int, int]) -> np.memmap | None:
    """Return a file's gradients; none of a file that is missing, cut off or something else."""
    try:
        found = np.lib.format.open_memmap(file, mode=mode)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None
