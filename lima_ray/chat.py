"""A quick talk with an exported model in the terminal.

    python -m lima_ray.chat runs/NAME/export

An empty line starts a new conversation; Ctrl-D ends. Decoding is the export's own: the paper's
(LIMA section 4) unless its generation_config.json was changed.
"""

from pathlib import Path
from typing import Any

import tyro

from lima_ray.errors import UserError, plain_errors


def chat(model: tyro.conf.Positional[Path], seed: int = 0) -> None:
    """Read turns from the terminal and stream replies until the input ends.

    Args:
        model: directory of an exported model.
        seed: seed of the sampling.

    Raises:
        UserError: no model there.
    """
    if not (model / "config.json").is_file():
        raise UserError(f"no model at {model}; `make demo` leaves one in runs/miniature/export")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader: Any = AutoModelForCausalLM
    weights = loader.from_pretrained(model).to(device)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    dialogue: list[dict[str, str]] = []
    while True:
        try:
            turn = input("you: ")
        except EOFError:
            return
        if not turn.strip():
            dialogue = []
            print("(new conversation)")
            continue
        dialogue.append({"role": "user", "content": turn})
        ids = tokenizer.apply_chat_template(dialogue, return_tensors="pt")["input_ids"].to(device)
        if ids.shape[1] >= weights.config.max_position_embeddings:
            print("(the context is full: new conversation)")
            dialogue = []
            continue
        print("model: ", end="", flush=True)
        limit = weights.config.max_position_embeddings
        out = weights.generate(ids, max_length=limit, streamer=streamer)
        reply = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        dialogue.append({"role": "assistant", "content": reply})


if __name__ == "__main__":
    with plain_errors():
        tyro.cli(chat, prog="python -m lima_ray.chat", description=__doc__)
