"""Pretrain the miniature's base: a Llama of 3M parameters that knows the world, and nothing else.

    python -m lima_ray.miniature.pretrain --out bases/miniature

Trains the tokenizer and the model on `prose.documents`, one pass over text that never repeats, in
plain PyTorch on the CPU's cores. The base that ships in `lima_ray/miniature/base` was made so.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM
from transformers.utils import logging

from lima_ray.base import llama_config, train_tokenizer
from lima_ray.config.errors import exit_on_user_error
from lima_ray.data.rows import Rows
from lima_ray.miniature.prose import documents
from lima_ray.model import attention, cpu_layers
from lima_ray.model.loss import forward_packed
from lima_ray.records.files import make_readable

CONTEXT = 512
WINDOW = 256
"""Tokens of one training row."""
TOKENIZER_DOCUMENTS = 6000
WARMUP = 0.02
"""Share of the steps in which the learning rate rises."""
LOG_EVERY = 100


def pretrain(
    out: Path,
    tokens: int = 6_500_000,
    hidden: int = 192,
    layers: int = 6,
    heads: int = 3,
    vocab: int = 2048,
    batch_tokens: int = 2048,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train from nothing and save as a Hugging Face model in bf16.

    Args:
        out: directory to write.
        tokens: training tokens.
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: attention heads.
        vocab: vocabulary.
        batch_tokens: tokens of a step, a multiple of 256.
        learning_rate: AdamW's highest; it ends at a twentieth.
        seed: seed of text and weights.
    """
    attention.register()
    tokenizer: Any = train_tokenizer(
        islice(documents(seed + 1), TOKENIZER_DOCUMENTS), vocab, CONTEXT
    )
    config = llama_config(tokenizer, hidden, layers, heads, tie_word_embeddings=True)
    config._attn_implementation = attention.PACKED
    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(config)
    cpu_layers.install(model)
    if cpu_layers.multiplies_bf16():
        cpu_layers.multiply_in_bf16(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    console = Console(highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    recent: deque[float] = deque(maxlen=LOG_EVERY)
    source, seen, started = batches(tokenizer, batch_tokens, seed), 0, time.perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("pretraining", total=tokens)
        for step in count(1):
            rows = next(source)
            optimizer.param_groups[0]["lr"] = learning_rate * rate_scale(seen / tokens)
            loss_sum, _ = forward_packed(model, tuple(range(len(rows))), rows)
            loss = loss_sum / int(rows.mask_N.sum())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recent.append(loss.item())
            seen += len(rows.ids_N)
            speed = seen / (time.perf_counter() - started)
            line = f"step {step} loss {np.mean(recent):.3f} {speed:,.0f} tok/s"
            bar.update(task, completed=seen, description=line)
            if not console.is_terminal and step % LOG_EVERY == 0:
                print(f"{line} {seen / tokens:.0%}", flush=True)
            if seen >= tokens:
                break
    logging.disable_progress_bar()
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    make_readable(*out.iterdir())
    minutes = (time.perf_counter() - started) / 60
    print(f"{out}: {seen:,} tokens in {minutes:.1f} min, last loss {np.mean(recent):.3f}")


def batches(tokenizer: Any, batch_tokens: int, seed: int) -> Iterator[Rows]:
    """Yield batches of windows, each of whole documents but the last, which is cut.

    A window begins with a document, as a prompt does, and all are equally long, since each new
    shape of a bf16 product is compiled first.
    """
    source, windows = documents(seed), batch_tokens // WINDOW
    starts = np.arange(windows + 1) * WINDOW
    learned = np.ones(windows * WINDOW, dtype=bool)
    learned[starts[:-1]] = False  # nothing predicts a window's first token
    while True:
        ids = np.empty((windows, WINDOW), dtype=np.int32)
        for window in ids:
            filled: list[int] = []
            while len(filled) < WINDOW:
                filled += [*tokenizer(next(source)).input_ids, tokenizer.eos_token_id]
            window[:] = filled[:WINDOW]
        yield Rows(ids.reshape(-1), learned, starts, np.zeros(windows, dtype=bool))


def rate_scale(done: float) -> float:
    """Return the learning rate's factor: it rises over `WARMUP`, then falls to 1/20."""
    if done < WARMUP:
        return (done + 1e-4) / WARMUP
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))


if __name__ == "__main__":
    with exit_on_user_error():
        tyro.cli(
            pretrain,
            prog="python -m lima_ray.miniature.pretrain",
            description=__doc__,
            use_underscores=True,
        )
