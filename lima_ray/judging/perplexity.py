"""Perplexity of held-out dialogues, which does not track quality (LIMA appendix B)."""

import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from lima_ray.config.recipe import Recipe
from lima_ray.data import packing
from lima_ray.judging import preflight
from lima_ray.model.loss import forward_packed, load_packed


def perplexity(model: Path, recipe: Recipe) -> float:
    losses_B, tokens_B = dialogue_losses(model, recipe, packed=True)
    return math.exp(losses_B.sum() / tokens_B.sum())


def dialogue_losses(
    model: Path, recipe: Recipe, packed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed loss of the held-out dialogues' supervised tokens, and how many these are.

    Losses are in nats; packed, both are of each micro-batch, which is faster, not of each dialogue.
    """
    assert recipe.data.heldout
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    rows = preflight.encode_heldout(recipe, tokenizer)
    weights, _ = load_packed(model, "auto" if torch.cuda.is_available() else torch.float32)
    batches = [(row,) for row in range(len(rows))]
    if packed:
        budget = recipe.token_budget
        (batches,) = packing.pack(np.arange(len(rows)), rows.lengths_R, 1, budget).ranks
    with torch.inference_mode():
        losses = [float(forward_packed(weights, batch, rows)[0]) for batch in batches]
    tokens = [int(rows.supervised_R[list(batch)].sum()) for batch in batches]
    return np.array(losses), np.array(tokens)
