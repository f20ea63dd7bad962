"""Where things stand: the package, what a recipe names, and what is written."""

import re
from pathlib import Path

from lima_ray.config.errors import UserError

PACKAGE = Path(__file__).parents[1]
RECIPES = PACKAGE / "recipes"


def resolve(reference: str) -> Path | None:
    """Return the local path a recipe names, or none where it names something on the hub.

    A path that starts with `lima_ray/` and is not found here is one inside the installed package.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return path.absolute()
    inside = PACKAGE.parent / reference
    return inside if reference.startswith("lima_ray/") and inside.exists() else None


def absolute_reference(reference: str) -> str:
    """Return a base or a file by its absolute path; what the package or the hub has, as it is."""
    path = None if reference.startswith("lima_ray/") else resolve(reference)
    return str(path or reference)


def output_path(path: Path) -> Path:
    """Make a folder absolute; refuse an address, such as s3://bucket.

    Ray removes a job's unpacked working directory once the job is gone, so there a relative path is
    taken from `~/lima_ray` instead.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        address = str(path).replace(":/", "://", 1)
        raise UserError(
            f"{address} is no folder: results go to a local or shared file system. Mount the "
            "bucket or share, and name its folder"
        )
    path = path.expanduser()
    inside_job = "runtime_resources" in Path.cwd().parts
    root = Path.home() / "lima_ray" if inside_job else Path.cwd()
    return path if path.is_absolute() else root / path
