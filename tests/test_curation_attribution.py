"""The attribution of rows: authors' names out of Users.xml, licences, and what each row says."""

from pathlib import Path

import py7zr
import pytest
from lxml import html  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs
from markdown_it import MarkdownIt

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card import authors
from lima_ray.curation.card.attribution import attribution_blocks
from lima_ray.curation.card.licences import find_licence, whole_licence
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.recipe import Curation
from lima_ray.results.page.markdown import markdown_page

BEER = "https://beer.stackexchange.com"
USERS = """\ufeff<?xml version="1.0" encoding="utf-8"?>\r
<!-- This file is licensed
 under CC BY-SA -->\r
<users>\r
  <row Id="-1" Reputation="1" DisplayName="Community" />\r
  <row Id="7" Reputation="9" DisplayName="Ann &amp; &quot;Bo&quot; [x](y) &#x1E;" AccountId="8" />\r
  <row Id="8" Reputation="9" DisplayName="Not asked for" AboutMe="I am Id=&quot;9&quot;" />\r
  <row Id="9" Reputation="9" />\r
  <row Id="12" DisplayName="Zoë" Reputation="1" />\r
</users>"""
POSTS = """<?xml version="1.0"?>
<posts>
  <row Id="7" PostTypeId="1" OwnerDisplayName="gone" Title="no DisplayName=&quot;7&quot;" />
</posts>"""
CURATION = Curation(
    name="few",
    sources={
        "se": {"kind": "stackexchange", "path": "."},
        "how": {"kind": "wikihow", "path": "wikihow.csv"},
        "none": {"kind": "examples", "path": "own.jsonl"},
    },  # pyright: ignore[reportArgumentType]  # sections as a recipe file has them
)
ROWS: dict[str, list[Candidate]] = {
    "se": [
        Candidate(
            "beer/1",
            ("What | is\n<b>this</b> *beer*? " + "word " * 40, "Beer."),
            "stackexchange",
            "beer",
            url=f"{BEER}/a/2",
            authors=(f"{BEER}/users/7", f"{BEER}/users/12", f"{BEER}/users/7"),
            licence="CC BY-SA 2.5, CC BY-SA 3.0",
        ),
        Candidate(
            "beer/3",
            ("Second", "Reply"),
            "stackexchange",
            "beer",
            url="javascript:alert(1)",
            authors=("<i>Old [name]</i>",),
            licence="CC BY-SA 4.0",
        ),
        Candidate("ale.meta/4", ("Third", "Reply"), "stackexchange", "ale.meta"),
    ],
    "how": [Candidate("how/1", ("How", "So."), "wikihow", "Food", licence="CC BY-NC-SA 3.0")],
    "none": [],
}


def site(folder: Path, users: str | None = USERS) -> Path:
    """A site's folder as dumps have it."""
    folder.mkdir()
    (folder / "Posts.xml").write_text(POSTS, encoding="utf-8")
    if users is not None:
        (folder / "Users.xml").write_bytes(users.encode())
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """The folder's files in one archive."""
    with py7zr.SevenZipFile(archive, "w", filters=[{"id": py7zr.FILTER_BZIP2}]) as out:
        for file in sorted(folder.iterdir()):
            out.write(file, file.name)
    return archive


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("- “")]


def test_names_of_wanted_users_are_found_in_xml_and_in_archives(tmp_path: Path) -> None:
    folder = site(tmp_path / "beer")
    wanted = {7, 9, 12, 999}
    found = {7: 'Ann & "Bo" [x](y) ', 12: "Zoë"}
    assert authors.user_names([folder / "Users.xml"], wanted) == found
    archive = pack(folder, tmp_path / "beer.stackexchange.com.7z")
    assert authors.user_names([archive], wanted) == found
    assert authors.user_names([], wanted) == {}
    assert authors.user_names([archive], set()) == {}


def test_an_archive_without_users_is_not_unpacked(tmp_path: Path) -> None:
    folder = site(tmp_path / "beer", users=None)
    archive = pack(folder, tmp_path / "beer.stackexchange.com.7z")
    assert authors.users_ranges(archive) == []


def test_files_are_read_until_all_names_are_known(tmp_path: Path) -> None:
    rows = (f'  <row Id="{n}" Reputation="1" DisplayName="name {n}" />' for n in range(50_000))
    file, missing = tmp_path / "Users.xml", tmp_path / "not-there.xml"
    file.write_text("\n".join(["<users>", *rows, "</users>"]))  # of several blocks
    found = authors.user_names([file, missing], {0, 49_999})
    assert found == {0: "name 0", 49_999: "name 49999"}
    with pytest.raises(UserError, match=r"not-there\.xml cannot be read"):
        authors.user_names([file, missing], {50_000})


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_authors_of_rows_are_named_by_their_profile(tmp_path: Path, packed: bool) -> None:
    folder = site(tmp_path / "beer")
    if packed:
        pack(folder, tmp_path / "beer.stackexchange.com.7z")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    curation = CURATION.model_copy(update={"inputs": str(tmp_path)})
    assert authors.read_author_names(curation, ROWS) == {
        f"{BEER}/users/7": 'Ann & "Bo" [x](y) ',
        f"{BEER}/users/12": "Zoë",
    }


def test_large_sites_have_an_archive_for_their_users(tmp_path: Path) -> None:
    for name in ("stackoverflow.com-Posts.7z", "stackoverflow.com-Users.7z", "other-Users.7z"):
        (tmp_path / name).touch()
    found = authors.users_files([tmp_path / "stackoverflow.com-Posts.7z"])
    assert found == [tmp_path / "stackoverflow.com-Users.7z"]


