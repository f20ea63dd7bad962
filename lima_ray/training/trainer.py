"""Ray Train's trainer with the processes and imports that a training needs, and no others.

A process of Ray takes a second of a core to start and half a second more for `ray.train`; torch
takes two. Ray Train's own `TorchTrainer` imports torch in the driver and in its controller, and
starts an actor for datasets although none is given. On a Ray that this process has started for
itself three more actors have nothing to do: one asks for nodes that nobody adds, one waits for
nodes to be taken away, one gives back what a lost controller has claimed, as is done here.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray._raylet import PlacementGroupID
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import (
    PlacementGroup,
    placement_group_table,
    remove_placement_group,
)

from lima_ray.config.cluster import is_own

LEAVE_TIMEOUT_S = 30


class Trainer(DataParallelTrainer):
    """Trains by `train_loop_per_worker` in each worker of a process group."""

    def _create_default_callbacks(self) -> list[Any]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)[: 2 if is_own() else 1]
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unneeded)]

    def _initialize_and_run_controller(self, **given: Any) -> ray.train.Result:
        if not is_own():
            return super()._initialize_and_run_controller(**given)
        if type(given["scaling_policy"]) is FixedScalingPolicy:
            given["scaling_policy"] = SilentScalingPolicy(self.scaling_config)
        # Read here alone, and handed to the controller; another Ray joined later has its watcher.
        os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
        before = set(placement_group_table())
        try:
            return super()._initialize_and_run_controller(**given)
        except (RayActorError, OutOfMemoryError):
            for claimed in set(placement_group_table()) - before:
                group = PlacementGroup(PlacementGroupID(bytes.fromhex(claimed)))
                remove_placement_group(group)  # the lost controller's
            raise
        finally:
            del os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR]


class SilentScalingPolicy(FixedScalingPolicy):
    """A number of workers that no autoscaler is told of."""

    def after_controller_start(self, train_run_context: object) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...


@dataclass
class ProcessGroup(BackendConfig):
    """NCCL's process group where each worker has a GPU, otherwise Gloo's: Ray's `TorchConfig`."""

    timeout_s: int
    """Of a collective."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _ProcessGroupBackend

    @property
    def train_func_context(self) -> Any:
        return on_own_device

    def to_dict(self) -> dict[str, Any]:
        return {"timeout_s": self.timeout_s}


class _ProcessGroupBackend(Backend):
    """What the controller has the workers do; it loads no torch for it."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        address, port = worker_group.execute_single(0, get_address_and_port)
        backend, timeout_s = "nccl" if gpus else "gloo", backend_config.timeout_s
        worker_group.execute(join_group, backend, address, port, timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        left = worker_group.execute_async(leave_group, len(worker_group) > 1)
        try:
            ray.get(left, timeout=LEAVE_TIMEOUT_S)
        except GetTimeoutError:
            logging.getLogger(__name__).warning("workers did not leave in %s s", LEAVE_TIMEOUT_S)


def join_group(backend: str, address: str, port: int, timeout_s: int) -> None:
    from ray.train.torch import config

    context = ray.train.get_context()
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    config._set_torch_distributed_env_vars()
    rank, workers = context.get_world_rank(), context.get_world_size()
    config._setup_torch_process_group(backend, rank, workers, "env://", timeout_s)


def leave_group(destroy: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy)


@contextmanager
def on_own_device() -> Iterator[None]:
    from ray.train.torch.config import TorchConfigContextManager

    with TorchConfigContextManager():
        yield
