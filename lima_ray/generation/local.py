"""Replies decoded from a local export: in this process, or by Ray actors over the cluster."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lima_ray.config.cluster import connect, cpus_per_worker, wants_gpus, worker_environment
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Cluster
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import CompletionOutput, Request
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.scripts import Key, Script, check_prompt_lengths
from lima_ray.records.reply import Reply

TURN_S = 0.5
"""How long a worker decodes before it returns finished replies and takes more scripts."""
MAX_CONSECUTIVE_DEATHS = 3
"""Workers that may die without a reply between."""


class GenerationWorker:
    """An engine that works through scripts; alone in a process, or as a Ray actor."""

    def __init__(self, job: GenerationJob, path: Path, threads: int = 0) -> None:
        self.job, self.path, self.threads = job, path, threads
        self.open: dict[str, Script] = {}

    def ready(self, scripts: list[Script]) -> list[Reply]:
        """Load the engine, and refuse prompts that leave no room for a reply."""
        if self.threads:
            torch.set_num_threads(self.threads)
        self.engine = Engine(self.path, self.job.slots, weights=self.job.weights)
        self.limit = check_prompt_lengths(
            scripts, self.engine.prompt, self.engine.context, self.job.sampling
        )
        return []

    def work(self, scripts: list[Script]) -> list[Reply]:
        """Take scripts in, decode for a while, and return the replies that finished meanwhile."""
        records = [record for script in scripts for record in self.submit(script)]
        deadline = time.monotonic() + TURN_S
        while self.engine.in_flight and time.monotonic() < deadline:
            for event in self.engine.step():
                if event.reply:
                    records += self.receive(event.reply)
            if records and not self.engine.waiting:
                break
        return records

    def submit(self, script: Script) -> list[Reply]:
        """Submit a script's next turn; where it does not fit, the remaining replies are empty."""
        records = []
        while not script.finished:
            ids = self.engine.prompt(script.dialogue, script.row.system)
            if len(ids) < self.limit:
                id = json.dumps(script.key)
                self.open[id] = script
                self.engine.submit(Request(id, ids, script.next_sampling(self.job.sampling)))
                break
            records.append(script.record_reply(self.job.name, self.job.sampling, "", False, 0))
        return records

    def receive(self, reply: CompletionOutput) -> list[Reply]:
        """Record a reply, and submit the turn that follows it."""
        script = self.open.pop(reply.id)
        record = script.record_reply(
            self.job.name, self.job.sampling, reply.text, reply.stopped, reply.n_tokens
        )
        return [record, *self.submit(script)]


def generate_in_process(job: GenerationJob, path: Path, scripts: list[Script]) -> Iterator[Reply]:
    worker, todo = GenerationWorker(job, path), deque(scripts)
    worker.ready(scripts)
    while todo or worker.open:
        wanted = 2 * job.slots - len(worker.open)
        yield from worker.work([todo.popleft() for _ in range(min(wanted, len(todo)))])


def generate_on_cluster(job: GenerationJob, path: Path, scripts: list[Script]) -> Iterator[Reply]:
    """Yield replies decoded by Ray actors, each of which is given more as it finishes some.

    Raises:
        UserError: what a worker raised; or workers that die without having replied to anything.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

    start, workers = plan_workers(job, path, len(scripts))
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
                records: list[Reply] = ray.get(ref)
            except (RayActorError, OutOfMemoryError) as error:
                deaths += 1
                if deaths >= MAX_CONSECUTIVE_DEATHS:
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
                script = held[record.id, record.sample]
                script.replies.append(record.reply)
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


def plan_workers(job: GenerationJob, path: Path, scripts: int) -> tuple[Callable[[], Any], int]:
    """Return a function that starts a worker, and how many to start; refuse more than fit."""
    import ray

    connect()
    gpus = wants_gpus(Cluster())
    kind = "GPU" if gpus else "CPU"
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"] and n["Resources"].get(kind, 0) >= 1]
    most = int(sum(n["GPU"] for n in nodes)) if gpus else len(nodes)
    workers = min(job.workers, scripts) or min(most, -(-scripts // job.slots)) or 1
    cores = cpus_per_worker(Cluster(workers=workers), gpus)
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
    environment = worker_environment(gpus, threads)
    options = {"num_cpus": claimed, "num_gpus": int(gpus), "scheduling_strategy": "SPREAD"}
    actor: Any = ray.remote(GenerationWorker).options(
        **options, runtime_env={"env_vars": environment}
    )
    return lambda: actor.remote(job, path, threads), workers
