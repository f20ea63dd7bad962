"""Where things stand: the package, what a recipe names, and what is written."""

import re
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.storage.bucket import is_url, parse_url
from lima_ray.config.storage.changing_files import fetch_url
from lima_ray.config.storage.working_copy import local_path

PACKAGE = Path(__file__).parents[1]
RECIPES = PACKAGE / "recipes"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def resolve(reference: str) -> Path | None:
    """Return the local path a recipe names, or none where it names something on the hub.

    A path that starts with `lima_ray/` and is not found here is one inside the installed package.
    What the URL of a bucket names is fetched, and its copy's path returned.
    """
    if is_url(reference):
        return fetch_url(reference)
    path = Path(reference).expanduser()
    if path.exists():
        return path.absolute()
    inside = PACKAGE.parent / reference
    return inside if reference.startswith("lima_ray/") and inside.exists() else None


def absolute_reference(reference: str) -> str:
    """Return a base or a file by its absolute path; what others find by its name, as it is."""
    by_name = reference.startswith("lima_ray/") or is_url(reference)
    return str((None if by_name else resolve(reference)) or reference)


def stored_path(folder: str) -> Path:
    """Return the path of a folder of results: absolute, or a bucket's working copy here."""
    return local_path(folder) if is_url(folder) else output_path(Path(folder))


def readable_path(path: Path) -> Path:
    """Return a path as it is; what the URL of a bucket names is fetched, and its copy's path.

    A Path squeezes `s3://` to `s3:/`, which is understood.
    """
    if not is_url(str(path)):
        return path
    found = fetch_url(str(path))
    if found is None:
        raise UserError(f"there is nothing at {parse_url(str(path))}")
    return found


def output_path(path: Path) -> Path:
    """Make a folder absolute; refuse a URL, such as s3://bucket.

    Ray removes a job's unpacked working directory once the job is gone, so there a relative path is
    taken from `~/lima_ray` instead.
    """
    if ADDRESS.match(str(path)):
        address = str(path).replace(":/", "://", 1)
        raise UserError(
            f"{address} is no folder: results go to a local or shared file system; runs, sweeps "
            "and datasets to s3:// and gs:// too. Mount the bucket or share, and name its folder"
        )
    path = path.expanduser()
    inside_job = "runtime_resources" in Path.cwd().parts
    root = Path.home() / "lima_ray" if inside_job else Path.cwd()
    return path if path.is_absolute() else root / path
