"""Pictures of a run."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from lima_ray.run import Run

mpl.use("Agg")

from matplotlib import pyplot as plt


def loss_curve(run: Run) -> Path:
    """Draw loss of every step, its mean over each epoch, and token accuracy, to `loss.png`."""
    steps = run.steps()
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
