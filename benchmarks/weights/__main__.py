"""Formats of a model's weights on a CPU, side by side: speed, memory, and what quality they cost.

    python -m benchmarks.weights runs/NAME/export --heldout dialogues.jsonl [--grade]
    python -m benchmarks.weights DIR --llama_server llama-server --gguf DIR.Q4_1.gguf

The engine in each format, `generate` of `transformers` and llama.cpp (benchmarks/serve.py tells how
it is built) answer the same prompts in turn, round after round, greedy; medians are printed. Tokens
a CPU second count all threads, and tell more than tokens a second where others use the cores.
Perplexity is that of held-out dialogues (lima_ray/judging/perplexity.py) by a copy in fp32 that has
the values of the format, which are what the engine multiplies with. --grade has a model that was
aligned on the miniature's rows reply to its 300 test prompts, which its exact judge grades.
"""

from pathlib import Path

import torch
import tyro

from benchmarks.weights.quality import rounded_perplexity, shares
from benchmarks.weights.speed import speeds
from lima_ray.config.sections import WeightFormat


def main(
    model: tyro.conf.Positional[Path],
    formats: tuple[WeightFormat, ...] = ("fp32", "bf16", "int8"),
    at_once: tuple[int, ...] = (1, 10),
    rounds: int = 5,
    tokens: int = 64,
    heldout: str | None = None,
    grade: bool = False,
    llama_server: Path | None = None,
    gguf: tuple[Path, ...] = (),
) -> None:
    """Measure and print.

    Args:
        model: directory of a Llama.
        formats: ways to hold its weights.
        at_once: replies decoded together.
        rounds: rounds of speed; 0 leaves it out.
        tokens: of each reply.
        heldout: dialogues whose perplexity is told.
        grade: grade replies to the miniature's test prompts.
        llama_server: llama.cpp's server.
        gguf: files of the model for it.
    """
    if rounds:
        print(f"{torch.get_num_threads()} threads; tokens/s (tokens a CPU second)")
        for line in speeds(model, formats, at_once, rounds, tokens, llama_server, gguf):
            print(line, flush=True)
    for name in formats:
        if heldout:
            print(f"{name}: perplexity {rounded_perplexity(model, name, heldout):.4f}", flush=True)
        if grade:
            print(f"{name}: {shares(model, name)}", flush=True)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.weights", description=__doc__, use_underscores=True)
