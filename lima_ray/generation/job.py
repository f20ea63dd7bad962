"""What is asked of a model and what it replied: the job, its scripts, the directory of replies."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from lima_ray.config.differences import differences, flatten
from lima_ray.config.errors import SHOWN_ERRORS, UserError, listed
from lima_ray.config.sections import Sampling, Section
from lima_ray.generation.endpoint import Endpoint
from lima_ray.records.example import Example
from lima_ray.records.files import lock, write_json, write_jsonl
from lima_ray.records.journal import Journal
from lima_ray.records.reply import Reply

Key = tuple[str, int]
"""A row's id, and the number of the sample."""
ASKED = "generate.json"
"""What a directory of replies was asked."""


class Generation(Section):
    """Who replies to what, and where the replies go."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory of a run or an export; with --endpoint the name of a model there."""
    prompts: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS")]
    """Rows to reply to: a file (JSON, CSV, Parquet ...), a directory, or a dataset of the hub."""
    out: Path
    """Directory for replies.jsonl; the same directory goes on where an earlier command stopped."""
    split: str = "test"
    """Split of prompts that are a directory or a dataset of the hub."""
    name: str = ""
    """The model's name in the replies; empty takes the run's or the endpoint's."""
    samples: int = Field(default=1, ge=1)
    """Replies to each prompt; the paper takes 1, and 5 in its ablations."""
    sampling: Sampling = Sampling()
    workers: int = Field(default=0, ge=0)
    """Engines over the Ray cluster; 0 takes one for each GPU, or for each node without any."""
    cpus_per_worker: int | None = Field(default=None, ge=0)
    """CPU cores that a worker claims of Ray; none shares out the cluster's on CPU and takes 1 on
    GPU, 0 claims nothing and so starts beside a training that holds them all."""
    slots: int = Field(default=32, ge=1)
    """Replies that one engine decodes at once."""
    server: Annotated[Endpoint, tyro.conf.arg(name="")] = Endpoint()


@dataclass
class Script:
    """What one sample of one row asks, turn after turn, and the replies so far."""

    row: Example
    sample: int
    replies: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Row and sample."""
        return self.row.id, self.sample

    @property
    def prompt(self) -> tuple[str, ...]:
        """The row up to its last user turn; a reference reply after it is not shown."""
        return self.row.turns[: (len(self.row.turns) - 1) // 2 * 2 + 1]

    @property
    def follow_ups(self) -> list[str]:
        """What the user says after each reply but the last."""
        return self.row.extra.get("follow_ups", [])

    @property
    def turns(self) -> int:
        """Replies that the whole script asks for."""
        return 1 + len(self.follow_ups)

    @property
    def finished(self) -> bool:
        """Whether every turn has its reply."""
        return len(self.replies) >= self.turns

    @property
    def dialogue(self) -> tuple[str, ...]:
        """The turns to reply to next, the user's last."""
        return *self.prompt, *chain.from_iterable(zip(self.replies, self.follow_ups, strict=False))

    def seeded(self, sampling: Sampling) -> Sampling:
        """The sampling of the next turn, with a seed that depends on nothing but what it is."""
        name = json.dumps([sampling.seed, *self.key, len(self.replies)])
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1
        return sampling.model_copy(update={"seed": seed})

    def heard(
        self, model: str, sampling: Sampling, text: str, stopped: bool, n_tokens: int | None
    ) -> Reply:
        """Take the next turn's reply, and return its record."""
        taken = {*Reply.__dataclass_fields__, "follow_ups"}
        record = Reply(
            id=self.row.id,
            conversations=self.dialogue,
            model=model,
            sample=self.sample,
            turn=len(self.replies),
            reply=text,
            stopped=stopped,
            n_tokens=n_tokens,
            seed=self.seeded(sampling).seed,
            source=self.row.source,
            system=self.row.system,
            extra={k: v for k, v in self.row.extra.items() if k not in taken},
        )
        self.replies.append(text)
        return record


