"""Keys and tokens on their way to workers: from memory to memory.

Ray shows a job's and a worker's `runtime_env` to whoever holds the cluster's token, on the
dashboard and by `ray list`, and its GCS keeps the arguments of an actor's constructor, on a disk
where it is told to. So neither carries a secret. Workers get a reference, and with it ask the
driver for the values, whose memory alone holds them.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

from lima_ray.config.errors import join_names
from lima_ray.config.secrets.reading import SECRETS, read_secret

JOB_CONFIG_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray gives a submitted job: its `runtime_env`, as JSON."""


@dataclass(frozen=True)
class SharedSecrets:
    """A driver's secrets as its workers get them: passed on as a reference, which shows nothing."""

    reference: Any = None
    """Ray's, to the values by variable; none where the driver has no secret."""

    @classmethod
    def of_driver(cls, *variables: str) -> "SharedSecrets":
        """Share what this process has of `SECRETS`, and of more variables; Ray is connected."""
        import ray

        values = {name: read_secret(name) for name in {*SECRETS, *variables}}
        values = {name: value for name, value in values.items() if value}
        if not values:
            return cls()
        # A task's small return stays in its caller's memory; `ray.put` would write it into the
        # object store, which spills to disk.
        return cls(ray.remote(_same).options(num_cpus=0).remote(values))

    def enter_environment(self) -> None:
        """Set the variables in this worker's process, where libraries look for them."""
        import ray

        if self.reference is not None:
            os.environ.update(ray.get(self.reference))


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


def _same(values: dict[str, str]) -> dict[str, str]:
    return values
