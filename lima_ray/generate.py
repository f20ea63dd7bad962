"""Let a model reply to prompts: prompts -> replies.jsonl.

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

import fcntl
import hashlib
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from lima_ray import example
from lima_ray.config import Sampling, Section, durable, flatten, resolve
from lima_ray.endpoint import Client, Endpoint, ask, check_url
from lima_ray.errors import UserError, plain_errors
from lima_ray.example import SHOWN_ERRORS, Example
from lima_ray.lineage import check_base, hash_base
from lima_ray.run import write_json

if TYPE_CHECKING:
    from lima_ray.engine import Reply

SLICE_S = 0.5
"""How long a worker decodes before it hands over what is finished and is given more."""
DEATHS_IN_A_ROW = 3
LOG_EVERY_S = 10.0
RECENT_REPLIES = 200

Record = dict[str, Any]
Key = tuple[str, int]


class Generation(Section):
    """Who replies to what, and where the replies go."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory of a run or an export; with --endpoint the name of a model there."""
    prompts: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS")]
    """Rows to reply to: a .jsonl or .json file, a directory, or a dataset of the hub."""
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
    ) -> Record:
        """Take the next turn's reply, and return its line of replies.jsonl."""
        record: Record = {"id": self.row.id, "conversations": list(self.dialogue)}
        record |= {"model": model, "sample": self.sample, "turn": len(self.replies)}
        record |= {"reply": text, "stopped": stopped, "n_tokens": n_tokens}
        record |= {"seed": self.seeded(sampling).seed, "source": self.row.source}
        record |= {"system": self.row.system} if self.row.system else {}
        self.replies.append(text)
        taken = {*record, "follow_ups"}
        return record | {k: v for k, v in self.row.extra.items() if k not in taken}


def generate(job: Generation, in_process: bool = False) -> list[Record]:
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
    with Journal(durable(job.out)) as journal:
        journal.claim(identity(job, path, rows))
        for record in journal.records:
            scripts[record["id"], record["sample"]].replies.append(record["reply"])
        todo = [script for script in scripts.values() if not script.finished]
        if todo:
            with Meter(sum(s.turns for s in scripts.values()), len(journal.records)) as meter:
                if path is None:
                    ask_endpoint(job, todo, journal, meter)
                else:
                    decode = decode_here if in_process else decode_on_cluster
                    for record in decode(job, path, todo):
                        journal.add(record)
                        meter.add(record)
        print(journal.summary(), flush=True)
        if journal.failures:
            raise UserError(
                f"{journal.failures} of {len(scripts)} prompts got no reply (every sample "
                f"counts); {journal.failed_file} says why, and the same command asks them again"
            )
        place = {row.id: number for number, row in enumerate(rows)}
        return sorted(journal.records, key=lambda r: (place[r["id"]], r["sample"], r["turn"]))


