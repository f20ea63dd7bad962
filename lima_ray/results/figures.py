"""Figures of a run: its loss, and its epochs by what their replies are worth and perplexity."""

from pathlib import Path
from typing import Any

import numpy as np

from lima_ray.records.quality import Quality
from lima_ray.records.run import Run
from lima_ray.results.metric_unit import JUDGED, in_unit


def start_pyplot() -> Any:
    """Return pyplot, which draws to files; imported late, as training begins long before."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_loss_curve(run: Run) -> Path:
    """Draw loss of every step, its mean over each epoch, and token accuracy, to `loss.png`."""
    plt, steps = start_pyplot(), run.steps()
    x = np.array([s["step"] for s in steps])
    loss = np.array([s["loss"] for s in steps])
    epoch = np.array([s["epoch"] for s in steps])
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axis.plot(x, loss, color="tab:blue", alpha=0.35, linewidth=1, label="loss of each step")
    means = [(x[epoch == e].mean(), loss[epoch == e].mean()) for e in np.unique(epoch)]
    axis.plot(*zip(*means, strict=True), "o-", color="tab:blue", label="mean of each epoch")
    axis.set(xlabel="optimizer step", ylabel="nats per supervised token", title=run.path.name)
    right = axis.twinx()
    right.plot(x, [s["token_accuracy"] for s in steps], color="tab:orange", linewidth=1)
    right.set_ylabel("token accuracy", color="tab:orange")
    axis.legend(loc="center right", frameon=False)
    for side in (axis, right):
        side.spines["top"].set_visible(False)
    path = run.path / "loss.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def draw_epoch_curves(run: Run, qualities: list[Quality], chosen: int) -> Path:
    """Draw what each epoch's dev replies are worth, and its held-out perplexity, to `epochs.png`.

    The two are LIMA's figure 9 (appendix B): does quality rise while perplexity rises too? Epochs,
    at least one, are in order; `chosen` is exported.
    """
    plt, x = start_pyplot(), [q.epoch for q in qualities]
    unit = JUDGED[qualities[0].metric]
    low, value, high = in_unit(qualities, unit)
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axis.fill_between(x, low, high, color="tab:blue", alpha=0.15)
    axis.plot(x, value, "o-", color="tab:blue")
    axis.axvline(chosen, color="gray", linestyle=":", linewidth=1)
    title = f"{run.path.name}: epoch {chosen} is exported"
    axis.set(xlabel="epoch", title=title, ylim=unit.axis_limits, xticks=x)
    said = f"dev replies: {unit.name}, {unit.scale}, with 95 % interval"
    axis.set_ylabel(said, color="tab:blue")
    sides = [axis]
    if any(q.perplexity is not None for q in qualities):
        right = axis.twinx()
        perplexities = [q.perplexity or float("nan") for q in qualities]
        right.plot(x, perplexities, "s--", color="tab:orange", linewidth=1)
        right.set_ylabel("perplexity of held-out replies", color="tab:orange")
        sides.append(right)
    for side in sides:
        side.spines["top"].set_visible(False)
    figure.savefig(run.epochs_figure, dpi=150)
    plt.close(figure)
    return run.epochs_figure
