"""Bytes that a training writes and keeps in its runs_dir."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lima_ray.config.recipe import Recipe
from lima_ray.model.export import GROUP_BYTES
from lima_ray.planning.shape import ModelShape
from lima_ray.training.schedule import kept_epochs
from lima_ray.training.zero import resume_state_bytes


@dataclass(frozen=True)
class Disk:
    """Bytes of one run."""

    state: int
    """A resume state."""
    states: int
    """Resume states at once, one of them being written."""
    weights: int
    """An epoch's weights; the export is links to one of them."""
    epochs: int
    """Epochs whose weights are kept."""
    scratch: int
    """Beside weights while they are gathered, where they are large."""

    @property
    def most(self) -> int:
        """Bytes at any time."""
        return self.state * self.states + self.weights * self.epochs + self.scratch

    @property
    def kept(self) -> int:
        """Bytes at the end."""
        return self.most - self.scratch


def plan_disk(recipe: Recipe, shape: ModelShape, bf16: bool) -> Disk:
    """Return what a run writes; the few megabytes of rows, tokenizer and metrics are left out."""
    width = 2 if bf16 else 4
    plain = shape.parameters - shape.lora
    weights = plain * exported_width(recipe, bf16)
    adapter = (shape.trained if recipe.model.lora_rank else 0) * width
    return Disk(
        state=resume_state_bytes(shape.trained, width),
        states=max(2, recipe.checkpoint.keep_states),
        weights=weights + adapter,
        epochs=kept_epochs(recipe),
        scratch=weights if weights > GROUP_BYTES else 0,
    )


def exported_width(recipe: Recipe, bf16: bool) -> int:
    """Return bytes of an exported weight."""
    if recipe.checkpoint.weights_dtype != "auto":
        return 2 if recipe.checkpoint.weights_dtype == "bf16" else 4
    return 2 if bf16 and not recipe.model.lora_rank else 4


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk that a directory is on, or will be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
