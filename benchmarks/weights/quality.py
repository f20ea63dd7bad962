"""What a format of the weights costs: perplexity, and the grades of the miniature's exact judge."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lima_ray.config.loading import load_recipe
from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu.weights import HeldWeights, held
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate
from lima_ray.judging.perplexity import perplexity
from lima_ray.miniature.judge import judge

ROWS = "lima_ray/miniature/rows"


def rounded_perplexity(model: Path, held_as: WeightFormat, heldout: str) -> float:
    """Return the perplexity of a copy whose weights have the values of a format."""
    recipe = load_recipe("miniature").override({"data.heldout": heldout, "data.max_tokens": 2048})
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, trust_remote_code=False
    )
    table, head = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    if table.weight is head.weight:  # the head has a copy of its own in an engine
        head.weight = nn.Parameter(table.weight.detach().clone())
        loaded.config.tie_word_embeddings = False
    for layer in loaded.modules():
        if type(layer) is nn.Linear:
            layer.weight.data = HeldWeights.of(layer.weight.data, held_as).widened()
    table.weight.data = held(table.weight.data, held_as).float()
    with tempfile.TemporaryDirectory() as folder:
        loaded.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model, trust_remote_code=False).save_pretrained(folder)
        del loaded, table, head
        return perplexity(Path(folder), recipe)


def shares(model: Path, held_as: WeightFormat) -> str:
    """Return how the miniature's exact judge finds the replies to its test prompts."""
    with tempfile.TemporaryDirectory() as folder:
        job = GenerationJob(
            model=str(model),
            prompts=f"{ROWS}/test.jsonl",
            out=Path(folder),
            sampling=load_recipe("miniature").sampling,
            weights=held_as,
        )
        verdicts = judge(generate(job, in_process=True))
    good = sum(verdict.verdict != "fail" for verdict in verdicts)
    best = sum(verdict.verdict == "excellent" for verdict in verdicts)
    right = sum(bool(verdict.extra["right"]) for verdict in verdicts)
    return f"excellent {best}, acceptable {good}, right {right} of {len(verdicts)} replies"