def read_prompts(reference: str, split: str) -> list[Example]:
    """Read rows whose ids differ and whose follow-ups are texts.

    Raises:
        UserError: the rows that are not so.
    """
    rows = example.read(reference, split, dialogues=False)
    twice = [id for id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise UserError(f"{reference} has several rows with the id {named(twice)}; ids must differ")
    for row in rows:
        later = row.extra.get("follow_ups", [])
        if not isinstance(later, list) or not all(isinstance(t, str) and t.strip() for t in later):
            raise UserError(
                f"{reference} row {row.id}: follow_ups is {later!r}; it needs a list of user turns"
            )
    return rows


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


def name_of(path: Path) -> str:
    """What a model's directory is called in replies: its run, with the epoch if it is one."""
    if path.name == "export":
        return path.parent.name
    return f"{path.parents[1].name}-{path.name}" if path.parent.name == "epochs" else path.name


def identity(job: Generation, path: Path | None, rows: list[Example]) -> dict[str, Any]:
    """What decides the replies; a directory holds those of one identity."""
    digest = hashlib.sha256("\n".join(row.to_json() for row in rows).encode()).hexdigest()
    decided = {"model": job.name, "prompts_hash": digest[:12], "samples": job.samples}
    decided |= {"sampling": job.sampling.model_dump()}
    if path:
        return decided | {"model_hash": hash_base(str(path))}
    asked = {"url": job.server.url, "model": job.model, "extra": job.server.extra}
    return decided | {"endpoint": asked}


class Journal(AbstractContextManager["Journal"]):
    """A directory of replies: what was asked, every reply once, and what failed this time."""

    def __init__(self, path: Path) -> None:
        self.asked_file = path / "generate.json"
        self.replies_file = path / "replies.jsonl"
        self.failed_file = path / "failed.jsonl"
        path.mkdir(parents=True, exist_ok=True)
        self.records: list[Record] = []
        self.before = self.failures = 0
        self.out = self.replies_file.open("ab")

    def __exit__(self, *_: object) -> None:
        self.out.close()

    def claim(self, asked: dict[str, Any]) -> None:
        """Read what is there, drop a half-written last line, and see that it all fits together.

        Raises:
            UserError: the directory holds replies of another model, prompts or sampling, or
                another process writes to it.
        """
        self.lock()
        lines = self.replies_file.read_bytes().splitlines(keepends=True)
        if lines and not self.asked_file.exists():
            raise UserError(
                f"{self.replies_file} is there, but no {self.asked_file.name}, so nothing tells "
                "what it replies to; choose another --out"
            )
        whole = [line for line in lines if line.endswith(b"\n")]
        self.records = [
            example.decode_json(line, f"{self.replies_file}:{number}")
            for number, line in enumerate(whole, start=1)
        ]
        self.before = len(self.records)
        if self.records:
            self.compare(asked)
        write_json(self.asked_file, asked)
        os.truncate(self.replies_file, sum(map(len, whole)))
        self.failed_file.unlink(missing_ok=True)

    def lock(self) -> None:
        """Keep other processes from writing, until this one ends."""
        try:
            fcntl.flock(self.out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing to {self.replies_file}") from error
        except OSError as error:
            print(f"{self.replies_file} cannot be locked ({error.strerror}); run this once only")

    def compare(self, asked: dict[str, Any]) -> None:
        """Refuse to mix replies to one thing with replies to another."""
        folder = self.replies_file.parent
        ours, theirs = flatten(asked), flatten(json.loads(self.asked_file.read_text()))
        changed = [
            f"{name} {theirs.get(name)!r} (now {ours.get(name)!r})"
            for name in sorted(theirs | ours)
            if theirs.get(name) != ours.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} holds {len(self.records)} replies made with another "
                f"{', '.join(changed)}. Give these an --out of their own, or remove that directory"
            )

    def add(self, record: Record) -> None:
        """Write a reply so that it survives a kill."""
        self.out.write(f"{json.dumps(record, ensure_ascii=False)}\n".encode())
        self.out.flush()
        self.records.append(record)

    def add_failure(self, script: Script, error: str) -> None:
        """Write what was asked in vain."""
        self.failures += 1
        row = {"id": script.row.id, "sample": script.sample, "turn": len(script.replies)}
        with self.failed_file.open("a") as out:
            out.write(f"{json.dumps(row | {'error': error}, ensure_ascii=False)}\n")

    def summary(self) -> str:
        """Counts, in a line."""
        new = len(self.records) - self.before
        stopped = sum(r["stopped"] for r in self.records) / max(1, len(self.records))
        return (
            f"{self.replies_file}: {len(self.records)} replies ({new} new), {stopped:.0%} stopped"
            f", {self.failures} failed"
        )


def ask_endpoint(job: Generation, scripts: list[Script], journal: Journal, meter: "Meter") -> None:
    """Have a model behind an endpoint reply."""
    if job.sampling.repetition_penalty != 1 and not job.server.extra:
        print(
            f"sampling.repetition_penalty {job.sampling.repetition_penalty} is not sent: OpenAI's "
            "API has none. --endpoint_extra True sends it to servers that know it"
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
            journal.add(record)
            meter.add(record)

    ask(job.server, job.model, scripts, talk, journal.add_failure)


class Speaker:
    """An engine that works through scripts; alone in a process, or as a Ray actor."""

    def __init__(self, job: Generation, path: Path, threads: int = 0) -> None:
        self.job, self.path, self.threads = job, path, threads
        self.open: dict[str, Script] = {}

    def ready(self, scripts: list[Script]) -> list[Record]:
        """Load the engine, and see that every prompt leaves room for a reply.

        Returns:
            no replies yet.

        Raises:
            UserError: no such model, or the prompts that are too long.
        """
        import torch

        from lima_ray.engine import Engine

        if self.threads:
            torch.set_num_threads(self.threads)
        self.engine = Engine(self.path, self.job.slots)
        self.limit = min(self.job.sampling.max_tokens, self.engine.context)
        prompts = {s.row.id: (s.prompt, s.row.system) for s in scripts}
        lengths = {id: len(self.engine.prompt(*prompt)) for id, prompt in prompts.items()}
        long = [f"{id} ({n} tokens)" for id, n in lengths.items() if n >= self.limit]
        if long:
            raise UserError(
                f"{len(long)} of {len(prompts)} prompts leave no room for a reply: prompt and "
                f"reply together have {self.limit} tokens, the less of sampling.max_tokens "
                f"{self.job.sampling.max_tokens} and the model's context {self.engine.context}. "
                f"Shorten or remove {named(long)}"
            )
        return []

    def work(self, scripts: list[Script]) -> list[Record]:
        """Take scripts in, decode for a while, and return the replies that finished meanwhile."""
        records = [record for script in scripts for record in self.submit(script)]
        deadline = time.monotonic() + SLICE_S
        while self.engine.in_flight and time.monotonic() < deadline:
            for event in self.engine.step():
                if event.reply:
                    records += self.hear(event.reply)
            if records and not self.engine.waiting:
                break
        return records

    def submit(self, script: Script) -> list[Record]:
        """Ask a script's next turn; where there is no room for it, its turns left are empty."""
        from lima_ray.engine import Request

        records = []
        while not script.finished:
            ids = self.engine.prompt(script.dialogue, script.row.system)
            if len(ids) < self.limit:
                id = json.dumps(script.key)
                self.open[id] = script
                self.engine.submit(Request(id, ids, script.seeded(self.job.sampling)))
                break
            records.append(script.heard(self.job.name, self.job.sampling, "", False, 0))
        return records

    def hear(self, reply: "Reply") -> list[Record]:
        """Take a reply, and ask what follows it."""
        script = self.open.pop(reply.id)
        record = script.heard(
            self.job.name, self.job.sampling, reply.text, reply.stopped, reply.n_tokens
        )
        return [record, *self.submit(script)]


def decode_here(job: Generation, path: Path, scripts: list[Script]) -> Iterator[Record]:
    """Yield replies decoded in this process."""
    speaker, todo = Speaker(job, path), deque(scripts)
    speaker.ready(scripts)
    while todo or speaker.open:
        wanted = 2 * job.slots - len(speaker.open)
        yield from speaker.work([todo.popleft() for _ in range(min(wanted, len(todo)))])


def decode_on_cluster(job: Generation, path: Path, scripts: list[Script]) -> Iterator[Record]:
    """Yield replies decoded by Ray actors, each of which is given more as it finishes some.

    Raises:
        UserError: what a worker raised; or workers that die without having replied to anything.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

    start, workers = staff(job, path, len(scripts))
    share = min(2 * job.slots, -(-len(scripts) // workers))
    todo, deaths = deque(scripts), 0
    everything = ray.put(scripts)
    busy: dict[Any, tuple[Any, dict[Key, Script]]] = {}
    for actor in [start() for _ in range(workers)]:
        busy[actor.ready.remote(everything)] = actor, {}
    try:
        while todo or any(held for _, held in busy.values()):
            ref = ray.wait(list(busy), num_returns=1)[0][0]
            actor, held = busy.pop(ref)
            try:
                records: list[Record] = ray.get(ref)
            except (RayActorError, OutOfMemoryError) as error:
                deaths += 1
                if deaths >= DEATHS_IN_A_ROW:
                    raise UserError(
                        f"workers died {deaths} times without a reply between. What was answered "
                        f"is kept; the same command goes on there. The last error was:\n{error}"
                    ) from error
                todo.extendleft(held.values())
                actor = start()
                busy[actor.ready.remote(everything)] = actor, {}
                continue
            except RayTaskError as error:
                cause = error.cause
                raise (UserError(str(cause)) if isinstance(cause, UserError) else error) from None
            for record in records:
                deaths = 0
                script = held[record["id"], record["sample"]]
                script.replies.append(record["reply"])
                if script.finished:
                    del held[script.key]
                yield record
            more = [todo.popleft() for _ in range(min(share - len(held), len(todo)))]
            held |= {script.key: script for script in more}
            if held:
                busy[actor.work.remote(more)] = actor, held
    finally:
        for actor, _ in busy.values():
            ray.kill(actor)


def staff(job: Generation, path: Path, scripts: int) -> tuple[Callable[[], Any], int]:
    """How to start a worker on the cluster, and how many there shall be.

    Raises:
        UserError: the cluster has not as many GPUs or CPU cores.
    """
    import ray

    from lima_ray import train
    from lima_ray.config import Cluster

    train.connect()
    gpus = train.wants_gpus(Cluster())
    kind = "GPU" if gpus else "CPU"
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"] and n["Resources"].get(kind, 0) >= 1]
    most = int(sum(n["GPU"] for n in nodes)) if gpus else len(nodes)
    workers = min(job.workers, scripts) or min(most, -(-scripts // job.slots)) or 1
    cores = train.cpus_per_worker(Cluster(workers=workers), gpus)
    claimed = cores if job.cpus_per_worker is None else job.cpus_per_worker
    asked = {"CPU": workers * claimed} | ({"GPU": workers} if gpus else {})
    short = [f"{n} {k}s" for k, n in asked.items() if ray.cluster_resources().get(k, 0) < n]
    if short:
        raise UserError(
            f"{workers} workers need {' and '.join(short)}, which the cluster does not have; use "
            f"fewer --workers{'' if gpus else ', or --cpus_per_worker 0'}"
        )
    if any(ray.available_resources().get(k, 0) < n for k, n in asked.items()):
        print("others are using this cluster; waiting until the workers have room", flush=True)
    threads = job.cpus_per_worker or cores
    environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    options = {"num_cpus": claimed, "num_gpus": int(gpus), "scheduling_strategy": "SPREAD"}
    actor: Any = ray.remote(Speaker).options(**options, runtime_env={"env_vars": environment})
    return lambda: actor.remote(job, path, threads), workers


class Meter(AbstractContextManager["Meter"]):
    """What is shown while replies come: a bar on a terminal, lines in a log."""

    def __init__(self, total: int, before: int) -> None:
        self.total, self.done = total, before
        self.console = Console(highlight=False)
        columns = (BarColumn(bar_width=20), TaskProgressColumn(), TextColumn("{task.description}"))
        self.bar = Bar(*columns, console=self.console, disable=not sys.stdout.isatty())
        self.task = self.bar.add_task("loading", total=total, completed=before)
        self.recent: deque[tuple[float, int, bool]] = deque(maxlen=RECENT_REPLIES)
        self.logged = time.monotonic()

    def __enter__(self) -> "Meter":
        self.bar.start()
        if not self.console.is_terminal:
            self.console.print(f"{self.total - self.done} replies to make", soft_wrap=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def add(self, record: Record) -> None:
        """Count a reply and show the counts."""
        now = time.monotonic()
        self.done += 1
        self.recent.append((now, record["n_tokens"] or 0, record["stopped"]))
        line = self.line()
        self.bar.update(self.task, completed=self.done, description=line)
        if not self.console.is_terminal and now - self.logged > LOG_EVERY_S:
            self.logged = now
            self.console.print(line, soft_wrap=True)

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


def named(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN_ERRORS} more" if len(names) > SHOWN_ERRORS else ""
    return ", ".join(names[:SHOWN_ERRORS]) + more


def command(argv: list[str] | None = None) -> Generation:
    """Read the command line; tyro shows what is wrong with it and exits."""
    return tyro.cli(
        Generation,
        args=argv,
        prog="python -m lima_ray.generate",
        description=__doc__,
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )


def main() -> None:
    """Run the command; imported by name, so that Ray's workers find the same classes."""
    with plain_errors():
        generate(command())


if __name__ == "__main__":
    from lima_ray.generate import main as imported

    imported()
