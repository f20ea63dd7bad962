"""The actors of a sweep: how many trainings fit, the dispatcher, warm lanes and assessors."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from lima_ray.config.cluster import forwarded, wants_gpus, worker_environment
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Cluster
from tune.space import Sweep
from tune.workers.training_queue import Dispatcher
from tune.workers.training_worker import Assessor, Lane

RESTARTS = 3
"""Of a lane's or an assessor's actor."""
ENDING_S = 20
"""How long lanes and assessors may take to end when the sweep does."""


def room(sweep: Sweep, cluster: Cluster, trainings: int) -> tuple[int, bool]:
    """How many trainings run at once, and whether on GPUs.

    Raises:
        UserError: not even one fits, or fewer than asked for; says what fits.
    """
    gpus = wants_gpus(cluster)
    workers = cluster.workers
    if not gpus:
        each = workers * cpus(cluster)
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


def cpus(cluster: Cluster) -> int:
    """CPU cores of a worker: trainings side by side use cores better than one over many."""
    return cluster.cpus_per_worker or 1


class Pool(AbstractContextManager["Pool"]):
    """Everything a sweep has running besides Tune."""

    def __init__(self, cluster: Cluster, at_once: int, gpus: bool, path: Path) -> None:
        """Start the dispatcher, and a lane and an assessor for each training at a time.

        Args:
            cluster: what a training asks for.
            at_once: trainings.
            gpus: whether they have GPUs.
            path: directory for Ray Train's own files.
        """
        each = cpus(cluster)
        share = 0 if not gpus else 0.5 if cluster.workers == 1 else 1
        environment = worker_environment(gpus, 1) | forwarded()
        stays = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "num_cpus": 0}
        one: Any = ray.remote(Dispatcher).options(num_cpus=0, max_concurrency=1000)
        self.dispatcher: Any = one.remote()
        judges: Any = ray.remote(Assessor).options(
            **stays, num_gpus=share, runtime_env={"env_vars": environment}
        )
        trainers: Any = ray.remote(Lane).options(**stays)
        self.lanes = [trainers.remote() for _ in range(at_once)]
        self.judges = [judges.remote() for _ in range(at_once)]
        self.runs = {
            lane.run.remote(self.dispatcher, number, cluster.workers, each, share, path): (
                "trainers",
                number,
            )
            for number, lane in enumerate(self.lanes)
        }
        for seat, judge in enumerate(self.judges):
            self.runs[judge.run.remote(self.dispatcher, seat, 1)] = ("judges", seat)
        self.broken = ""
        """Why nothing can go on; empty while something can."""

    def begin(self, sweep: Sweep, path: Path) -> None:
        """Begin a sweep, whose directory this is."""
        ray.get(self.dispatcher.begin.remote(path, sweep.retries))

    def watch(self) -> None:
        """See who has given up; where no trainer or no judge is left, what has not ended fails."""
        ready, _ = ray.wait(list(self.runs), num_returns=len(self.runs), timeout=0)
        for run in ready:
            try:
                ray.get(run)
            except RayError as error:
                role, number = self.runs.pop(run)
                self.dispatcher.lost.remote(role, number, str(error))
                if role not in {left for left, _ in self.runs.values()} and not self.broken:
                    self.broken = f"all {role} of the sweep have given up; the last said: {error}"
                    self.dispatcher.close.remote(self.broken)

    def __exit__(self, *_: object) -> None:
        """Let everyone end what they are at, and end those that do not."""
        ray.get(self.dispatcher.close.remote())
        late = ray.wait(list(self.runs), num_returns=len(self.runs), timeout=ENDING_S)[1]
        for actor in [*self.lanes, *self.judges] if late else []:
            ray.kill(actor)
        ray.kill(self.dispatcher)
