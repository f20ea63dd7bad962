"""Names of Stack Exchange's users, which its dumps keep in Users.xml, apart from the posts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.dumps import sevenzip
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import Range, read_blocks, split
from lima_ray.curation.recipe import Curation, StackExchange
from lima_ray.curation.sources.sites import find_sites
from lima_ray.curation.sources.stackexchange import posts

USERS = "users.xml"


def read_author_names(
    curation: Curation, chosen: Mapping[str, Sequence[Candidate]], keep_damaged: bool = False
) -> dict[str, str]:
    """Return the display names of the rows' authors by the address of their profile.

    Users.xml is looked for beside the posts, or in the same archive; an author whose site has none,
    or whose account is gone, is left out.

    Args:
        curation: the recipe.
        chosen: the rows of each source.
        keep_damaged: of a file that is damaged, take what stands before that.

    Raises:
        DumpError: a Users.xml is damaged, and that is not to be kept.
    """
    found: dict[str, str] = {}
    for name, section in curation.sources.items():
        if not isinstance(section, StackExchange) or not chosen.get(name):
            continue
        for site in find_sites(Path(curation.inputs) / section.path, section.sites):
            profile = f"https://{site.host}/users/"
            wanted = wanted_ids(chosen[name], profile)
            if wanted:
                names = user_names(users_files(map(Path, site.files)), wanted, keep_damaged)
                found |= {f"{profile}{id}": name for id, name in names.items()}
    return found


def wanted_ids(candidates: Iterable[Candidate], profile: str) -> set[int]:
    """Return the ids of authors whose profile's address starts so."""
    ends = (
        author.removeprefix(profile)
        for candidate in candidates
        for author in candidate.authors
        if author.startswith(profile)
    )
    return {int(end) for end in ends if end.isdecimal()}


def users_files(posts_files: Iterable[Path]) -> list[Path]:
    """Return the files that hold the users of a site, by the files of its posts."""
    found: dict[Path, None] = {}
    for file in posts_files:
        ending = {".xml": USERS, ".7z": file.name.lower().replace("-posts.7z", "-users.7z")}
        wanted = ending.get(file.suffix.lower())
        found |= {f: None for f in sorted(file.parent.iterdir()) if f.name.lower() == wanted}
    return list(found)


def user_names(
    files: Sequence[Path], wanted: Collection[int], keep_damaged: bool = False
) -> dict[int, str]:
    """Return the display names of some users of a site; those who are not there are left out.

    Files are read in blocks until all are found; only the names that are wanted are in memory.

    Args:
        files: Users.xml, or archives that hold it.
        wanted: ids.
        keep_damaged: of a file that is damaged, take what stands before that.

    Raises:
        DumpError: a file is damaged, and that is not to be kept.
        UserError: a file that is not there, or an archive that cannot be read.
    """
    missing, names = set(wanted), dict[int, str]()
    for file in files:
        if not missing:
            break
        try:
            blocks = (block for piece in users_ranges(file) for _, block in read_blocks(piece))
            while missing and (block := next(blocks, None)) is not None:
                found = names_in(block, missing)
                names |= found
                missing -= found.keys()
        except DumpError:
            if not keep_damaged:
                raise
    return names


def users_ranges(file: Path) -> list[Range]:
    """Return the ranges of a file that can hold users: of an archive the streams with Users.xml."""
    ranges = split(file)
    if file.suffix.lower() != ".7z":
        return ranges
    starts = {
        stream.start
        for stream in sevenzip.streams(file)
        if not stream.members
        or any(Path(name).name.lower() == USERS for name, *_ in stream.members)
    }
    return [piece for piece in ranges if piece.stream_start in starts]


def names_in(block: bytes, wanted: Collection[int]) -> dict[int, str]:
    """Return the names that some whole lines hold of users who are wanted."""
    found: dict[int, str] = {}
    for line in block.split(b"\n"):
        # Other tables of an archive that is one stream have no display name beside an id.
        if b' DisplayName="' not in line or posts.number(posts.ID, line) not in wanted:
            continue
        row = posts.read_row(line)
        if row and row.get("DisplayName") and int(row["Id"]) in wanted:
            found[int(row["Id"])] = row["DisplayName"]
    return found
