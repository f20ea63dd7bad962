"""The census of a dump, whichever it is."""

from collections.abc import Callable
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.sources import reddit_census
from lima_ray.curation.sources.reddit_posts import PATTERNS as REDDIT
from lima_ray.curation.sources.stackexchange import census as stackexchange_census
from lima_ray.curation.stages import files_below

STACK_EXCHANGE = ("*.xml", "*.7z")
CENSUSES: dict[tuple[str, ...], Callable[[Path], str]] = {
    STACK_EXCHANGE: lambda path: stackexchange_census.census(path).table(),
    REDDIT: lambda path: reddit_census.census(path).table(),
}
"""By the names that files of a dump have."""


def take_census(path: Path) -> str:
    """Return what a dump holds and which known traps are in it, as lines to print.

    Args:
        path: a file of Stack Exchange or Reddit, or a folder of files of either or both.

    Raises:
        UserError: there is none.
    """
    if not path.exists():
        raise UserError(f"--census {path}: no such file or folder")
    if path.is_file():
        name = Path(path.name.lower())
        of_file = [count for names, count in CENSUSES.items() if any(map(name.match, names))]
        # A file may be called anything: lines of JSON are read, and anything else said to be none.
        return (of_file or [CENSUSES[REDDIT]])[0](path)
    said = []
    for names, count in CENSUSES.items():
        try:
            files_below(path, names)
        except UserError:
            continue
        said.append(count(path))
    if not said:
        files_below(path, [name for names in CENSUSES for name in names])
    return "\n\n".join(said)
