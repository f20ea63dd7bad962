"""A fault of judging: an actor that asks a paid judge is killed with its questions on their way."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.drill.nodes import HOST, local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect, wait_until
from benchmarks.servers import ROOT
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import read_verdicts

PROMPTS = 40
QUESTIONS = 2 * PROMPTS
"""Each pair is judged in both orders."""
CONCURRENCY = 4
ANSWER_S = 0.4
FAULT_AFTER = 12
"""Verdicts written when the fault comes."""


class PaidJudge(ThreadingHTTPServer):
    """An OpenAI endpoint that prefers the larger number, and counts what it has answered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), AnswerHandler)
        self.answered: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/v1"


class AnswerHandler(BaseHTTPRequestHandler):
    server: PaidJudge  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        """Answer after a while, as a model that reasons does."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        time.sleep(ANSWER_S)
        with self.server.lock:
            self.server.answered[prompt] += 1
        numbers = [int(n) for n in re.findall(r"the answer is (\d+)", prompt)][-2:]
        said = f"One number is larger.\n{'A' if numbers[0] > numbers[1] else 'B'}"
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 8}
        self.respond({"model": "paid", "choices": [choice], "usage": usage})

    def do_GET(self) -> None:
        self.respond({"data": [{"id": "paid"}]})

    def respond(self, answer: dict[str, object]) -> None:
        content = json.dumps(answer).encode()
        with suppress(OSError):  # who asked may be dead
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def paid_judge() -> Iterator[PaidJudge]:
    judge = PaidJudge()
    thread = threading.Thread(target=judge.serve_forever, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        judge.shutdown()
        judge.server_close()


def write_replies(folder: Path, model: str, number: int) -> str:
    said = f"the answer is {number}"
    rows = [Reply(f"p{n}", (f"How many, {n}?",), model, 0, 0, said, True) for n in range(PROMPTS)]
    (folder / model).mkdir(parents=True, exist_ok=True)
    write_jsonl([row.to_json() for row in rows], folder / model / "replies.jsonl")
    return f"{model}={folder / model}"


def kill_judging_actor(folder: Path) -> Outcome:
    models = [write_replies(folder, "ours", 2), write_replies(folder, "theirs", 0)]
    file, log = folder / "judged" / "verdicts.jsonl", folder / "judge.log"

    def written() -> int:
        return file.read_bytes().count(b"\n") if file.exists() else 0

    with paid_judge() as judge, local_cluster() as cluster, log.open("wb") as out:
        nodes = cluster.add_nodes(2)
        asked = f"paid@{judge.url},concurrency={CONCURRENCY}"
        command = [sys.executable, "-m", "lima_ray.judge", *models, "--judges", asked]
        command += ["--workers", "2", "--out", str(file.parent)]
        running = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | cluster.environment, stdout=out, stderr=out
        )
        try:
            wait_until(lambda: written() >= FAULT_AFTER, 240, "verdicts of a judge")
            victim = next(
                one
                for node in (*nodes, cluster.head)
                for one in node.processes()
                if "AskingWorker" in " ".join(one.cmdline())
            )
            before, fault_s = written(), time.monotonic()
            victim.kill()
            wait_until(lambda: written() > before, 240, "verdicts after the fault")
            seconds = time.monotonic() - fault_s
            expect(running.wait(300) == 0, f"judging failed: {log.read_text()[-1500:]}")
        finally:
            running.kill()
            running.wait()
        twice = sum(judge.answered.values()) - len(judge.answered)
    found = read_verdicts(file)
    expect(len(found) == QUESTIONS, f"{len(found)} verdicts on {QUESTIONS} questions")
    expect(all(v.was_read for v in found), "a verdict was not read")
    winners = {v.models[v.order["AB".index(str(v.verdict))]] for v in found}
    expect(winners == {"ours"}, f"{winners} won, where ours was to win every time")
    expect(twice <= CONCURRENCY, f"{twice} questions were paid twice, more than were on their way")
    return Outcome(
        f"{twice} answers on their way, asked again",
        seconds,
        f"{len(found)} verdicts as without the fault",
    )


FAULTS = [Fault("judge", "SIGKILL of a judging actor", kill_judging_actor)]
