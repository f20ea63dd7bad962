"""A run directory: what stands where, and what it was made from."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lima_ray.config.differences import differences, with_current_names
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.whole_folders import is_whole, names_of_whole, read_manifest
from lima_ray.config.storage.working_copy import (
    from_reference,
    is_own,
    location,
    reading_copy,
    reference,
)
from lima_ray.records.files import (
    acquire_lock,
    explain_write_errors,
    read_json,
    write_json,
    write_text,
)
from lima_ray.records.journal import Journal

MANIFEST = "manifest.json"
"""What a resume state consists of."""


@dataclass(frozen=True)
class SavedState:
    """A complete resume state."""

    folder: Path
    step: int
    """Optimizer steps done."""
    workers: int
    """Training processes that wrote it."""
    zero_stage: int
    files: dict[str, tuple[int, str]]
    """Bytes and hash of each file."""


STATE_FIELDS = {"step", "workers", "zero_stage", "files"}


@dataclass(frozen=True)
class Entry:
    """A file or folder of a run, by its name there."""

    name: str

    def __get__(self, run: "Run", _: object) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class Run:
    """The files of one run; every step of the platform reads and writes them through this.

    Where the run lives in a bucket they are those of this machine's working copy, and what the
    store has whole is told by manifests; a run that travels to another machine has the copy there.
    """

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return open_run, (reference(self.path),)

    @property
    def place(self) -> str:
        """Where the run is, for people: its URL, or its path."""
        return reference(self.path)

    def refresh(self) -> None:
        """Take over what a bucket holds of the run, but for the content of weights and states."""
        changing_files.pull(self.path)

    def reading_copy(self) -> "Run":
        """Return the run as readers see it, who may not touch the files of who trains it."""
        return Run(reading_copy(self.path))

    recipe_file = Entry("recipe.yaml")
    """The resolved recipe."""
    lock_file = Entry("lock")
    """Held by the process that trains the run."""
    data_card_file = Entry("data_card.json")
    """What the run was made from: hashes of data, base and recipe."""
    metrics_file = Entry("metrics.jsonl")
    """One JSON object a line: `start` (of the workers), `step` and `save`, as they come."""
    rows_file = Entry("rows.safetensors")
    tokenizer_dir = Entry("tokenizer")
    """The tokenizer with EOT and chat template."""
    state_dir = Entry("state")
    epochs_dir = Entry("epochs")
    """Weights by epoch, `01`, `02` ..., each a complete Hugging Face model."""
    export_dir = Entry("export")
    """The chosen epoch's model."""
    epochs_figure = Entry("epochs.png")
    """Quality and perplexity of the epochs, where a judge chose among them."""
    export_check_file = Entry("export_check.json")
    """The export's loss when it was loaded again, beside the trainer's."""

    def epoch_dir(self, epoch: int) -> Path:
        """Return weights after an epoch, counted from 1."""
        return self.epochs_dir / f"{epoch:02d}"

    def kept_epochs(self) -> list[int]:
        """Return epochs whose weights stand here, in order."""
        return sorted(int(name) for name in names_of_whole(self.epochs_dir) if name.isdigit())

    def has_epoch(self, epoch: int) -> bool:
        return is_whole(self.epoch_dir(epoch))

    def has_export(self) -> bool:
        return is_whole(self.export_dir)

    def dev_dir(self, epoch: int) -> Path:
        """Return what an epoch's model replied to the dev prompts, and the verdicts."""
        return self.path / "dev" / f"{epoch:02d}"

    def recipe(self) -> Recipe:
        """Return the recipe the run was started with; refuse one that cannot be read."""
        try:
            tree = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{self.recipe_file} cannot be read: {error}") from error
        if not isinstance(tree, dict):
            raise UserError(
                f"{self.recipe_file} is empty or no recipe; the command that began the run writes "
                "an empty one anew"
            )
        return validate_recipe(with_current_names(tree), str(self.recipe_file))

    def data_card(self) -> dict[str, Any]:
        """Return what the run was made from; nothing where that cannot be read."""
        return read_json(self.data_card_file) or {}

    def metrics(self) -> list[dict[str, Any]]:
        """Return every record of the metrics that can be read; none while the run has not begun."""
        # A full disk may have cut lines off in the middle.
        records = Journal(self.metrics_file).records(damaged="skip")
        return [record for record in records if "kind" in record]

    def steps(self) -> list[dict[str, Any]]:
        """Return the metrics of every optimizer step so far, in order."""
        return [m for m in self.metrics() if m["kind"] == "step"]

    def states(self) -> list[SavedState]:
        """Return every complete resume state, the newest first."""
        found = []
        for name in names_of_whole(self.state_dir):
            if not name.startswith("step-"):
                continue
            folder = self.state_dir / name
            made = read_manifest(folder) if location(folder) else read_json(folder / MANIFEST)
            if made and set(made) == STATE_FIELDS:  # else it is being written, or converted
                found.append(SavedState(folder, **made))
        return sorted(found, key=lambda state: -state.step)

    def earlier_states(self) -> dict[int, Path]:
        """Return states by step that an earlier version wrote without a manifest."""
        if not (self.state_dir / "latest.json").exists():
            return {}
        found = self.state_dir.glob(f"step-{'[0-9]' * 6}")
        return {int(f.name[5:]): f for f in found if not (f / MANIFEST).exists()}

    def check_states(self) -> None:
        """Refuse to go on from a state of an earlier version."""
        earlier = self.earlier_states()
        if earlier and not self.states():
            raise UserError(
                f"an earlier version of lima_ray wrote {earlier[max(earlier)]} in a form that this "
                "one does not read. Finish the run with that version, train under another --name, "
                f"or remove {self.state_dir} to train from the beginning"
            )

    def latest_state(self) -> SavedState | None:
        return next(iter(self.states()), None)

    def export_epoch(self) -> int:
        return int(self.lineage(self.export_dir)["epoch"])

    def lineage(self, folder: Path) -> dict[str, Any]:
        """Return what made a folder's weights, and their hash; nothing if unknown."""
        made = read_manifest(folder) if location(folder) else None
        return (made or {}).get("lineage") or read_json(folder / "lineage.json") or {}

    def export(self, epoch: int) -> None:
        """Make an epoch's weights (from 1) the run's model, by hard links where the disk can."""
        if location(self.path):
            if read_manifest(self.epoch_dir(epoch)) == read_manifest(self.export_dir):
                return  # a reader may be at it
            whole_folders.copy_published(self.epoch_dir(epoch), self.export_dir)
            if not whole_folders.is_here(self.epoch_dir(epoch)):
                return
        partial = self.path / ".export.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        shutil.copytree(
            self.epoch_dir(epoch), partial, copy_function=link_or_copy, dirs_exist_ok=True
        )
        shutil.rmtree(self.export_dir, ignore_errors=True)
        partial.rename(self.export_dir)
        if location(self.path):
            whole_folders.note_copy(self.export_dir)

    def initialise(self, recipe: Recipe, card: dict[str, Any]) -> None:
        """Make the directory this recipe's, or see that it is; refuse other recipe, data, base."""
        begun = self.is_begun()
        if self.recipe_file.exists() and begun:
            changed = self.find_changes(recipe, card)
            if changed:
                raise UserError(
                    f"{self.path} holds a run made with another {', '.join(changed)}. Give "
                    "this one a --name of its own, or remove that directory"
                )
        elif not self.recipe_file.exists() and self.path.exists() and any(self.other_files()):
            raise UserError(f"{self.path} is not empty and holds no run; choose another --name")
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.is_begun():  # nothing to lose, whatever the recipe
                self.metrics_file.unlink(missing_ok=True)
            write_text(self.recipe_file, recipe.to_yaml())
            write_json(self.data_card_file, card)
        if not begun:
            changing_files.discard(self.metrics_file)
        changing_files.push(self.recipe_file, self.data_card_file)

    def is_begun(self) -> bool:
        """Return whether something is saved that a training can go on from."""
        return any(self.state_dir.glob("*step-*")) or self.epochs_dir.exists()

    def with_own_choices(self, recipe: Recipe) -> Recipe:
        """Return a recipe whose `auto` fields are what this run began with, if it did."""
        if not self.is_begun() or not self.recipe_file.exists():
            return recipe
        if self.recipe_file.stat().st_size == 0:  # emptied by a full disk
            return recipe
        train = self.recipe().train
        names = recipe.unresolved()
        return recipe.override({name: getattr(train, name.partition(".")[2]) for name in names})

    def other_files(self) -> list[Path]:
        """Return what lies in the directory besides the lock."""
        return [file for file in self.path.iterdir() if not is_own(file)]

    def find_changes(self, recipe: Recipe, card: dict[str, Any]) -> list[str]:
        """Return how this run was made otherwise than with a recipe, data and base."""
        known = self.data_card() or self.data_card_of_weights()
        if self.recipe_file.stat().st_size == 0:  # emptied by a full disk
            if "recipe" not in known:
                raise UserError(
                    f"neither {self.recipe_file} nor {self.data_card_file} tells what this run was "
                    "made from; both are empty, damaged or gone. Restore one, give this run a "
                    "--name of its own, or remove that directory"
                )
            theirs_hash, ours_hash = known["recipe"]["hash"], recipe.hash()
            changed = [f"recipe (hash {theirs_hash}, now {ours_hash})"]
            changed = changed if theirs_hash != ours_hash else []
        else:
            theirs, ours = self.recipe().identity(), recipe.identity()
            changed = [f"{name} {values}" for name, values in differences(theirs, ours).items()]
        return changed or [
            f"the {part}'s content (hash {known[part]['hash']}, now {card[part]['hash']})"
            for part in ("data", "base")
            if part in known and part in card and known[part]["hash"] != card[part]["hash"]
        ]

    def data_card_of_weights(self) -> dict[str, Any]:
        """Return what the newest weights were made from, in the form of a card."""
        made = self.lineage(self.epoch_dir(max(self.kept_epochs(), default=0)))
        parts = ("data", "base", "recipe")
        return {part: {"hash": made[part]} for part in parts if part in made}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings away from this run; refuse where another process trains it."""
        busy = (
            f"another process is training {self.path}; wait for it, stop it (a job: ray job list, "
            "ray job stop ID), or choose another --name"
        )
        with explain_write_errors(self.path):
            held = acquire_lock(self.lock_file, busy, everywhere=True)
        try:
            self.refresh()  # others may have worked on it until now
            yield
        finally:
            held.release()


def open_run(said: str) -> Run:
    """Return the run of a path or a URL, as this machine has it."""
    return Run(from_reference(said))


def link_or_copy(source: str, target: str) -> None:
    """Link a file under another name where the disk has hard links, else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def model_name(path: Path) -> str:
    """Return what replies call a model's directory: its run, with the epoch if it is one."""
    if path.name == "export":
        return path.parent.name
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "epochs" else path.name