def test_a_site_without_users_gives_no_names(tmp_path: Path) -> None:
    site(tmp_path / "beer", users=None)
    curation = CURATION.model_copy(update={"inputs": str(tmp_path)})
    assert authors.read_author_names(curation, ROWS) == {}


def test_damaged_users_are_named(tmp_path: Path) -> None:
    rows = "\n".join(f'<row Id="{n}" DisplayName="{n * n}" />' for n in range(20_000))
    folder = site(tmp_path / "beer", f"<users>\n{rows}\n</users>")
    archive = pack(folder, tmp_path / "beer.7z")
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    archive.write_bytes(content)
    with pytest.raises(DumpError, match=r"beer\.7z"):
        authors.user_names([archive], {19_999})
    archive.write_bytes(content[:middle])
    with pytest.raises(UserError, match=r"beer\.7z is damaged or cut off"):
        authors.user_names([archive], {19_999})


def test_every_row_stands_with_author_address_licence_and_changes() -> None:
    names = {f"{BEER}/users/7": 'Ann & "Bo" [x](y)', f"{BEER}/users/12": "Zoë"}
    text = markdown_page(attribution_blocks(CURATION, ROWS, names, edited=["beer/3"]))
    found = lines(text)
    assert len(found) == sum(map(len, ROWS.values()))
    for row in (row for rows in ROWS.values() for row in rows):
        assert sum(f"({row.id})" in line for line in found) == 1
    first = next(line for line in found if "(beer/1)" in line)
    assert f"[Zoë]({BEER}/users/12)" in first
    assert first.count(f"{BEER}/users/7)") == 1  # who asks and answers is named once
    assert f"<{BEER}/a/2>" in first
    assert "[CC BY-SA 2.5](https://creativecommons.org/licenses/by-sa/2.5/)" in first
    assert "[CC BY-SA 3.0](https://creativecommons.org/licenses/by-sa/3.0/)" in first
    assert "edited by hand" not in first
    assert next(line for line in found if "(beer/3)" in line).endswith("edited by hand")
    nothing = next(line for line in found if "(ale.meta/4)" in line)
    assert nothing.endswith("by author not known; no address; **no licence named**")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        *("# Attribution: few", "## Licences"),
        *("## se", "### ale.meta", "### beer", "## how", "### Food"),
    ]
    assert text.count("\nChanges: ") == 2


def test_attribution_shows_texts_of_others_and_nothing_else() -> None:
    names = {f"{BEER}/users/7": 'Ann & "Bo" [x](y)'}
    text = markdown_page(attribution_blocks(CURATION, ROWS, names))
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tree = html.fromstring(rendered)
    assert not tree.xpath("//b | //i | //em")
    assert not [href for href in tree.xpath("//@href") if not href.startswith("https://")]
    shown = tree.text_content()
    assert "“What | is <b>this</b> *beer*? word" in shown
    assert "<i>Old [name]</i>" in shown
    assert "javascript:alert(1)" in shown
    assert 'Ann & "Bo" [x](y)' in tree.xpath(f"//a[@href='{BEER}/users/7']/text()")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("CC BY-SA 2.5", "https://creativecommons.org/licenses/by-sa/2.5/"),
        ("CC BY-NC-SA 3.0", "https://creativecommons.org/licenses/by-nc-sa/3.0/"),
        ("cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/"),
        ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        ("Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        ("Reddit User Agreement", "https://redditinc.com/policies/user-agreement"),
        ("my own", ""),
    ],
)
def test_a_licence_has_the_address_of_its_text(name: str, url: str) -> None:
    assert find_licence(name).url == url


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        (["CC BY-SA 2.5", "CC BY-SA 3.0, CC BY-SA 4.0"], "CC BY-SA 4.0"),
        (["CC BY-SA 3.0", "CC BY 4.0", "CC0 1.0", "MIT"], "CC BY-SA 3.0"),
        (["CC BY-NC-SA 3.0", "CC BY-NC 4.0"], "CC BY-NC-SA 3.0"),
        (["CC BY 3.0", "CC BY 4.0"], "CC BY 4.0"),
        (["Apache-2.0", "Apache-2.0"], "Apache-2.0"),
        (["Apache-2.0", "MIT", "CC0 1.0"], "Apache-2.0 and MIT"),
        (["Apache-2.0", "CC BY 3.0"], "CC BY 3.0"),
        (["CC0 1.0", "PDDL"], "CC0 1.0"),
    ],
)
def test_the_strictest_licence_holds_for_all(said: list[str], whole: str) -> None:
    assert whole_licence(said).name == whole
    assert whole_licence(said).conflicts == ()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["CC BY-SA 3.0", "CC BY-NC-SA 3.0"], "forbid commercial use"),
        (["CC BY-SA 3.0", "CC BY-NC 4.0"], "forbid commercial use"),
        (["CC BY-SA 3.0", "CC BY-ND 4.0"], "CC BY-ND 4.0 lets nobody pass a changed text on"),
        (["CC BY-SA 3.0", ""], "1 of 2 rows name no licence"),
        (["my own"], "my own"),
        (["CC0 1.0", "Reddit User Agreement"], "authors keep the right"),
    ],
)
def test_licences_that_exclude_each_other_are_named(said: list[str], why: str) -> None:
    found = whole_licence(said)
    assert found.name == ""
    assert any(why in conflict for conflict in found.conflicts)
