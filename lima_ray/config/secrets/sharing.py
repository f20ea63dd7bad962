"""Keys and tokens on their way to workers: from memory to memory.

Ray shows a job's and a worker's `runtime_env` to whoever holds the cluster's token, on the
dashboard and by `ray list`. Its GCS keeps the arguments of an actor's constructor, on a disk where
it is told to, and a small object that such an argument refers to may be put in its place. The
object store spills to disk. So none of them carries a secret: an actor holds them, workers get its
handle, and its calls go from process to process.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.secrets.reading import SECRETS, read_secret

JOB_CONFIG_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray gives a submitted job: its `runtime_env`, as JSON."""


@dataclass(frozen=True)
class SharedSecrets:
    """A driver's secrets as its workers get them: passed on as a handle, which shows nothing."""

    holder: Any = None
    """A `SecretsHolder`'s handle; none where the driver has no secret."""

    @classmethod
    def of_driver(cls, *variables: str) -> "SharedSecrets":
        """Share what this process has of `SECRETS`, and of more variables; Ray is connected."""
        import ray

        values = {name: read_secret(name) for name in {*SECRETS, *variables}}
        given = frozenset((name, value) for name, value in values.items() if value)
        own = ray.get_runtime_context()
        return cls(_start_holder(given, own.get_node_id(), own.get_job_id()) if given else None)

    def enter_environment(self) -> None:
        """Set the variables in this worker's process, where libraries look for them.

        Raises:
            UserError: the holder has died.
        """
        import ray

        if self.holder is None:
            return
        try:
            os.environ.update(ray.get(self.holder.tell.remote()))
        except ray.exceptions.RayActorError as error:
            raise UserError(
                f"the process that held the command's keys has died ({error}); what is saved is "
                "kept, and the same command goes on there"
            ) from error


class SecretsHolder:
    """An actor whose memory holds secrets; it ends with its driver."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.given = asyncio.Event()

    async def hold(self, values: dict[str, str]) -> None:
        self.values = values
        self.given.set()

    async def tell(self) -> dict[str, str]:
        """Return the secrets, once they have come; another process may ask before that."""
        await self.given.wait()
        return self.values


@lru_cache(maxsize=8)
def _start_holder(values: frozenset[tuple[str, str]], node: str, job: str) -> Any:
    """Start a holder beside the driver, and return its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    del job  # of another cluster or job, it is another holder
    beside = NodeAffinitySchedulingStrategy(node, soft=True)
    actor: Any = ray.remote(SecretsHolder).options(num_cpus=0, scheduling_strategy=beside)
    holder = actor.remote()
    holder.hold.remote(dict(values))
    return holder


def warn_of_shown_secrets() -> None:
    """Tell of secrets that a job was submitted with in its `runtime_env`."""
    job = json.loads(os.environ.get(JOB_CONFIG_ENV) or "{}")
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    if shown := [name for name in SECRETS if name in given]:
        print(
            f"warning: {join_names(shown)} stands in this job's runtime_env, which Ray shows to "
            "whoever holds the cluster's token. Put it into a file of the nodes instead "
            "(OPENAI_API_KEY_FILE, HF_TOKEN_PATH, NETRC name one)",
            flush=True,
        )
