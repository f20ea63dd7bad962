"""Generate replies to prompts, with a model on the Ray cluster or behind an endpoint.

    python -m lima_ray.generate runs/NAME data/test.jsonl --out replies/NAME
    python -m lima_ray.generate MODEL data/test.jsonl --out replies/MODEL --endpoint URL

MODEL is the directory of a run or of an export, decoded over the Ray cluster, or with --endpoint
the name of a model behind any OpenAI-compatible server. Of each row everything up to the last user
turn is the prompt; a row with `follow_ups` is a scripted dialogue, asked turn after turn with the
model's own replies between. Every reply is written as it arrives, with a seed that depends on the
row, sample and turn alone; the same command goes on where a killed one stopped and asks nothing
twice. What an endpoint never answered stands in failed.jsonl and is asked again next time.

In a local dialogue that has outgrown the context, the turns left get an empty reply of 0 tokens
that did not stop: the model has no room to answer.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run

    sys.exit(run("generate"))

import hashlib
import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.config.paths import durable, resolve
from lima_ray.data.prompts import read_prompts
from lima_ray.generation.endpoint import Client, ask, check_url
from lima_ray.generation.job import Generation, ReplyDirectory, Script
from lima_ray.generation.local import decode_here, decode_on_cluster
from lima_ray.records.example import Example
from lima_ray.records.lineage import check_base, hash_base
from lima_ray.records.reply import Reply
from lima_ray.records.run import name_of

RECENT_REPLIES = 200


def generate(job: Generation, in_process: bool = False) -> list[Reply]:
    """Reply to every prompt, or go on where an earlier call stopped.

    Args:
        job: who replies to what.
        in_process: decode in this process instead of over the Ray cluster, for callers that are
            workers themselves. An endpoint is always asked from this process.

    Returns:
        all replies of `job.out`, in the order of rows, samples and turns.

    Raises:
        UserError: bad input, prompts without room for a reply (they are named), a directory of
            other replies, an endpoint that refuses; or some replies failed for good. What was
            answered is kept in any case.
    """
    if job.server.url:
        check_url(job.server.url)
    rows = read_prompts(job.prompts, job.split)
    order = [(row, sample) for sample in range(job.samples) for row in rows]
    scripts = {(row.id, sample): Script(row, sample) for row, sample in order}
    path = None if job.server.url else model_dir(job.model)
    job = job.model_copy(update={"name": job.name or (name_of(path) if path else job.model)})
    with ReplyDirectory(durable(job.out)) as replies:
        replies.claim(identity(job, path, rows))
        for record in replies.records:
            scripts[record.id, record.sample].replies.append(record.reply)
        todo = [script for script in scripts.values() if not script.finished]
        if todo:
            with Meter(sum(s.turns for s in scripts.values()), len(replies.records)) as meter:
                if path is None:
                    ask_endpoint(job, todo, replies, meter)
                else:
                    decode = decode_here if in_process else decode_on_cluster
                    for record in decode(job, path, todo):
                        replies.add(record)
                        meter.add(record)
        print(replies.summary(), flush=True)
        if replies.failures:
            raise UserError(
                f"{replies.failures} of {len(scripts)} prompts got no reply (every sample "
                f"counts); {replies.failed_file} says why, and the same command asks them again"
            )
        place = {row.id: number for number, row in enumerate(rows)}
        replies.sort(lambda r: (place[r.id], r.sample, r.turn))
        return replies.records


def model_dir(reference: str) -> Path:
    """The directory of a run's export, or of any Hugging Face model.

    Raises:
        UserError: there is none.
    """
    path = resolve(reference)
    if path is None:
        raise UserError(
            f"no model at {reference}: it is no directory; the name of a model behind a server "
            "needs --endpoint URL"
        )
    if (path / "recipe.yaml").exists():
        path = path / "export"
        if not path.exists():
            raise UserError(f"{reference} has no export yet; training has not ended")
    check_base(str(path))
    return path


def identity(job: Generation, path: Path | None, rows: list[Example]) -> dict[str, Any]:
    """What decides the replies; a directory holds those of one identity."""
    digest = hashlib.sha256("\n".join(row.to_line() for row in rows).encode()).hexdigest()
    decided = {"model": job.name, "prompts_hash": digest[:12], "samples": job.samples}
    decided |= {"sampling": job.sampling.model_dump()}
    if path:
        return decided | {"model_hash": hash_base(str(path))}
    asked = {"url": job.server.url, "model": job.model, "extra": job.server.extra}
    return decided | {"endpoint": asked}


def ask_endpoint(
    job: Generation, scripts: list[Script], replies: ReplyDirectory, meter: "Meter"
) -> None:
    """Have a model behind an endpoint reply."""
    if job.sampling.repetition_penalty != 1 and not job.server.extra:
        print(
            f"sampling.repetition_penalty {job.sampling.repetition_penalty} is not sent: OpenAI's "
            "API has none. --endpoint_extra sends it to servers that know it"
        )

    async def talk(client: Client, script: Script) -> None:
        while not script.finished:
            messages = replace(script.row, turns=script.dialogue).messages()
            try:
                answer = await client.chat(messages, script.seeded(job.sampling))
            except UserError as error:
                raise UserError(f"{error}\n  it was asked for row {script.row.id}") from error
            record = script.heard(
                job.name, job.sampling, answer.text, answer.stopped, answer.n_tokens
            )
            replies.add(record)
            meter.add(record)

    ask(job.server, job.model, scripts, talk, replies.add_failure)


class Meter(AbstractContextManager["Meter"]):
    """What is shown while replies come."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.done = total, before
        self.display = ProgressDisplay(total, numbers="loading", completed=before)
        self.recent: deque[tuple[float, int, bool]] = deque(maxlen=RECENT_REPLIES)

    def __enter__(self) -> "Meter":
        self.display.__enter__()
        self.display.log(f"{self.total - self.done} replies to make", at_once=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self.display.__exit__(*raised)

    def add(self, record: Reply) -> None:
        """Count a reply and show the counts."""
        self.done += 1
        self.recent.append((time.monotonic(), record.n_tokens or 0, record.stopped))
        line = self.line()
        self.display.update(self.done, numbers=line)
        self.display.log(line)

    def line(self) -> str:
        """Replies of all, then of the recent ones: speed, share that stopped, and time left."""
        times, tokens, stopped = zip(*self.recent, strict=True)
        line = f"{self.done}/{self.total} replies {sum(stopped) / len(stopped):.0%} stopped"
        seconds = times[-1] - times[0]
        if not seconds:
            return line
        speed = (len(times) - 1) / seconds
        left = int((self.total - self.done) / speed)
        return (
            f"{line} {speed:,.1f}/s {sum(tokens[1:]) / seconds:,.0f} tok/s "
            f"ETA {left // 60}:{left % 60:02d}"
        )


def main(job: Generation) -> None:
    """`python -m lima_ray.generate MODEL PROMPTS`."""
    generate(job)
