"""Joining a Ray cluster, or starting one on this machine: checked before Ray waits, and quiet."""

import logging
import math
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.config.secrets.sharing import SharedSecrets, warn_of_shown_secrets
from lima_ray.config.sections import Cluster
from lima_ray.config.storage.bucket import is_url

ADDRESS_ENV = "RAY_ADDRESS"
CONNECT_TIMEOUT_S = 5.0
RAY_DEFAULTS = {
    # Its default, 15, lets anything else on the machine starve a training.
    "RAY_worker_niceness": "0",
    # Light tasks and actors share a core on purpose; our own messages report dead workers.
    "RAY_DEDUP_LOGS_SKIP_REGEX": (
        "worker processes have been started on node|A worker died or was killed while executing"
    ),
}
"""Ray's environment where it is not set otherwise; read when Ray is imported or started."""

PRELOAD = "LD_PRELOAD"
LARGE_BASE_BYTES = 100 * 2**20
"""Of weights from which a worker on CPUs saves memory at the price of some time."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""For processes that claim none: Ray shows them the machine's all the same."""
FORWARDED = (
    *("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "WANDB_MODE"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
)
"""What workers on other nodes need of the driver's environment, beside `SharedSecrets`."""
NODE_ID_LABEL = "ray.io/node-id"
"""Which Ray gives every node, so that work can be kept on one."""
TRAIN_DEFAULTS = {
    # How often Ray Train polls its workers; its default of 2 s would hold up short epochs.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # How often it asks for nodes that are about to be taken away; some clouds tell 30 s before.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""Ray Train's environment where it is not set otherwise."""

Returned = TypeVar("Returned")


def set_ray_defaults() -> None:
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # A new cluster has it on; where it is off, Ray's warning stays.
    tokens = logging.getLogger("ray._private.authentication.authentication_token_setup")
    tokens.addFilter(lambda record: "is enabled for this Ray cluster" not in record.getMessage())


def check_address(given: str | None = None) -> str | None:
    """Refuse a Ray where nobody answers, for which Ray itself would wait without a word.

    Args:
        given: an address as `ray.init` takes it. As there, one that is none or `auto` stands for
            that of `RAY_ADDRESS`, or for the cluster that this machine last belonged to.

    Returns:
        the address to give to `ray.init`: `local` where that cluster was on this machine's loopback
        and is gone.
    """
    from ray._private.services import find_bootstrap_address, find_gcs_addresses

    of_environment = os.environ.get(ADDRESS_ENV, "") if given in (None, "auto") else ""
    named = of_environment or given or ""
    last = find_bootstrap_address(None) if named in ("", "auto") else None
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)/?", last or named)
    if not found or (named == "auto" and len(find_gcs_addresses()) == 1):
        return given
    try:
        place = found[1], int(found[2])
        socket.create_connection(place, timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        if last and not named and found[1].startswith(("127.", "localhost", "::1")):
            print(
                f"the Ray that was here ({last}) is gone; this command starts its own", flush=True
            )
            return "local"
        if last:
            way = "Start it again, or `ray stop` here to forget it"
            told = f"the Ray cluster of this machine, at {last}, does not answer ({error})"
        elif of_environment:
            way = f"Start it, or `unset {ADDRESS_ENV}` to use a Ray of this machine's own"
            told = f"{ADDRESS_ENV} is {named}, and no Ray cluster answers there ({error})"
        else:
            way, told = "Start it", f"no Ray cluster answers at {named} ({error})"
        raise UserError(f"{told}. {way}") from error
    return given


def connect(dashboard: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS or this node, or start one, with the dashboard if asked."""
    import ray

    for name, value in TRAIN_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        address = check_address()
        set_ray_defaults()
        warn_of_shown_secrets()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            include_dashboard=dashboard,
        )
    logging.getLogger("ray.train").setLevel(logging.WARNING)


def connect_during(work: Callable[[], Returned]) -> Returned:
    """Connect while another thread does some work, and return what that returned.

    Ray's processes end with the thread that has started them, so that is the caller's.
    """
    # Ray begins a worker for each core in the environment of the driver; training's have their own.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        connect()
    return done.result()


def is_own() -> bool:
    """Return whether this process has started the Ray that it uses, with one node, for itself."""
    from ray._private import worker

    return worker._global_node is not None and worker._global_node.is_head()


def wants_gpus(cluster: Cluster) -> bool:
    import ray

    has = ray.cluster_resources().get("GPU", 0) > 0
    return has if cluster.device == "auto" else cluster.device == "gpu"


def forwarded_environment() -> dict[str, str]:
    """Return the variables of this process that workers on other nodes need; none is secret."""
    return {name: os.environ[name] for name in FORWARDED if name in os.environ}


def worker_environment(gpus: bool, cpus: int) -> dict[str, str]:
    """Return environment variables of a worker, those of `forwarded_environment` too."""
    own = {"OMP_NUM_THREADS": str(cpus), "TOKENIZERS_PARALLELISM": "false"}
    own |= forwarded_environment()
    return own if gpus else own | {"DS_ACCELERATOR": "cpu"} | NO_GPU


def training_environment(gpus: bool, cpus: int, base: str) -> dict[str, str]:
    """Return environment variables of a training's worker.

    On CPUs the memory of a base that is large is allocated by jemalloc, which is part of Ray:
    glibc keeps freed blocks, and a worker then takes up to half as much again as its tensors. It
    costs time, so a small base does without (docs/benchmarks/cpu.md).

    Args:
        base: the model that is trained, as a recipe names it.
    """
    import ray

    own = worker_environment(gpus, cpus)
    jemalloc = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    if gpus or not jemalloc.exists() or weights_bytes(base) < LARGE_BASE_BYTES:
        return own
    return own | {PRELOAD: ":".join(filter(None, (os.environ.get(PRELOAD), str(jemalloc))))}


def weights_bytes(base: str) -> float:
    """Return the size of a base's weights; of one that is not at hand, and so a real one, more."""
    folder = None if is_url(base) else resolve(base)
    if folder is None:
        return math.inf
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def scaling_config(workers: int | tuple[int, int], gpus: float, cpus: int) -> Any:
    """Return Ray Train's settings of a group of workers.

    Args:
        workers: how many, or the fewest and the most.
        gpus: of each; a share where it is not alone on one.
        cpus: of each.
    """
    import ray.train

    each = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=each)


def task_options(gpus: bool) -> dict[str, Any]:
    """Return an assessment's Ray options: a GPU and a core, or neither, with no GPU in sight."""
    variables = forwarded_environment() | ({} if gpus else NO_GPU)
    return {"num_cpus": int(gpus), "num_gpus": int(gpus), "runtime_env": {"env_vars": variables}}


def cpus_per_worker(cluster: Cluster, gpus: bool) -> int:
    """Return CPU cores of each worker; shared out so that every worker finds a node with room."""
    import ray

    if cluster.cpus_per_worker:
        return cluster.cpus_per_worker
    if gpus:
        return 1
    nodes = [int(n["Resources"].get("CPU", 0)) for n in ray.nodes() if n["Alive"]]
    share = max(1, sum(nodes) // cluster.workers)
    while share > 1 and sum(cpus // share for cpus in nodes) < cluster.workers:
        share -= 1
    return share


def check_resources(cluster: Cluster, gpus: bool, cpus: int) -> None:
    """Refuse what the cluster cannot give, instead of waiting for it."""
    import ray

    needed = cluster.min_workers or cluster.workers
    has = ray.cluster_resources()
    asked = {"CPU": needed * cpus} | ({"GPU": needed} if gpus else {})
    short = {kind: n for kind, n in asked.items() if has.get(kind, 0) < n}
    if short and not cluster.autoscale:
        nodes = sum(n["Alive"] for n in ray.nodes())
        wanted = " and ".join(f"{n} {kind}s" for kind, n in short.items())
        there = " and ".join(f"{has.get(kind, 0):.0f} {kind}s" for kind in short)
        raise UserError(
            f"{needed} workers need {wanted}; the cluster of {nodes} node{'s' * (nodes != 1)} has "
            f"{there}. Use fewer --cluster.workers, or --cluster.autoscale where the cluster "
            "grows on demand"
        )
    free = ray.available_resources()
    if short:
        print("waiting for machines: the workers need more than the cluster has yet", flush=True)
    elif free and any(free.get(kind, 0) < n for kind, n in asked.items()):
        print("others are using this cluster; waiting until the workers have room", flush=True)


def run_as_task(function: Callable[..., Any], recipe: Recipe, *args: Any) -> Any:
    """Call a function as a Ray task, on a GPU where the cluster has one."""
    import ray
    from ray.exceptions import RayTaskError

    connect()
    gpus = wants_gpus(recipe.cluster)
    if gpus and ray.available_resources().get("GPU", 0) < 1:
        print("the cluster's GPUs are in use; waiting until one is free", flush=True)
    task = ray.remote(_with_secrets).options(**task_options(gpus), name=function.__name__)
    try:
        return ray.get(task.remote(SharedSecrets.of_driver(), function, *args))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _with_secrets(secrets: SharedSecrets, function: Callable[..., Any], *args: Any) -> Any:
    secrets.enter_environment()
    return function(*args)
