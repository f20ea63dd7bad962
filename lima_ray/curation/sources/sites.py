"""Stack Exchange's sites: which are STEM, and which files of a folder belong to which."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.flags import did_you_mean
from lima_ray.curation.stages import files_below

LIST = Path(__file__).parent / "sites.yaml"
OWN_DOMAINS = {
    "stackoverflow": "stackoverflow.com",
    "superuser": "superuser.com",
    "serverfault": "serverfault.com",
    "askubuntu": "askubuntu.com",
    "mathoverflow": "mathoverflow.net",
    "stackapps": "stackapps.com",
}
ARCHIVE = re.compile(r"(?:-posts)?\.7z$", re.IGNORECASE)
DOMAIN = re.compile(r"\.(?:stackexchange\.com|com|net)$", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One site of a dump."""

    name: str
    """Such as cooking, or history.meta."""
    host: str
    """Such as cooking.stackexchange.com."""
    files: tuple[str, ...]
    """That hold its posts."""


@cache
def site_sets() -> dict[str, frozenset[str]]:
    """Return the names of sites: `stem`, `other` and `discarded`."""
    tree = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return {name: frozenset(sites) for name, sites in tree.items()}


def find_sites(path: Path, wanted: str | Sequence[str]) -> list[Site]:
    """Return the sites of a dump: a folder of archives or of folders, one of them, or one file.

    Args:
        path: the dump.
        wanted: `all`, `stem`, `other`, or names.

    Raises:
        UserError: no posts there, or none of a site that is wanted by name.
    """
    files: dict[str, list[str]] = {}
    for file in files_below(path, ["posts.xml", "*.7z"]):
        name = site_name(file)
        if name is not None:
            files.setdefault(name, []).append(str(file))
    found = [Site(name, host(name), tuple(paths)) for name, paths in sorted(files.items())]
    if wanted == "all":
        return found
    if isinstance(wanted, str):
        return [site for site in found if site.name in site_sets()[wanted]]
    missing = [name for name in wanted if name not in files]
    if missing:
        near = did_you_mean(missing[0], list(files))
        raise UserError(
            f"{path} holds no site {', '.join(missing)}{near or ';'} it has "
            f"{join_names(sorted(files))}"
        )
    return [site for site in found if site.name in wanted]


def site_name(file: Path) -> str | None:
    """Return the site whose posts a file holds; none where it holds something else."""
    if file.suffix.lower() == ".7z":
        stem = ARCHIVE.sub("", file.name)
        # Large sites come as an archive for each table.
        if re.search(r"-(badges|comments|posthistory|postlinks|tags|users|votes)$", stem, re.I):
            return None
    else:
        stem = file.parent.name
    return DOMAIN.sub("", stem.lower()).replace("_", ".")


def host(name: str) -> str:
    """Return the address of a site."""
    return OWN_DOMAINS.get(name, f"{name}.stackexchange.com")
