"""A run directory: what stands where, and what it was made from."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lima_ray.config import Recipe, validate
from lima_ray.errors import UserError


@dataclass(frozen=True)
class SavedState:
    """The newest complete resume state."""

    folder: Path
    step: int
    """Optimizer steps done."""
    workers: int
    """Training processes that wrote it."""


@dataclass(frozen=True)
class Run:
    """The files of one run; every step of the platform reads and writes them through this."""

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def card_file(self) -> Path:
        """What the run was made from: hashes of data, base and recipe."""
        return self.path / "data_card.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line: `start` (of the workers), `step` and `save`, as they come."""
        return self.path / "metrics.jsonl"

    @property
    def rows_file(self) -> Path:
        """The encoded training rows."""
        return self.path / "rows.safetensors"

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer with EOT and chat template."""
        return self.path / "tokenizer"

    @property
    def state_dir(self) -> Path:
        """Resume states."""
        return self.path / "state"

    @property
    def epochs_dir(self) -> Path:
        """Weights by epoch, `01`, `02` ..., each a complete Hugging Face model."""
        return self.path / "epochs"

    @property
    def export_dir(self) -> Path:
        """The chosen epoch's model."""
        return self.path / "export"

    @property
    def epochs_figure(self) -> Path:
        """Quality and perplexity of the epochs, where a judge chose among them."""
        return self.path / "epochs.png"

    def epoch_dir(self, epoch: int) -> Path:
        """Weights after an epoch, counted from 1."""
        return self.epochs_dir / f"{epoch:02d}"

    def kept_epochs(self) -> list[int]:
        """Epochs whose weights stand here, in order."""
        return sorted(int(f.name) for f in self.epochs_dir.glob("[0-9]*") if f.name.isdigit())

    def dev_dir(self, epoch: int) -> Path:
        """What an epoch's model replied to the dev prompts, and the verdicts."""
        return self.path / "dev" / f"{epoch:02d}"

    def recipe(self) -> Recipe:
        """The recipe the run was started with."""
        return validate(yaml.safe_load(self.recipe_file.read_text()), str(self.recipe_file))

    def card(self) -> dict[str, Any]:
        """What the run was made from."""
        return json.loads(self.card_file.read_text())

    def metrics(self) -> list[dict[str, Any]]:
        """Every complete line of the metrics; none while the run has not begun."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def steps(self) -> list[dict[str, Any]]:
        """The metrics of every optimizer step so far, in order."""
        return [m for m in self.metrics() if m["kind"] == "step"]

    def latest_state(self) -> SavedState | None:
        """The newest complete resume state, or none."""
        file = self.state_dir / "latest.json"
        if not file.exists():
            return None
        newest = json.loads(file.read_text())[0]
        return SavedState(self.state_dir / newest["tag"], newest["step"], newest["workers"])

    def export_epoch(self) -> int:
        """The epoch that `export/` is."""
        return int(json.loads((self.export_dir / "lineage.json").read_text())["epoch"])

    def export(self, epoch: int) -> None:
        """Make an epoch's weights the run's model, by hard links where the disk has them.

        Args:
            epoch: one whose weights were kept, counted from 1.
        """
        partial = self.path / ".export.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for file in self.epoch_dir(epoch).iterdir():
            try:
                os.link(file, partial / file.name)
            except OSError:
                shutil.copy2(file, partial / file.name)
        shutil.rmtree(self.export_dir, ignore_errors=True)
        partial.rename(self.export_dir)

    def claim(self, recipe: Recipe, card: dict[str, Any]) -> None:
        """Make the directory this recipe's, or see that it already is.

        Raises:
            UserError: the directory holds a run of another recipe, data or base.
        """
        begun = self.latest_state() is not None or self.epochs_dir.exists()
        if self.recipe_file.exists() and not begun:
            self.metrics_file.unlink(missing_ok=True)  # nothing to lose, whatever the recipe
        elif self.recipe_file.exists():
            theirs, ours = self.recipe().identity(), recipe.identity()
            changed = [
                f"{name} {theirs.get(name)!r} (now {ours.get(name)!r})"
                for name in sorted(theirs | ours)
                if theirs.get(name) != ours.get(name)
            ]
            if not changed and self.card_file.exists():
                changed = [
                    f"the {part}'s content (hash {self.card()[part]['hash']}, now {new['hash']})"
                    for part in ("data", "base")
                    for new in (card[part],)
                    if self.card()[part]["hash"] != new["hash"]
                ]
            if changed:
                raise UserError(
                    f"{self.path} holds a run made with another {', '.join(changed)}. Give "
                    "this one a --name of its own, or remove that directory"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and holds no run; choose another --name")
        self.path.mkdir(parents=True, exist_ok=True)
        recipe.save(self.recipe_file)
        write_json(self.card_file, card)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as out:
        json.dump(value, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


def write_jsonl(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Write records, one a line, so that a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records))
    partial.replace(path)
