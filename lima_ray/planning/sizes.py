"""Sizes that a plan follows from: of a model without its weights, of rows without their tokens.

A model's are read from its `config.json`, or known by its name on the hub. Rows are encoded where
data and base are at hand; else their lengths are LIMA's, or as told.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Model
from lima_ray.data import training_data
from lima_ray.data.packing import Step
from lima_ray.data.rows import Rows
from lima_ray.model.attention import head_width
from lima_ray.model.families import find_family, load_config
from lima_ray.model.lora import add_lora
from lima_ray.results.published.lima import draw_lengths
from lima_ray.training.schedule import plan_epoch

LLAMA = {"vocab_size": 32000, "max_position_embeddings": 2048}
LLAMA_7B = LLAMA | {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
LLAMA3_8B = LLAMA_7B | {
    "vocab_size": 128256,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
KNOWN: dict[str, dict[str, int]] = {
    "huggyllama/llama-7b": LLAMA_7B,
    "huggyllama/llama-13b": LLAMA
    | {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "huggyllama/llama-30b": LLAMA
    | {
        "hidden_size": 6656,
        "intermediate_size": 17920,
        "num_hidden_layers": 60,
        "num_attention_heads": 52,
    },
    "huggyllama/llama-65b": LLAMA
    | {
        "hidden_size": 8192,
        "intermediate_size": 22016,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "meta-llama/Meta-Llama-3-8B": LLAMA3_8B,
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
"""What the shipped recipes train, by its name on the hub: fields of its `config.json`."""
LIMA = "GAIR/lima"
PACKED_EPOCHS, MANY = 3, 10_000
"""Epochs whose micro-batches are looked at for the largest; one of so many rows."""


@dataclass(frozen=True)
class ModelShape:
    """Elements of a model's weights, and the widths that its activations have."""

    config: Any
    """A configuration of `transformers`."""
    parameters: int
    trained: int
    """All of them, or LoRA's and the embeddings'."""
    largest: int
    """Of one trained weight."""
    matrices: int
    """Of weights that tokens are multiplied with: all but the norms' and the embedding."""
    lora: int
    """LoRA's own."""
    lora_outputs: int
    """Elements that LoRA's down-projections give for a token, over all layers."""

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def hidden(self) -> int:
        return self.config.hidden_size

    @property
    def query(self) -> int:
        """Width of all queries together."""
        return self.config.num_attention_heads * head_width(self.config)

    @property
    def key(self) -> int:
        """Width of all keys together, and of all values."""
        heads = getattr(self.config, "num_key_value_heads", None)
        return (heads or self.config.num_attention_heads) * head_width(self.config)

    @property
    def mlp(self) -> int:
        """Width of the MLP that a token goes through: of its experts together, where it has any."""
        chosen = getattr(self.config, "num_experts_per_tok", None)
        if not chosen:
            return self.config.intermediate_size
        each = getattr(self.config, "moe_intermediate_size", None) or self.config.intermediate_size
        shared = getattr(self.config, "shared_expert_intermediate_size", None)
        shared = shared or each * (getattr(self.config, "n_shared_experts", None) or 0)
        return chosen * each + shared


def read_shape(recipe: Recipe) -> ModelShape:
    """Return the sizes of a recipe's model; refuse a base whose configuration is not at hand."""
    return shape_of(base_config(recipe.model.base), recipe.model.lora_rank)


def base_config(base: str) -> Any:
    """Return a base's configuration; of the shipped recipes' bases without asking the hub."""
    if resolve(base) is None and base in KNOWN:
        return LlamaConfig(**{"tie_word_embeddings": False} | KNOWN[base])  # pyright: ignore
    try:
        config = load_config(base)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the shape of the base {base} is not known: no such directory, and the hub does not "
            f"give its config.json. Fetch it (hf download {base} config.json), or name a directory "
            f"that holds one as --model.base. Known without it: {', '.join(KNOWN)}"
        ) from error
    find_family(config)
    return config


