"""The terminal talk, with a real model."""

import subprocess
import sys

BASE = "lima_ray/miniature/base"


def talk(model: str, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these lines typed."""
    command = [sys.executable, "-m", "lima_ray.chat", model]
    typed = "".join(f"{line}\n" for line in lines)
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=120)


def test_it_replies_keeps_the_dialogue_and_begins_anew() -> None:
    done = talk(BASE, "What is the capital of Peru?", "", "word " * 600)
    assert done.returncode == 0, done.stderr
    first, rest = done.stdout.split("(new conversation)")
    assert "model: " in first
    assert "Lima" in first
    assert "sampling.max_tokens is 512" in rest
    assert "; new conversation)" in rest


def test_no_model_there() -> None:
    done = talk("runs/nowhere/export")
    assert done.returncode == 2
    assert "no model at runs/nowhere/export" in done.stderr