def check_room(
    scripts: Iterable[Script],
    prompt_ids: Callable[[Sequence[str], str | None], list[int]],
    context: int,
    sampling: Sampling,
) -> int:
    """Refuse prompts that leave no room for a reply.

    Args:
        scripts: what is asked.
        prompt_ids: token ids of a dialogue with a system message, as the model sees it.
        context: of the model, in tokens.
        sampling: its `max_tokens` bounds prompt and reply together.

    Returns:
        most tokens of prompt and reply together.

    Raises:
        UserError: the prompts that are too long.
    """
    limit = min(sampling.max_tokens, context)
    prompts = {s.row.id: (s.prompt, s.row.system) for s in scripts}
    lengths = {id: len(prompt_ids(*prompt)) for id, prompt in prompts.items()}
    long = [f"{id} ({n} tokens)" for id, n in lengths.items() if n >= limit]
    if long:
        raise UserError(
            f"{len(long)} of {len(prompts)} prompts leave no room for a reply: prompt and "
            f"reply together have {limit} tokens, the less of sampling.max_tokens "
            f"{sampling.max_tokens} and the model's context {context}. "
            f"Shorten or remove {listed(long, SHOWN_ERRORS)}"
        )
    return limit


class ReplyDirectory(AbstractContextManager["ReplyDirectory"]):
    """A directory of replies: what was asked, every reply once, and what failed this time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked_file = path / ASKED
        self.replies_file = path / "replies.jsonl"
        self.failed_file = path / "failed.jsonl"
        self.journal = Journal(self.replies_file)
        self.records: list[Reply] = []
        self.before = self.failures = 0

    def __enter__(self) -> "ReplyDirectory":
        self.lock = lock(
            self.path / "lock", f"another process is writing to {self.replies_file}; wait for it"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def claim(self, asked: dict[str, Any]) -> None:
        """Read what is there, drop a half-written last line, and see that it all fits together.

        Raises:
            UserError: the directory holds replies of another model, prompts or sampling.
        """
        there = self.replies_file.exists() and self.replies_file.stat().st_size > 0
        if there and not self.asked_file.exists():
            raise UserError(
                f"{self.replies_file} is there, but no {self.asked_file.name}, so nothing tells "
                "what it replies to; choose another --out"
            )
        self.records = [
            Reply.from_json(row, f"{self.replies_file}:{number}")
            for number, row in enumerate(self.journal.records(), start=1)
        ]
        self.before = len(self.records)
        if self.records:
            self.compare(asked)
        write_json(self.asked_file, asked)
        self.replies_file.touch()
        self.journal.repair()
        self.failed_file.unlink(missing_ok=True)

    def compare(self, asked: dict[str, Any]) -> None:
        """Refuse to mix replies to one thing with replies to another."""
        theirs = flatten(json.loads(self.asked_file.read_text()))
        changed = [
            f"{name} {values}" for name, values in differences(theirs, flatten(asked)).items()
        ]
        if changed:
            raise UserError(
                f"{self.path} holds {len(self.records)} replies made with another "
                f"{', '.join(changed)}. Give these an --out of their own, or remove that directory"
            )

    def add(self, record: Reply) -> None:
        """Write a reply so that it survives a kill."""
        self.journal.append(record.to_json())
        self.records.append(record)

    def sort(self, order: Callable[[Reply], Any]) -> None:
        """Put the replies, all of which have come, in an order; they came as they were done."""
        ordered = sorted(self.records, key=order)
        if ordered != self.records:
            write_jsonl([record.to_json() for record in ordered], self.replies_file)
        self.records = ordered

    def add_failure(self, script: Script, error: str) -> None:
        """Write what was asked in vain."""
        self.failures += 1
        row = {"id": script.row.id, "sample": script.sample, "turn": len(script.replies)}
        Journal(self.failed_file).append(row | {"error": error})

    def summary(self) -> str:
        """Counts, in a line."""
        new = len(self.records) - self.before
        stopped = sum(r.stopped for r in self.records) / max(1, len(self.records))
        return (
            f"{self.replies_file}: {len(self.records)} replies ({new} new), {stopped:.0%} stopped"
            f", {self.failures} failed"
        )
