"""Prompts of long dialogues."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lima_ray.data.tokenizer import load_tokenizer
from serve.api import prompts


def test_counting_a_long_dialogue_changes_nothing_for_others(brief_dir: Path) -> None:
    tokenizer = load_tokenizer(str(brief_dir))
    marker = tokenizer.eos_token
    engine: Any = SimpleNamespace(tokenizer=tokenizer)
    turns = [f"one two {marker}"] * (prompts.LARGE_DIALOGUE + 9)
    assert prompts.most_turns(engine, turns, 10_000, threading.Event()) == len(turns)
    assert prompts.most_turns(engine, turns, 20, threading.Event()) < len(turns)
    state = tokenizer.backend_tokenizer.encode_special_tokens
    assert state is False, "a prompt that is made meanwhile would lose its control tokens"
