"""What an attribution needs of a run: the weights that replied, other epochs', and the rows.

Each is refused where it is not what it is taken for: another model's replies or changed rows would
give numbers that mean nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.storage.whole_folders import is_whole
from lima_ray.config.storage.working_copy import location
from lima_ray.data import training_data
from lima_ray.data.rows import Rows
from lima_ray.generation.reply_directory import read_settings
from lima_ray.records.example import Example
from lima_ray.records.lineage import hash_arrays, hash_base
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run, model_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Weights:
    """A model of a run."""

    folder: Path
    epoch: int
    """0 where nothing tells."""
    hash: str

    @classmethod
    def of(cls, run: Run, folder: Path) -> "Weights":
        return cls(folder, int(run.lineage(folder).get("epoch", 0)), hash_base(str(folder)))


EPOCHS = 3
"""That scores are averaged over unless others are asked for."""


@dataclass(frozen=True)
class TrainingRows:
    """The rows a run was trained on, `rows[i]` being `examples[i]` encoded."""

    examples: list[Example]
    rows: Rows
    tokenizer: "PreTrainedTokenizerFast"
    hash: str


def find_weights(run: Run, replies_file: Path, replies: list[Reply], any_model: bool) -> Weights:
    """Return the run's weights that made some replies: its export, or one of its epochs.

    Args:
        replies_file: beside it stands what made the replies, if anything tells.
        any_model: replies of other models too, as if the run's export had made them.

    Raises:
        UserError: the run has no weights, or others made the replies.
    """
    folders = [run.export_dir, *map(run.epoch_dir, reversed(run.kept_epochs()))]
    there = [f for f in folders if is_whole(f) and (location(f) or (f / "config.json").exists())]
    known = [Weights.of(run, folder) for folder in there]
    if not known:
        raise UserError(
            f"{run.path} holds no weights; train it first: python -m lima_ray.train, or keep its "
            "export/ or epochs/"
        )
    made = (read_settings(replies_file.parent) or {}).get("model_hash")
    names = sorted({reply.model for reply in replies})
    for weights in known:
        if made == weights.hash or (made is None and names == [model_name(weights.folder)]):
            if made is None:
                print(f"taken for replies of {weights.folder}, by their model's name alone")
            return weights
    told = f"of {join_names(names)}" + (f" (weights {made})" if made else "")
    if any_model:
        print(f"the replies are {told}; they are attributed as if {known[0].folder} made them")
        return known[0]
    have = join_names([f"{model_name(w.folder)} ({w.hash})" for w in known])
    raise UserError(
        f"the replies in {replies_file} are {told}, not of {run.path}, which has {have}. Name the "
        "run that made them; with --any_model they are attributed as if this run had made them"
    )


def choose_epochs(run: Run, replied: Weights, asked: tuple[int, ...]) -> list[Weights]:
    """Return the weights whose gradients tell what taught `replied`, in the order of epochs.

    The last epochs fit most rows so well that little is left of their gradients; the mean over
    several epochs finds more (TracInCP: Pruthi et al. 2020). Without kept epochs, the weights that
    replied are all there is.
    """
    kept = run.kept_epochs()
    if missing := sorted({*asked} - {*kept}):
        raise UserError(
            f"{run.path} does not keep the weights of epoch {join_names([*map(str, missing)])}; it "
            f"has {join_names([*map(str, kept)]) or 'none'}"
        )
    before = [epoch for epoch in kept if epoch < replied.epoch]
    every = [*before, replied.epoch]
    count = min(EPOCHS, len(every))
    spread = [every[-(-len(every) * part // count) - 1] for part in range(1, count + 1)]
    return [
        replied if epoch == replied.epoch else Weights.of(run, run.epoch_dir(epoch))
        for epoch in sorted({*asked}) or spread
    ]


def load_rows(run: Run) -> TrainingRows:
    """Read and encode the rows a run was trained on; refuse them where they have changed since."""
    recipe = run.recipe()
    if recipe.data.leaks == "stop":  # then dev and test have decided nothing about the rows
        recipe = recipe.override({"data.dev": None, "data.test": None, "select.judge": "none"})
    tokenizer, examples, rows = training_data.load(recipe.override({"data.heldout": None}))
    now = hash_arrays(rows.ids_N, rows.mask_N, rows.starts_R1)
    card = run.data_card() or run.data_card_of_weights()
    trained = card.get("data", {}).get("hash")
    if trained is None:
        print(f"{run.data_card_file} is gone, so nothing tells whether the rows have changed since")
    elif trained != now:
        raise UserError(
            f"{recipe.data.train} is not what {run.path} was trained on any more: its rows have "
            f"the hash {now}, and had {trained}. Restore them, or train again under another --name"
        )
    return TrainingRows(examples, rows, tokenizer, now)
