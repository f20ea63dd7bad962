"""What Ray Train runs in every worker process.

Light to import: Ray's controller unpickles it too and needs none of what training needs.
"""

import os
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import validate_recipe
from lima_ray.config.storage.bucket import StorageError
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run, open_run

LEFT = "left"
"""Key of what a worker returns that stopped early, for a node that is about to be taken away."""


def train_worker(config: dict[str, Any]) -> dict[str, str]:
    """Run one worker of the group: load, resume where there is a state, train, save.

    Args:
        config: `recipe` (plain values), `run` (path or URL), `ray_folder` (where Ray Train takes
            the run to be), `phases` (of the driver), `lineage`, `secrets`, and `assess` for epochs
            judged meanwhile.

    Returns:
        `{"error": message}` for what a user has to mend; retrying would not help there. `{LEFT:
        why}` where a state was saved for a node that is about to be taken away.
    """
    phases = Phases(**config["phases"])
    phases.done("workers")
    import ray.train
    import torch
    from ray.train.torch import get_device

    from lima_ray.training.loop import train

    phases.done("worker_imports")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    recipe, run = validate_recipe(config["recipe"]), open_run(config["run"])
    rays_copy = Run(Path(config["ray_folder"]))

    def report(epoch: int) -> None:
        """Tell Ray Train of an epoch's weights, where they already stand; nothing is copied."""
        ray.train.report(
            {"epoch": epoch},
            checkpoint=ray.train.Checkpoint.from_directory(str(rays_copy.epoch_dir(epoch))),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
            validation=config["assess"] and ray.train.ValidationTaskConfig({"epoch": epoch}),
        )

    device, lineage = torch.device(get_device()), config["lineage"]
    try:
        config["secrets"].enter_environment()
        ended = train(recipe, run, device, phases, lineage, report, about_to_leave=is_notified)
    except StorageError:
        raise  # one worker's alone: all start again
    except UserError as error:
        return {"error": str(error)}
    return {} if ended else {LEFT: "a node is about to be taken away"}


def is_notified() -> bool:
    """Return whether Ray has told this worker that a node of the training is being drained."""
    # ray.train.get_preemption_info() asks all workers by way of an actor, at every step; the loop
    # agrees by a reduction of its own.
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
