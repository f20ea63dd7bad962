"""Whether the export is the model that was trained: its loss, loaded again, beside the trainer's.

With every epoch's weights the trainer notes its own loss on the first rows. Before a run is called
done, its export is loaded by transformers as anybody would, and must give the same.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import distributed as dist

from lima_ray.config.errors import UserError
from lima_ray.config.storage import whole_folders
from lima_ray.config.storage.changing_files import pull, push
from lima_ray.data.rows import Rows
from lima_ray.model.loading import DTYPES, dtype_name
from lima_ray.model.loss import forward_packed, load_packed
from lima_ray.records.files import read_json, write_json
from lima_ray.records.run import Run

PROBE_TOKENS = 1024
"""Tokens of the rows that are compared, at least one row."""
EXACT, ROUNDED = 1e-3, 0.02
"""How far the losses may part in fp32, and where either is in bf16: other kernels round otherwise.
Relative, for losses above 1 nat."""
MEMORY_FACTOR = 1.2
"""Memory that loading takes, in sizes of the files."""


@dataclass(frozen=True)
class Probe:
    """A loss on the first rows, without dropout."""

    rows: int
    loss: float
    """Mean over the supervised tokens, in nats."""
    dtype: str
    """Precision of the weights, such as `bfloat16`."""


def probe_loss(engine: Any, rows: Rows) -> Probe:
    """Compute the trainer's loss on the first rows on all workers; all refuse inf and NaN."""
    count = max(1, int((np.cumsum(rows.lengths_R) <= PROBE_TOKENS).sum()))
    engine.eval()
    with torch.no_grad():
        told = [mean_loss(engine, rows, count)]
    engine.train()
    dist.broadcast_object_list(told, src=0)  # workers may differ by rounding; all go one way
    if not math.isfinite(told[0]):
        raise UserError(
            f"the trained weights give a loss of {told[0]}, which is not finite; they are not "
            "saved. Lower optim.learning_rate, under another --name"
        )
    return Probe(count, told[0], dtype_name(engine.module.dtype))


def mean_loss(model: Any, rows: Rows, count: int) -> float:
    """Return the mean loss of the first rows' supervised tokens, in nats."""
    loss_sum, _ = forward_packed(model, tuple(range(count)), rows)
    return float(loss_sum) / int(rows.supervised_R[:count].sum())


def check_export(run: Run, asked_dtype: str) -> str:
    """Load a run's export again, once, and tell its loss beside the trainer's in a line.

    `asked_dtype` is the recipe's `checkpoint.weights_dtype`.

    Raises:
        UserError: the export is not the model that was trained; it is removed then.
    """
    whole_folders.fetch(run.export_dir)
    pull(run.rows_file)
    pull(run.export_check_file)
    lineage = run.lineage(run.export_dir)
    if "trained" not in lineage:
        return "the export was not loaded again: an earlier version saved it, without its loss"
    trained = Probe(**lineage["trained"])
    known = read_json(run.export_check_file)
    if known and known["weights"] == lineage["weights"]:
        loaded = Probe(**known["loaded"])
    elif not run.rows_file.exists():
        return f"the export was not loaded again: {run.rows_file} is gone"
    elif short := describe_memory_shortage(run.export_dir):
        return f"the export was not loaded again: {short}"
    else:
        loaded = probe_export(run.export_dir, Rows.load(run.rows_file), trained.rows)
    told = (
        f"loss {loaded.loss:.4f} in {loaded.dtype}, {trained.loss:.4f} as trained in "
        f"{trained.dtype} ({trained.rows} rows)"
    )
    chosen = asked_dtype != "auto" and dtype_name(DTYPES[asked_dtype]) != trained.dtype
    apart = abs(loaded.loss - trained.loss) / max(1.0, trained.loss)
    exact = loaded.dtype == trained.dtype == "float32"
    if not math.isfinite(loaded.loss) or (apart > (EXACT if exact else ROUNDED) and not chosen):
        whole_folders.remove(run.export_dir)
        raise UserError(
            f"the export of epoch {lineage['epoch']} is not the model that was trained: {told}. "
            f"It is removed; the epochs' weights are in {run.epochs_dir}. This is a fault of ours "
            "or of the base's family in transformers: please report it"
        )
    found = {"epoch": lineage["epoch"], "weights": lineage["weights"]}
    write_json(
        run.export_check_file, found | {"trained": asdict(trained), "loaded": asdict(loaded)}
    )
    push(run.export_check_file)
    return f"export loaded again: {told}"


def describe_memory_shortage(folder: Path) -> str:
    """Return what is missing to load a model, or nothing."""
    needed = MEMORY_FACTOR * sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    if needed <= free:
        return ""
    return f"it needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free"


def probe_export(folder: Path, rows: Rows, count: int) -> Probe:
    """Return a saved model's loss, as transformers loads it; refuse missing or foreign weights."""
    model, info = load_packed(folder, "auto")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            names = sorted(map(str, info[kind]))
            raise UserError(
                f"the model in {folder} was not saved whole: {len(names)} "
                f"{kind.replace('_keys', '')} weights, such as {names[0]}. This is a fault of ours "
                "or of the base's family in transformers: please report it"
            )
    with torch.inference_mode():
        return Probe(count, mean_loss(model, rows, count), dtype_name(model.dtype))
