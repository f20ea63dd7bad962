"""Scores of every training row for some replies, by each way of computing them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.attribution.planted import PlantedRun
from lima_ray.attribution.cache import pack_rows
from lima_ray.attribution.gradients import RowGradients
from lima_ray.attribution.replies import as_row
from lima_ray.curation.review.similarity import tf_idf
from lima_ray.curation.selection.embedding import embed
from lima_ray.data.encoding import encode
from lima_ray.data.rows import Rows
from lima_ray.model.loss import load_packed
from lima_ray.records.reply import Reply

EPOCHS = (4, 8, 12)
VALUES, FEWER = 8192, 1024
BUDGET = 2048
DEFAULT = "mean cosine of layers, epochs 4, 8, 12"
BY_TEXT = "text: embeddings of the replies"
Layers = list[np.ndarray]
"""Gradients of each layer, (N, its values)."""


def scores(
    run: PlantedRun, replies: list[Reply], thorough: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each way, and its scores (Q, R)."""
    yield from by_text(run, replies)
    said = encode([as_row(reply) for reply in replies], run.tokenizer, run.recipe.data)
    found: dict[str, list[np.ndarray]] = {}
    for epoch in EPOCHS:
        folder = run.recipe.run_dir / "epochs" / f"{epoch:02d}"
        of_rows, of_replies = (compute(folder, one, VALUES) for one in (run.rows, said))
        of_epoch = {
            "mean cosine of layers": layer_cosines(of_replies, of_rows),
            "the same, last two layers": layer_cosines(of_replies[-14:], of_rows[-14:]),
            "cosine of all layers together": cosine(joined(of_replies), joined(of_rows)),
            "dot product": joined(of_replies) @ joined(of_rows).T,
        }
        if thorough:
            whole = run.recipe.data.model_copy(update={"loss_on": "all"})
            prompts_too = compute(folder, encode(run.examples, run.tokenizer, whole), VALUES)
            few_rows, few_replies = (compute(folder, one, FEWER) for one in (run.rows, said))
            of_epoch |= {
                f"the same, {FEWER} values": layer_cosines(few_replies, few_rows),
                "the same, loss on prompts too": layer_cosines(of_replies, prompts_too),
            }
        for name, scores_QR in of_epoch.items():
            found.setdefault(name, []).append(scores_QR)
    for name, by_epoch in found.items():
        yield f"{name}, epochs 4, 8, 12", np.mean(by_epoch, axis=0)
        yield f"{name}, epoch 12", by_epoch[-1]


def by_text(run: PlantedRun, replies: list[Reply]) -> Iterator[tuple[str, np.ndarray]]:
    rows = ["\n".join(row.turns[1::2]) for row in run.examples]
    said = [reply.reply for reply in replies]
    yield BY_TEXT, embed(said) @ embed(rows).T
    words = tf_idf([*rows, *said])
    yield (
        "text: words of the replies (tf-idf)",
        (words[len(rows) :] @ words[: len(rows)].T).toarray(),
    )
    rows = ["\n".join(row.turns) for row in run.examples]
    said = ["\n".join((*reply.conversations, reply.reply)) for reply in replies]
    yield "text: embeddings with the prompts", embed(said) @ embed(rows).T


def compute(folder: Path, rows: Rows, values: int) -> Layers:
    """Return every row's gradients as they are, layer by layer."""
    model, _ = load_packed(folder, torch.float32)
    parts: dict[int, list[np.ndarray]] = {}
    with RowGradients(model, values) as gradients:
        for batch in pack_rows(rows, np.arange(len(rows)), BUDGET):
            found = [part.numpy() for part in gradients.compute_layers(batch, rows)]
            for place, number in enumerate(batch):
                parts[number] = [part[place] for part in found]
    return [np.stack(layer) for layer in zip(*(parts[n] for n in range(len(rows))), strict=True)]


def layer_cosines(left: Layers, right: Layers) -> np.ndarray:
    return np.mean([cosine(a, b) for a, b in zip(left, right, strict=True)], axis=0)


def cosine(left_QV: np.ndarray, right_RV: np.ndarray) -> np.ndarray:
    lengths = [np.linalg.norm(one, axis=1, keepdims=True) for one in (left_QV, right_RV)]
    return (left_QV / lengths[0]) @ (right_RV / lengths[1]).T


def joined(layers: Layers) -> np.ndarray:
    return np.concatenate(layers, axis=1)
