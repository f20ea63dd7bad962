"""The terminal talk, with a real model."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from served import Hosted

from lima_ray.data.examples import read_examples

BASE = "lima_ray/miniature/base"


def run_chat(
    model: str, *lines: str, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lima_ray.chat", model, *flags]
    typed = "".join(f"{line}\n" for line in lines)
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=120)


def test_it_replies_keeps_the_dialogue_and_begins_anew() -> None:
    done = run_chat(BASE, "What is the capital of Peru?", "", "word " * 600)
    assert done.returncode == 0, done.stderr
    first, rest = done.stdout.split("(new conversation)")
    assert "model: " in first
    assert "Lima" in first
    assert "the model's context is 512" in rest
    assert "/new begins a new conversation)" in rest


def test_a_server_is_talked_to_and_the_dialogue_saved(host: Hosted, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = ("the cat", "/retry", "the sun", "/undo", "the river", f"/save {rows}", "/help")
    flags = ("--name", "brief", "--system", "Be kind.", "--seed", "3")
    done = run_chat(f"{host.url}/v1", *lines, flags=flags)
    assert done.returncode == 0, done.stderr
    (row,) = read_examples(str(rows))
    assert row.system == "Be kind."
    assert [row.turns[0], row.turns[2]] == ["the cat", "the river"]
    assert len(row.turns) == 4
    assert done.stdout.count("model: ") == 4
    assert "1 exchanges left" in done.stdout


def test_what_is_wrong_with_a_server_is_reported(host: Hosted) -> None:
    done = run_chat(f"{host.url}/v1", flags=("--name", "nobody"))
    assert done.returncode == 2
    assert "has no model 'nobody'; it has talker, brief, long" in done.stderr
    done = run_chat("http://127.0.0.1:9/v1")
    assert done.returncode == 2
    assert "no server at http://127.0.0.1:9/v1" in done.stderr
    flags = ("--sampling.penalise_prompt", "--system", "word " * 9000, "--name", "long")
    done = run_chat(f"{host.url}/v1", "the cat", flags=flags)
    assert "(400 context_length_exceeded the prompt has" in done.stdout


def test_no_model_there() -> None:
    done = run_chat("runs/nowhere/export")
    assert done.returncode == 2
    assert "no model at runs/nowhere/export" in done.stderr


def test_ctrl_c_ends_without_a_traceback() -> None:
    command = [sys.executable, "-u", "-m", "lima_ray.chat", BASE]
    # Programs started in a shell's background ignore the signal, and their children too.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds
    ) as talking:
        assert talking.stdout
        assert talking.stdout.read(5) == "you: "
        talking.send_signal(signal.SIGINT)
        _, errors = talking.communicate(timeout=60)
    assert talking.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
