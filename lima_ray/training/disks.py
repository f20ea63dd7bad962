"""Which workers share a disk: where a run lives in a bucket, each node has a copy of its own."""

import os
from pathlib import Path
from uuid import uuid4

from torch import distributed as dist

from lima_ray.config.storage.working_copy import location

DISK_FILE = ".disk.lock"
"""Holds the name of the disk; it never goes to the store."""


def leads_disk(folder: Path) -> bool:
    """Return whether this worker is the first of those that see a folder; all call it together.

    A folder of no bucket is one that all see, so the first worker leads it.
    """
    if location(folder) is None:
        return dist.get_rank() == 0
    names: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(names, name_disk(folder))
    return names.index(names[dist.get_rank()]) == dist.get_rank()


def name_disk(folder: Path) -> str:
    """Return a name that a folder's disk has had since somebody asked first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / DISK_FILE
    trial = folder / f".{uuid4().hex}.partial"
    trial.write_text(uuid4().hex)
    try:
        os.link(trial, file)  # of several at once one succeeds
    except FileExistsError:
        pass
    finally:
        trial.unlink()
    return file.read_text()
