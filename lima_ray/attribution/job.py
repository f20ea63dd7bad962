"""One attribution: its checked input, and the records it makes of the scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lima_ray.attribution.arguments import AttributeCommand
from lima_ray.attribution.cache import cache_file
from lima_ray.attribution.origins import (
    TrainingRows,
    Weights,
    choose_epochs,
    find_weights,
    load_rows,
)
from lima_ray.attribution.replies import choose_replies, encode_replies
from lima_ray.attribution.scores import score_by_gradient, score_by_text
from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.config.storage.whole_folders import fetch
from lima_ray.data.rows import Rows
from lima_ray.model.export_check import describe_memory_shortage
from lima_ray.model.loss import load_packed
from lima_ray.records.attribution import AttributedRow, Attribution
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run
from lima_ray.records.verdict import prompt_id

AT_ONCE = 256
"""Replies whose records are written together; a kill loses no more."""


@dataclass(frozen=True)
class Job:
    """An attribution whose input is checked."""

    command: AttributeCommand
    run: Run
    replied: Weights
    """What made the replies."""
    epochs: list[Weights]
    """Whose gradients are compared; none for texts."""
    training: TrainingRows
    replies: list[Reply]
    encoded: Rows
    """The replies, in their order."""

    def is_known(self, found: Attribution | None, reply: Reply) -> bool:
        """Return whether what a file holds of a reply is what this job would find."""
        if found is None:
            return False
        wanted = self.record(reply, np.zeros(len(self.training.examples)))
        parts = ("dialogue", "weights", "data", "epochs", "values")
        same = all(getattr(found, part) == getattr(wanted, part) for part in parts)
        return same and len(found.rows) >= len(wanted.rows)

    def record(self, reply: Reply, scores_R: np.ndarray) -> Attribution:
        """Return the rows of the highest scores."""
        best = np.argsort(-scores_R, kind="stable")[: self.command.rows]
        examples = [self.training.examples[row] for row in best]
        return Attribution(
            id=reply.id,
            sample=reply.sample,
            turn=reply.turn,
            model=reply.model,
            method=self.command.method,
            rows=tuple(
                AttributedRow(one.id, float(scores_R[row]), one.turns, one.source)
                for one, row in zip(examples, best, strict=True)
            ),
            dialogue=prompt_id((*reply.conversations, reply.reply), reply.system),
            weights=self.replied.hash,
            data=self.training.hash,
            epochs=tuple(weights.epoch for weights in self.epochs),
            values=self.command.values if self.epochs else 0,
        )

    def compute(self, numbers: list[int]) -> Iterator[Attribution]:
        """Yield the records of some replies as they are computed, with a progress display."""
        steps = len(self.epochs) * (len(self.training.rows) + len(numbers)) or len(numbers)
        with ProgressDisplay(steps, self.command.method, count=True) as display:
            progress = GradientProgress(display, steps)
            for start in range(0, len(numbers), AT_ONCE):
                some = np.array(numbers[start : start + AT_ONCE])
                if self.epochs:
                    of_epochs = [self._score(weights, some, progress) for weights in self.epochs]
                    scores_QR = np.mean(of_epochs, axis=0)
                else:
                    texts = [self.replies[number] for number in some]
                    scores_QR = score_by_text(texts, self.training.examples)
                for number, scores_R in zip(some, scores_QR, strict=True):
                    yield self.record(self.replies[number], scores_R)

    def _score(
        self, weights: Weights, numbers: np.ndarray, progress: "GradientProgress"
    ) -> np.ndarray:
        """Return some replies' scores by an epoch's gradients, (Q, R)."""
        if short := describe_memory_shortage(weights.folder):
            raise UserError(f"{weights.folder} cannot be loaded: {short}; use --method text")
        gpu, values = torch.cuda.is_available(), self.command.values
        model, _ = load_packed(weights.folder, "auto" if gpu else torch.float32)
        return score_by_gradient(
            model,
            self.encoded,
            numbers,
            self.training.rows,
            cache_file(self.run, weights.hash, self.training.hash, values),
            values,
            self.run.recipe().token_budget,
            partial(progress.update, weights.epoch),
        )


class GradientProgress:
    """Counts the gradients that are done, of rows and of replies, over all epochs."""

    def __init__(self, display: ProgressDisplay, steps: int) -> None:
        self.display, self.steps = display, steps
        self.rows: dict[int, int] = {}
        self.replies: dict[int, int] = {}

    def update(self, epoch: int, rows: int, new_replies: int) -> None:
        """Show that an epoch has gradients of so many rows, and of so many more replies."""
        self.rows[epoch] = rows
        self.replies[epoch] = self.replies.get(epoch, 0) + new_replies
        done = sum(self.rows.values()) + sum(self.replies.values())
        self.display.update(done)
        self.display.log(f"{done}/{self.steps} gradients")


def prepare(command: AttributeCommand, replies: list[Reply], file: Path) -> Job:
    """Refuse all that can be wrong with the input, before a gradient is computed.

    Args:
        replies: of `file`.
    """
    run = Run(command.run.absolute())
    if not run.recipe_file.is_file():
        raise UserError(f"{command.run} is no run: it holds no recipe.yaml")
    chosen = choose_replies(replies, command.ids)
    replied = find_weights(run, file, chosen, command.any_model)
    gradient = command.method == "gradient"
    epochs = choose_epochs(run, replied, command.epochs) if gradient else []
    for weights in (replied, *epochs):
        fetch(weights.folder)
    training = load_rows(run)
    usable, encoded = encode_replies(chosen, training.tokenizer, replied.folder)
    return Job(command, run, replied, epochs, training, usable, encoded)