def shape_of(config: Any, lora_rank: int = 0) -> ModelShape:
    """Count a model's weights as `load_model` prepares it, on no device at all."""
    with torch.device("meta"):
        loader: Any = AutoModelForCausalLM
        plain = loader.from_config(config, trust_remote_code=False)
        model = add_lora(plain, Model(lora_rank=lora_rank)) if lora_rank else plain
    weights = dict(model.named_parameters())
    trained = {name: w for name, w in weights.items() if w.requires_grad}
    lora = {name: w for name, w in weights.items() if ".lora_" in name}
    return ModelShape(
        config=config,
        parameters=count(weights),
        trained=count(trained),
        largest=max(w.numel() for w in trained.values()),
        matrices=sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)),
        lora=count(lora),
        lora_outputs=sum(w.shape[0] for name, w in lora.items() if ".lora_A." in name),
    )


def count(weights: dict[str, torch.Tensor]) -> int:
    return sum(weight.numel() for weight in weights.values())


@dataclass(frozen=True)
class Load:
    """The largest micro-batch of a worker."""

    tokens: int
    supervised: int
    """Positions that reach the vocabulary's matrix."""
    several: bool = True
    """Whether a step has more than one micro-batch, so that gradients wait for the next."""


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row, and those of them that are supervised."""

    lengths_R: np.ndarray
    supervised_R: np.ndarray
    source: str
    """Where they are from, for people."""
    loads: dict[tuple[int, ...], Load] = field(default_factory=dict)
    """The largest micro-batches that were found, by what decides them."""

    def __len__(self) -> int:
        return len(self.lengths_R)


def find_lengths(recipe: Recipe, rows: int | None, tokens: int | None) -> RowLengths | None:
    """Return the lengths of a recipe's rows; none where neither data nor counts are at hand.

    Args:
        rows: training rows, where the data is not read.
        tokens: their mean tokens.
    """
    if rows is None and tokens is None:
        if resolve(recipe.data.train) and resolve(recipe.model.base):
            encoded = training_data.load(recipe)[2]
            return RowLengths(encoded.lengths_R, encoded.supervised_R, recipe.data.train)
        if recipe.data.train == LIMA:
            return cut(*draw_lengths(), recipe, "drawn from the means of the paper's Table 1")
    if rows is None or tokens is None:
        return None
    prompts_R, replies_R = (x[: rows + 1] for x in draw_lengths())
    told = np.resize(prompts_R + replies_R, rows) * (tokens / (prompts_R + replies_R).mean())
    share = np.resize(replies_R / (prompts_R + replies_R), rows)
    lengths_R = np.maximum(2, told).astype(np.int64)
    replies_R = np.clip(lengths_R * share, 1, lengths_R - 1).astype(np.int64)
    return cut(lengths_R - replies_R, replies_R, recipe, f"{rows:,} rows of {tokens:,} tokens")


def cut(prompts_R: np.ndarray, replies_R: np.ndarray, recipe: Recipe, source: str) -> RowLengths:
    """Cut rows at `data.max_tokens`, as encoding does."""
    lengths_R = np.minimum(prompts_R + replies_R, recipe.data.max_tokens)
    learned_R = np.minimum(replies_R, np.maximum(1, lengths_R - prompts_R))
    if recipe.data.loss_on == "all":
        learned_R = lengths_R - 1
    return RowLengths(lengths_R, learned_R, source)


def largest_load(recipe: Recipe, rows: RowLengths | None, workers: int) -> Load:
    """Return the largest micro-batch of a training; a full one where rows are not known."""
    if rows is None:
        return Load(recipe.token_budget, recipe.token_budget)
    batch, epochs = recipe.optim.batch_examples, min(PACKED_EPOCHS, recipe.optim.epochs)
    decides = (recipe.token_budget, workers, batch, epochs, recipe.seed)
    if decides not in rows.loads:
        steps = [
            step
            for epoch in range(epochs if len(rows) < MANY else 1)
            for step in plan_epoch(recipe, rows, epoch, workers)
        ]
        rows.loads[decides] = load_of_steps(steps, rows)
    return rows.loads[decides]


def load_of_steps(steps: list[Step], rows: RowLengths | Rows, rank: int | None = None) -> Load:
    """Return the largest micro-batch of some steps, of one worker or of all."""
    own = [s.ranks if rank is None else [s.ranks[rank]] for s in steps]
    batches = [list(batch) for ranks in own for rank in ranks for batch in rank]
    return Load(
        tokens=max(int(rows.lengths_R[batch].sum()) for batch in batches),
        supervised=max(int(rows.supervised_R[batch].sum()) for batch in batches),
        several=any(len(step.ranks[0]) > 1 for step in steps),
    )
