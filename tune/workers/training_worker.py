"""Warm workers: one group of training processes that trains recipe after recipe.

Starting a group costs what a miniature's training costs: Ray Train's start, the imports of torch,
transformers and DeepSpeed, the process group. A sweep pays it once for each group: it is a Ray
Train run whose loop takes the next training from the queue. A worker that dies restarts its group,
which goes on from that training's last state. Base weights are mapped from safetensors, so a node
holds them once.
"""

import gc
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import ray.train

from lima_ray import train
from lima_ray.config.cluster import scaling_config, worker_environment
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import validate_recipe
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.config.storage.changing_files import forget, pull
from lima_ray.config.storage.working_copy import from_reference, rays_folder
from lima_ray.records.phases import Phases
from lima_ray.training.trainer import ProcessGroup, Trainer
from tune.training import Training
from tune.workers.training_queue import get

GROUP_FAILURES = 20
"""Restarts of a group's workers before the group gives up."""


class EarlyStop(Exception):
    """The queue ends a training before its last epoch."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.to_resume = answer == "leave"
        """Whether a later start is to go on with it."""


class TrainingWorkers:
    """A Ray actor that holds one worker group."""

    def run(
        self,
        queue: Any,
        group: int,
        workers: int,
        cpus: int,
        gpus: float,
        said: str,
        secrets: SharedSecrets,
    ) -> None:
        """Train what the `TrainingQueue` behind a handle gives, until it closes.

        Args:
            workers: training processes.
            cpus: CPU cores of each.
            gpus: GPUs of each, a half where it shares one with an assessor, or none.
            said: path or URL of a directory for Ray Train's own files.
            secrets: of the sweep's driver.
        """
        path = rays_folder(from_reference(said))
        Trainer(
            train_from_queue,
            train_loop_config={"queue": queue, "group": group, "secrets": secrets},
            backend_config=ProcessGroup(train.COLLECTIVE_TIMEOUT_S),
            scaling_config=scaling_config(workers, gpus, cpus),
            run_config=ray.train.RunConfig(
                name=f"{group}-{time.time_ns()}",  # a name used before would resume its run
                storage_path=str(path),
                failure_config=ray.train.FailureConfig(max_failures=GROUP_FAILURES),
                worker_runtime_env={"env_vars": worker_environment(gpus > 0, cpus)},
            ),
        ).fit()


def train_from_queue(config: dict[str, Any]) -> None:
    """Train what the queue gives, in each worker of a group.

    Args:
        config: `queue`, `group` and `secrets`.
    """
    config["secrets"].enter_environment()
    phases = Phases(time.time())
    import torch

    from lima_ray.training import loop

    del loop
    phases.done("worker_imports")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    queue, group, fresh = config["queue"], config["group"], True
    while True:
        training = on_first(lambda fresh=fresh: get(queue.next_training.remote(group, fresh)))
        fresh = False
        if training == "closed":
            return
        if training != "wait":
            train_one(queue, group, training, phases)
            phases = Phases(time.time())


def train_one(queue: Any, group: int, training: Training, phases: Phases) -> None:
    """Train one recipe in the process group that is up, and tell the queue how it ended."""
    import torch
    from ray.train.torch import get_device
    from torch import distributed as dist

    from lima_ray.training.loop import train as train_recipe

    first = dist.get_rank() == 0

    def on_weights(epoch: int) -> None:
        """Have an epoch assessed; stop where no point needs another."""
        if first:  # what older weights of this epoch replied
            forget(training.run.dev_dir(epoch))
        answer = on_first(lambda: get(queue.weights_saved.remote(training.id, epoch)))
        if answer != "go on":
            raise EarlyStop(answer)

    error = ""
    try:
        recipe, device = validate_recipe(training.recipe), torch.device(get_device())
        train_recipe(recipe, training.run, device, phases, training.lineage, on_weights)
    except EarlyStop as stop:
        if stop.to_resume:
            return
        if first:
            drop_weights(training)
    except UserError as problem:
        error = str(problem)
    except Exception:
        get(queue.group_failed.remote(group, traceback.format_exc()))
        raise
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    if first:
        get(queue.training_ended.remote(training.id, error))


def drop_weights(training: Training) -> None:
    """Remove a training's weights that are not kept, of a bucket's those that it has by now."""
    for folder in (training.run.state_dir, training.run.epochs_dir):
        pull(folder)
    training.drop_weights()


def on_first(call: Callable[[], Any]) -> Any:
    """Call on the first worker, and return its answer on every worker."""
    from torch import distributed as dist

    answer = [call() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]
