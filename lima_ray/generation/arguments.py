"""Arguments of the commands that have a model reply; light to import, to be read first."""

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from lima_ray.config.sections import Decoding, Sampling
from lima_ray.generation.endpoint import Endpoint


class GenerationJob(Decoding):
    """Who replies to what, and where the replies go."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory of a run or an export; with --endpoint the name of a model there."""
    prompts: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS")]
    """Rows to reply to: a file (JSON, CSV, Parquet ...), a directory, or a dataset of the hub."""
    out: Path
    """Directory for replies.jsonl; the same directory goes on where an earlier command stopped."""
    split: str = "test"
    """Split of prompts that are a directory or a dataset of the hub."""
    name: str = ""
    """The model's name in the replies; empty takes the run's or the endpoint's."""
    samples: int = Field(default=1, ge=1)
    """Replies to each prompt; the paper takes 1, and 5 in its ablations."""
    sampling: Sampling = Sampling()
    workers: int = Field(default=0, ge=0)
    """Engines over the Ray cluster; 0 takes one for each GPU, or for each node without any."""
    cpus_per_worker: int | None = Field(default=None, ge=0)
    """CPU cores that a worker claims of Ray; none shares out the cluster's on CPU and takes 1 on
    GPU, 0 claims nothing and so starts beside a training that holds them all."""
    slots: int = Field(default=32, ge=1)
    """Replies that one engine decodes at once."""
    server: Annotated[Endpoint, tyro.conf.arg(name="")] = Endpoint()


class ChatCommand(Decoding):
    """What the command line says of a chat."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory of a run, an export or a base; or the URL of a server, ending in /v1."""
    name: str = ""
    """The model's name on the server; without it the server's first."""
    system: str = ""
    """A system message before the dialogue."""
    seed: int = 0
    """Seed of the first reply's draws; each later reply has the next."""
    sampling: Sampling = Sampling()
    """How to decode; its seed is not used, nor on a server its context."""
