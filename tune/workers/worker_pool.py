"""The actors of a sweep: how many trainings fit, the queue, worker groups and assessors."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from lima_ray.config.cluster import (
    NODE_ID_LABEL,
    forwarded_environment,
    wants_gpus,
    worker_environment,
)
from lima_ray.config.errors import UserError
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.config.sections import Cluster
from lima_ray.config.storage.working_copy import location, reference
from tune.space import Sweep
from tune.workers.assessor import Assessor
from tune.workers.training_queue import TrainingQueue
from tune.workers.training_worker import TrainingWorkers

RESTARTS = 3
"""Of the actor of a worker group or an assessor."""
ENDING_S = 20
"""How long worker groups and assessors may take to end when the sweep does."""


def trainings_at_once(sweep: Sweep, cluster: Cluster, trainings: int) -> tuple[int, bool]:
    """Return how many trainings run at once, and whether on GPUs; refuse what does not fit."""
    gpus = wants_gpus(cluster)
    workers = cluster.workers
    if not gpus:
        each = workers * cpus_of(cluster)
        what = f"{each} CPU cores"
    elif workers == 1:
        each, what = 1, "1 GPU (shared by trainer and judge)"
    else:
        each, what = workers + 1, f"{workers + 1} GPUs ({workers} to train, 1 to reply)"
    there = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
    fits = there // each
    if not fits:
        raise UserError(
            f"{sweep.name}: one training takes {what} and the cluster has {there}; lower "
            "cluster.workers or cluster.cpus_per_worker in `set`"
        )
    if sweep.concurrent > fits:
        raise UserError(
            f"{sweep.name}: concurrent is {sweep.concurrent}, but one training takes {what} and "
            f"the cluster has {there}, so {fits} fit at once"
        )
    return max(1, min(sweep.concurrent or fits, trainings)), gpus


def cpus_of(cluster: Cluster) -> int:
    # Trainings side by side use cores better than one training over many.
    return cluster.cpus_per_worker or 1


class WorkerPool(AbstractContextManager["WorkerPool"]):
    """Everything that a sweep has running besides Tune."""

    def __init__(self, cluster: Cluster, at_once: int, gpus: bool, path: Path) -> None:
        """Start the queue, worker groups and assessors; Ray Train's own files go to `path`."""
        share = 0 if not gpus else 0.5 if cluster.workers == 1 else 1
        environment = worker_environment(gpus, 1)
        stays = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "num_cpus": 0}
        # Of a sweep in a bucket the journal is written on the disk from which it is uploaded.
        here = {"label_selector": {NODE_ID_LABEL: ray.get_runtime_context().get_node_id()}}
        queue: Any = ray.remote(TrainingQueue).options(
            num_cpus=0, max_concurrency=1000, **(here if location(path) else {})
        )
        self.queue: Any = queue.remote()
        assessor: Any = ray.remote(Assessor).options(
            **stays, num_gpus=share, runtime_env={"env_vars": environment}
        )
        group: Any = ray.remote(TrainingWorkers).options(
            **stays, runtime_env={"env_vars": forwarded_environment()}
        )
        self.groups = [group.remote() for _ in range(at_once)]
        self.assessors = [assessor.remote() for _ in range(at_once)]
        self.running: dict[Any, tuple[str, int]] = {}
        """Role and number of each actor by the reference that becomes ready when it ends."""
        secrets = SharedSecrets.of_driver()
        each = cluster.workers, cpus_of(cluster), share, reference(path), secrets
        for number, actor in enumerate(self.groups):
            self.running[actor.run.remote(self.queue, number, *each)] = "trainers", number
        for number, actor in enumerate(self.assessors):
            self.running[actor.run.remote(self.queue, number, 1, secrets)] = "judges", number
        self.broken = ""
        """Why nothing can go on; empty while something can."""

    def begin_sweep(self, sweep: Sweep, path: Path) -> None:
        ray.get(self.queue.begin_sweep.remote(path, sweep.retries))

    def check(self) -> None:
        """Report lost actors to the queue; without any of a role, what has not ended fails."""
        ready, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        for run in ready:
            try:
                ray.get(run)
            except RayError as error:
                role, number = self.running.pop(run)
                lost = self.queue.group_lost if role == "trainers" else self.queue.assessor_lost
                lost.remote(number, str(error))
                if role not in {left for left, _ in self.running.values()} and not self.broken:
                    self.broken = f"all {role} of the sweep have given up; the last said: {error}"
                    self.queue.close.remote(self.broken)

    def __exit__(self, *_: object) -> None:
        """Let every actor end what it is at, and end those that do not."""
        ray.get(self.queue.close.remote())
        late = ray.wait(list(self.running), num_returns=len(self.running), timeout=ENDING_S)[1]
        for actor in [*self.groups, *self.assessors] if late else []:
            ray.kill(actor)
        ray.kill(self.queue)
