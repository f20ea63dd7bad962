"""The terminal talk, with a real model."""

import signal
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


def test_ctrl_c_ends_without_a_traceback() -> None:
    command = [sys.executable, "-u", "-m", "lima_ray.chat", BASE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as talking:
        assert talking.stdout
        assert talking.stdout.read(5) == "you: "
        talking.send_signal(signal.SIGINT)
        _, errors = talking.communicate(timeout=60)
    assert talking.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
