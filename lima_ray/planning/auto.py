"""What a recipe's `auto` stands for on the cluster that is to train it."""

from lima_ray.config.cluster import connect, wants_gpus
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.data.rows import Rows
from lima_ray.planning.candidates import choose
from lima_ray.planning.hardware import THIS_DEVICE, cluster_hardware
from lima_ray.planning.lengths import RowLengths
from lima_ray.planning.report import describe_way, gib, plan_ways
from lima_ray.planning.shape import read_shape
from lima_ray.training.zero import resolve_zero_stage

ERROR = 1.15
"""By how much a plan may be off; what needs more than that of what there is is refused."""


def resolve_auto(recipe: Recipe, rows: Rows) -> tuple[Recipe, str]:
    """Join Ray, and return a recipe with each `auto` of `train` resolved, and a line about it.

    Raises:
        UserError: nothing that `auto` may stand for fits the GPUs; it names the smallest.
    """
    if not recipe.unresolved():
        return recipe, ""
    connect()
    gpus = wants_gpus(recipe.cluster)
    free, workers = recipe.unresolved(), recipe.cluster.workers
    if free == ["train.zero_stage"] and not gpus:
        return resolve_zero_stage(recipe, workers, THIS_DEVICE), ""
    # An elastic run has to fit while workers are missing.
    fewest = min(workers, max(2, recipe.cluster.min_workers or workers))
    planned = recipe.override({"cluster.workers": fewest, "cluster.min_workers": None})
    lengths = RowLengths(rows.lengths_R, rows.supervised_R, "")
    on = cluster_hardware(None, "gpu" if gpus else "cpu")
    ways = plan_ways(planned, read_shape(planned), lengths, on, free)
    chosen = choose(ways) or min(ways, key=lambda one: (one.has is not None) * one.peak)
    if gpus and chosen.has is not None and chosen.peak > ERROR * chosen.has:
        raise UserError(
            f"{', '.join(free)} is auto, and nothing that it may stand for fits: the smallest "
            f"needs {gib(chosen.peak)} of {gib(chosen.has)} GiB of each GPU. Use more "
            "--cluster.workers, or --model.lora_rank 16; python -m lima_ray.plan tells what fits"
        )
    train = chosen.recipe.train
    resolved = recipe.override({name: getattr(train, name.partition(".")[2]) for name in free})
    of = "" if chosen.has is None else f" of {gib(chosen.has)}"
    return resolved, f"auto         {describe_way(chosen)}: {gib(chosen.peak)}{of} GiB a worker"
