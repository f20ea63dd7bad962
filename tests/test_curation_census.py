"""The census tells what a dump holds and which traps are in it."""

from pathlib import Path

import py7zr
import pytest
from stack_exchange import HEAD, answer, dump, question, row

from lima_ray.config.errors import UserError
from lima_ray.curation.sources.stackexchange.census import census

ROWS = [
    question(1),
    answer(2, 1, OwnerUserId=-2, ContentLicense=None),
    answer(3, 1, OwnerUserId=None, CreationDate="2024-03-31T00:00:00.000"),
    answer(4, 1).replace("foam", "&#x1E;"),
    question(1000000001, OwnerUserId=-1),
    row(Id=5, PostTypeId=4, Body="x" * 10_000_001, OwnerUserId=1, ContentLicense="CC BY-SA 4.0"),
]
HEAD_OF_TRAPS = "\ufeff" + HEAD.replace("<posts>", "<!-- licence\n-->\n<!DOCTYPE posts>\n<posts>")


@pytest.mark.parametrize("packed", [False, True])
def test_a_census_counts_rows_and_traps(tmp_path: Path, packed: bool) -> None:
    data = dump(ROWS, HEAD_OF_TRAPS, newline="\r\n")
    folder = tmp_path / "beer"
    folder.mkdir()
    if packed:
        with py7zr.SevenZipFile(
            folder / "beer.stackexchange.com.7z", "w", filters=[{"id": py7zr.FILTER_BZIP2}]
        ) as archive:
            archive.writestr(b"<comments>\n</comments>\n", "Comments.xml")
            archive.writestr(data, "Posts.xml")
    else:
        (folder / "posts.xml").write_bytes(data)
        (folder / "Comments.xml").write_bytes(b"<comments>\n</comments>\n")
    found = census(folder)
    assert found.rows == {"questions": 2, "answers": 3, "other posts": 1}
    assert found.traps == {
        "byte order mark": 1,
        "DOCTYPE": 1,
        "licence comment before the root": 1,
        "CRLF": 6,
        "illegal characters": 1,
        "fabricated rows": 1,
        "Answer Bot": 1,
        "rows without an owner": 1,
        "rows without a licence": 1,
        "rows over 10 MB": 1,
    }
    assert (found.last, found.recent) == ("2024-03-31", 1)
    assert found.tables == {"Posts", "Comments"}
    table = found.table()
    assert "Users, PostHistory" in table
    assert "16.7% of posts" in table
    assert not packed or "bzip2, solid" in table


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "Posts.xml").write_bytes(dump(ROWS[:2])[:-12])
    assert "is cut off at byte" in census(tmp_path).table()


def test_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / "beer.7z").write_bytes(b"7z\xbc\xaf\x27\x1c cut")
    assert "cannot be read as .7z" in census(tmp_path).table()
    with pytest.raises(UserError, match="no such file"):
        census(tmp_path / "none")
