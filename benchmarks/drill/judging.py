"""A fault of judging: an actor that asks a paid judge is killed with its questions on their way."""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.drill.nodes import local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect, wait_until
from benchmarks.local_servers.chat_server import serving
from benchmarks.local_servers.judge_server import JudgeServer
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


def larger(a: str, b: str) -> str:
    """Prefer the answer with the larger number."""
    numbers = [int(said.rsplit(" ", 1)[1]) for said in (a, b)]
    return "A" if numbers[0] > numbers[1] else "B"


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

    with (
        serving(JudgeServer(decide=larger, seconds=ANSWER_S)) as judge,
        local_cluster() as cluster,
        log.open("wb") as out,
    ):
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
