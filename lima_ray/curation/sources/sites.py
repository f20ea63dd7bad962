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
from lima_ray.results.units import counted

LIST = Path(__file__).parent / "sites.yaml"
OWN_DOMAINS = frozenset({"stackoverflow", "superuser", "serverfault", "askubuntu", "stackapps"})
ARCHIVE = re.compile(r"(?:-posts)?\.7z$", re.IGNORECASE)
OTHER_TABLES = re.compile(
    r"-(?:badges|comments|posthistory|postlinks|tags|users|votes)$", re.IGNORECASE
)
"""Large sites may come as an archive for each table."""
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
    """Return the names of sites, former ones too: `stem`, `other` and `discarded`."""
    tree = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    renamed = tree.pop("renamed")
    return {
        name: frozenset([*sites, *(old for old, new in renamed.items() if new in sites)])
        for name, sites in tree.items()
    }


def find_sites(path: Path, wanted: str | Sequence[str]) -> list[Site]:
    """Return the sites of a dump: a folder of archives or of folders, one of them, or one file.

    Sites that stand in no set, and are no meta sites, are told where a set is wanted.

    Args:
        path: the dump.
        wanted: `all`, `stem`, `other`, or names; meta sites are in no set.

    Raises:
        UserError: no posts there, none of a name that is wanted, or a site twice.
    """
    files: dict[str, list[Path]] = {}
    for file in files_below(path, ["posts.xml", "*.7z"]):
        name = site_name(file)
        if name is not None:
            files.setdefault(name, []).append(file)
    if wanted == "all":
        return [make_site(name, files[name]) for name in sorted(files)]
    if isinstance(wanted, str):
        names = in_set(wanted, list(files))
        if not names:  # the rows that are missing stop the command, unless these are enough
            print(f"{path} holds no site of the set {wanted}; it has {join_names(sorted(files))}")
    else:
        names = list(wanted)
    if missing := [name for name in names if name not in files]:
        near = did_you_mean(missing[0], list(files))
        raise UserError(
            f"{path} holds no site {', '.join(missing)}{near or ';'} it has "
            f"{join_names(sorted(files))}"
        )
    return [make_site(name, files[name]) for name in sorted(set(names))]


def in_set(wanted: str, names: Sequence[str]) -> list[str]:
    """Return the names that stand in a set, and tell those that stand in none."""
    sets = site_sets()
    known = frozenset().union(*sets.values())
    strange = sorted(name for name in names if name not in known and not is_meta(name))
    metas = sum(map(is_meta, names))
    if strange or metas:
        said = ([join_names(strange)] if strange else []) + (
            [counted(metas, "meta site")] if metas else []
        )
        print(
            f"left out: {' and '.join(said)}, neither STEM nor other by {LIST.name}; name them "
            "under `sites` to take them"
        )
    return [name for name in names if name in sets[wanted]]


def make_site(name: str, files: Sequence[Path]) -> Site:
    """Return a site.

    Raises:
        UserError: its posts stand in several files, and would count twice.
    """
    if len(files) > 1:
        shown = ", ".join(map(str, files))
        raise UserError(f"the posts of {name} stand in {shown}; keep one, and move the others away")
    return Site(name, host(name), tuple(map(str, files)))


def is_meta(name: str) -> bool:
    """Return whether a site is about another one, or about all."""
    return "meta" in name.split(".")


def site_name(file: Path) -> str | None:
    """Return the site whose posts a file holds; none where it holds something else."""
    if file.suffix.lower() == ".7z":
        stem = ARCHIVE.sub("", file.name)
        if OTHER_TABLES.search(stem):
            return None
    else:
        stem = file.resolve().parent.name
    return DOMAIN.sub("", stem.lower()).replace("_", ".")


def host(name: str) -> str:
    """Return the address of a site; a name under `.example` is one (RFC 2606)."""
    if name.endswith(".example"):
        return name
    if name == "mathoverflow" or name.endswith(".mathoverflow"):
        return f"{name}.net"
    own = name.rpartition(".")[2] in OWN_DOMAINS
    return f"{name}.com" if own else f"{name}.stackexchange.com"
