"""Ray Train's trainer on a Ray of its own: which processes it starts, and what they load."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import ray.train
from conftest import ray_cluster

from lima_ray.training.trainer import ProcessGroup, Trainer

RAYS_OWN = ("IDLE", "DashboardAgent", "RuntimeEnvAgent")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(cpus=2):
        yield


def test_a_process_group_needs_no_other_actor_and_no_torch_but_the_workers(tmp_path: Path) -> None:
    def look(_: dict[str, Any]) -> dict[str, Any]:
        """Return, as a worker, a sum over the group and the actors of this machine."""
        import torch
        from torch import distributed as dist

        sum_1 = torch.tensor([float(dist.get_rank() + 1)])
        dist.all_reduce(sum_1)
        parent, actors = psutil.Process(os.getppid()), {}
        for process in parent.children():
            if (name := process.cmdline()[0]).startswith("ray::"):
                loaded = {Path(file.path).name for file in process.memory_maps()}
                actors[name.removeprefix("ray::").partition(".")[0]] = "libtorch_cpu.so" in loaded
        return {"sum": sum_1.item(), "actors": actors}

    found = Trainer(
        look,
        backend_config=ProcessGroup(60),
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="look", storage_path=str(tmp_path)),
    ).fit()
    assert found.return_value
    assert found.return_value["sum"] == 3
    known = {"RayTrainWorker": True, "TrainController": False, "SynchronizationActor": False}
    actors = found.return_value["actors"]
    assert {name: torch for name, torch in actors.items() if name not in RAYS_OWN} == known
