"""The census of Reddit's dumps: types that drift, what was removed, scores read too early."""

import json
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.errors import UserError
from lima_ray.curate import main
from lima_ray.curation.arguments import parse_curate
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.sources.census import take_census
from lima_ray.curation.sources.reddit_census import census

DAY, HOUR = 1_390_000_000, 3600
READ = {"retrieved_on": DAY + 99 * HOUR}


def submission(id: str, **more: Any) -> dict[str, Any]:
    record = {"id": id, "title": "Why?", "subreddit": "AskReddit", "score": 5, "author": "a"}
    return record | {"created_utc": DAY, "edited": False, **READ} | more


def comment(id: str, **more: Any) -> dict[str, Any]:
    record = {"id": id, "link_id": "t3_s1", "parent_id": "t3_s1", "body": "So.", "author": "b"}
    return record | {"subreddit": "Pics", "score": 1, "created_utc": DAY, **READ} | more


RECORDS: list[Any] = [
    submission("s1", created_utc=str(DAY), edited=DAY + 5.0),
    submission("s2", selftext="[removed]", author="[deleted]", removed_by_category="moderator"),
    submission("s3", stickied=True, score=None),
    submission("s4", created_utc=1_700_000_000, retrieved_on=None),
    submission(
        "s5",
        _meta={
            "retrieved_2nd_on": DAY + 36 * HOUR,
            "removal_type": "deleted",
            "was_deleted_later": True,
        },
        retrieved_on=DAY + 5,
    ),
    submission("s6", retrieved_on=DAY + 5),
    comment("c1", body="[deleted]"),
    comment("c2", distinguished="moderator"),
    comment("c3", created_utc=None),
    {"name": "no post"},
    [1],
]


def lines(records: list[Any]) -> bytes:
    return "".join(f"{json.dumps(r)}\n" for r in records).encode() + b"{half\n\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_census_counts_posts_types_and_traps(tmp_path: Path, packed: bool) -> None:
    said = lines(RECORDS)
    file = tmp_path / ("RS_2014-01.zst" if packed else "RS_2014-01")
    file.write_bytes(zstd.compress(said) if packed else said)
    found = census(tmp_path)
    assert found.rows == {"submissions": 6, "comments": 3}
    assert found.subreddits == {"AskReddit": 6, "Pics": 3}
    assert found.types["created_utc"] == {"number": 7, "text": 1, "null": 1}
    assert found.types["edited"] == {"bool": 5, "number": 1, "absent": 3}
    assert found.types["score"] == {"number": 8, "null": 1}
    assert found.types["retrieved_on"] == {"number": 8, "null": 1}
    assert found.traps == {
        "text is [removed]": 1,
        "text is [deleted]": 1,
        "author is gone": 1,
        "removed by moderator": 1,
        "pinned or official: stickied": 1,
        "pinned or official: a moderator's": 1,
        "no score": 1,
        "no date": 1,
        "read twice (_meta)": 1,
        "removal type deleted": 1,
        "_meta.was_deleted_later": 1,
        "score read within 24 hours": 1,
        "score read at an unknown time": 2,
        "lines that are no JSON": 1,
        "records that are neither submission nor comment": 2,
    }
    assert (found.first, found.last, found.recent) == ("2014-01-17", "2023-11-14", 1)
    table = found.table()
    assert f"{file.name}: {'zstd' if packed else 'plain'}" in table
    assert "created_utc" in table and "null 1, number 7, text 1" in table


@pytest.mark.parametrize(
    "field", ["author", "subreddit", "distinguished", "selftext", "_meta", "removed_by_category"]
)
@pytest.mark.parametrize("value", [["a"], {"removal_type": ["a"]}, 5, True])
def test_a_field_of_any_type_is_counted(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "RS_2014-01").write_bytes(lines([submission("s1", **{field: value})]))
    found = census(tmp_path)
    assert found.rows == {"submissions": 1} and found.table()


def test_empty_lines_are_no_trap(tmp_path: Path) -> None:
    line = json.dumps(submission("s1")).encode()
    (tmp_path / "RS_2014-01").write_bytes(b"\n \n" + line + b"\n\n")
    assert census(tmp_path).traps == {}


def test_what_is_cut_off_or_not_read_is_told(tmp_path: Path) -> None:
    whole = zstd.compress(lines(RECORDS))
    (tmp_path / "RC_2014-01.zst").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "RC_2023-04.zst_blocks").write_bytes(b"")
    (tmp_path / "top.csv").write_text("id,title,score\ns1,Why?,5\ns2,So\n")
    found = census(tmp_path)
    assert len(found.damage) == 1 and "RC_2014-01.zst" in found.damage[0]
    assert "is not read" in found.files["RC_2023-04.zst_blocks"]
    assert found.rows["submissions"] >= 1
    assert found.traps["table rows with another number of cells"] == 1


def test_the_command_takes_a_folder_of_both_kinds_of_dumps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Posts.xml").write_text("<posts>\n</posts>\n")
    (tmp_path / "RS_2014-01").write_bytes(lines([submission("s1", subreddit="\x1b[31m")]))
    main(parse_curate(["--census", str(tmp_path)], "curate", ""))
    shown = capsys.readouterr().out
    assert "tables" in shown and "submissions" in shown and "\x1b" not in shown
    any_name = tmp_path / "anything.txt"
    any_name.write_bytes(lines([comment("c1")]))
    assert "Pics 1" in take_census(any_name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \*\.xml or \*\.7z or rs_\*"):
        take_census(tmp_path / "empty")


def test_names_of_a_month_of_all_subreddits_stay_few(tmp_path: Path) -> None:
    records = [submission(f"s{n}", subreddit=f"r{n}") for n in range(1500)]
    (tmp_path / "RS_2014-01").write_bytes(lines(records))
    found = census(tmp_path)
    assert len(found.subreddits) == 1000
    assert "995 others or more" in found.table()
