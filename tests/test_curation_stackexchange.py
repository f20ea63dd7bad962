"""Stack Exchange by the paper's rule: what is kept, why the rest goes, whatever the ranges are."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import py7zr
import pytest
from conftest import ray_cluster
from stack_exchange import HEAD, answer, dump, question, random_rows, row

from lima_ray.config.errors import UserError
from lima_ray.curation import filters
from lima_ray.curation.candidate import Part
from lima_ray.curation.funnel import Funnel, count_funnel
from lima_ray.curation.markdown import to_markdown, to_prose, to_text
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.stackexchange.questions import StackExchangeReader

LICENCE = "<!--\r\nThis dump is under CC BY-SA.\r\nSee license.txt\r\n-->\r\n"
DOCTYPE = '<!DOCTYPE posts [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n'
Rows = dict[str, dict[str, Any]]
Found = tuple[Rows, Funnel]


def curation_of(folder: Path, **section: Any) -> Curation:
    """Return a recipe with a site's dump alone."""
    source = {"kind": "stackexchange", "path": "."} | section
    return Curation(name="x", inputs=str(folder), sources={"beer": source})  # pyright: ignore


def write_site(folder: Path, data: bytes, name: str = "Posts.xml") -> Path:
    """Write a site's posts; returns the folder of the dump."""
    site = folder / "dump" / "beer.stackexchange.com"
    site.mkdir(parents=True, exist_ok=True)
    (site / name).write_bytes(data)
    return folder / "dump"


def gather(parts: list[Part]) -> Found:
    """Return the candidates of parts by id, and their funnel."""
    rows = {c.id: vars(c) for part in parts for c in part.candidates()}
    chosen = sum(part.read("candidates").num_rows for part in parts)
    assert chosen == len(rows)
    tests = StackExchangeReader(curation_of(Path()).sources["beer"], Path(), 0).filters  # pyright: ignore
    funnel = count_funnel("beer", tests, parts, {}, chosen)
    assert funnel.seen == chosen + sum(funnel.dropped.values())
    dropped = [r["reason"] for part in parts for r in part.read("dropped").to_pylist()]
    assert Counter(dropped) == +Counter(funnel.dropped)
    return rows, funnel


def curate(
    work: Path,
    dumps: Path,
    range_bytes: int = 64 << 20,
    workers: int | None = 0,
    damaged: Any = "stop",
    **section: Any,
) -> Found:
    """Run the stages and return candidates and funnel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StackExchangeReader, "range_bytes", range_bytes)
        curation = curation_of(dumps, **section)
        return gather(run_stages(curation, work, workers, damaged)["beer"])


def reasons(found: Found) -> dict[str, int]:
    """Return the filters that dropped something."""
    return {name: count for name, count in found[1].dropped.items() if count}


def reference(data: bytes) -> tuple[dict[str, str], dict[str, int]]:
    """Apply the paper's rule to fully parsed XML: reply by question, and drops by reason."""
    rows = [dict(element.attrib) for element in ElementTree.fromstring(data)]
    questions = [r for r in rows if r["PostTypeId"] == "1"]
    replies, dropped = {}, Counter[str]()
    for q in questions:
        theirs = [
            r
            for r in rows
            if r["PostTypeId"] == "2"
            and r["ParentId"] == q["Id"]
            and int(r["Score"]) >= 10
            and r.get("OwnerUserId") != "-2"
        ]
        top = min(theirs, key=lambda r: (-int(r["Score"]), int(r["Id"])), default=None)
        if q.get("AnswerCount") == "0":
            dropped["unanswered"] += 1
        elif top is None:
            dropped["answer_score"] += 1
        elif top["CreationDate"] >= "2022-11-30":
            dropped["too_recent"] += 1
        elif not 1200 <= len(to_text(top["Body"])) <= 4096:
            dropped["answer_length"] += 1
        elif filters.no_first_person(to_prose(top["Body"])) is not True:
            dropped["first_person"] += 1
        elif filters.no_references(to_prose(top["Body"])) is not True:
            dropped["references"] += 1
        else:
            replies[f"beer/{q['Id']}"] = to_markdown(top["Body"])
    return replies, dict(dropped)


@pytest.mark.parametrize("seed", range(6))
def test_testing_bytes_first_keeps_the_rows_of_full_parsing(tmp_path: Path, seed: int) -> None:
    rows = random_rows(random.Random(seed), 80, usual=seed >= 3)
    data = dump(rows, newline="\r\n" if seed % 2 else "\n")
    found = curate(tmp_path / "work", write_site(tmp_path, data), range_bytes=20_000)
    replies, dropped = reference(data)
    assert {id: c["turns"][1] for id, c in found[0].items()} == replies
    assert reasons(found) == dropped
    assert len(dropped) == 6
    assert replies


@pytest.mark.parametrize("packed", [False, True])
def test_ranges_change_nothing(tmp_path: Path, packed: bool) -> None:
    data = dump(random_rows(random.Random(42), 40))
    dumps = write_site(tmp_path, data)
    if packed:
        (dumps / "beer.stackexchange.com" / "Posts.xml").unlink()
        with py7zr.SevenZipFile(
            dumps / "beer.stackexchange.com.7z", "w", filters=[{"id": py7zr.FILTER_BZIP2}]
        ) as archive:
            archive.writestr(b"<badges>\n</badges>\n", "Badges.xml")
            archive.writestr(data, "Posts.xml")
            archive.writestr(b"CC BY-SA", "license.txt")
    whole = curate(tmp_path / "whole", dumps)
    assert len(whole[0]) > 1
    for size in (1000, 5000, 50_000):
        assert curate(tmp_path / str(size), dumps, range_bytes=size) == whole


def test_joins_do_not_depend_on_order(tmp_path: Path) -> None:
    """Answers before their questions, equal scores, and a top answer that a filter drops."""
    rows = [
        answer(11, 1, Score=30, Body="<p>short</p>"),
        answer(12, 1, Score=12),
        answer(23, 2, Score=15, Body="<p>" + "Younger of two equal ones. " * 60 + "</p>"),
        answer(22, 2, Score=15, Body="<p>" + "Older of two equal ones. " * 60 + "</p>"),
        answer(24, 2, Score=9),
        question(3),
        question(2, AnswerCount=3),
        question(1, AnswerCount=2),
        question(4, AnswerCount=0),
        answer(31, 3, Score=9),
        answer(99, 98),
    ]
    for n, order in enumerate((rows, rows[::-1])):
        dumps = write_site(tmp_path / str(n), dump(order))
        for size in (1000, 64 << 20):
            found = curate(tmp_path / f"{n}-{size}", dumps, range_bytes=size)
            assert list(found[0]) == ["beer/2"]
            assert "Older" in found[0]["beer/2"]["turns"][1]
            expected = {"unanswered": 1, "answer_score": 1, "answer_length": 1}
            assert reasons(found) == expected
            assert found[1].seen == 4


@pytest.mark.parametrize("name", ["Posts.xml", "posts.xml"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_traps_of_dumps(tmp_path: Path, name: str, newline: str) -> None:
    head = "\ufeff" + HEAD.replace("<posts>", LICENCE.replace("\r\n", "\n") + DOCTYPE + "<posts>")
    rows = [
        question(1, Tags="|foam|hop|", OwnerUserId=None, OwnerDisplayName="user9"),
        answer(2, 1, ContentLicense=None).replace("foam", "fo&#x1E;am", 1),
        answer(3, 1, OwnerUserId=-2, Score=99),
        question(4, AnswerCount=None, ViewCount=None),
        answer(5, 4).replace("yeast", "&b;"),
        question(1000000001, OwnerUserId=-1, CreationDate="2025-06-01T01:00:00.100"),
        answer(1000000010, 4, OwnerUserId=-1, CreationDate="2025-06-01T01:03:15.100"),
        row(Id=6, PostTypeId=2, ParentId=4, Score=50, Body="x").replace("x", "cut &#x1;")[:-9],
        row(Id=7, PostTypeId=5, Score=50),
        row(Id=9, PostTypeId=2, Score=50),
        row(PostTypeId=1, Title="without an id"),
        row(Id=8, PostTypeId=2, ParentId=4),
    ]
    found = curate(tmp_path / "w", write_site(tmp_path, dump(rows, head, newline=newline), name))
    assert list(found[0]) == ["beer/1"]
    assert found[0]["beer/1"]["turns"][1].count("foam") == 60
    assert found[0]["beer/1"]["licence"] == "CC BY-SA 3.0"
    assert found[0]["beer/1"]["authors"] == ("user9", "https://beer.stackexchange.com/users/8")
    assert found[0]["beer/1"]["url"] == "https://beer.stackexchange.com/a/2"
    assert found[0]["beer/1"]["why"].endswith("tags foam hop")
    assert reasons(found) == {"unreadable": 1}
    assert found[1].notes == {
        "answers of the answer bot": 1,
        "answers without an id or a question": 1,
        "fabricated rows": 2,
        "questions without an id": 1,
        "answers without a score": 1,
    }


def test_a_question_that_cannot_be_read_has_that_reason(tmp_path: Path) -> None:
    rows = [question(1).replace("flat", "&b;"), answer(2, 1)]
    found = curate(tmp_path / "w", write_site(tmp_path, dump(rows)))
    assert reasons(found) == {"unreadable": 1}


def test_a_pair_with_an_empty_turn_has_that_reason(tmp_path: Path) -> None:
    picture = '<p><img src="x.png"></p>'
    rows = [question(1), answer(2, 1, Body=picture), answer(4, 3)]
    rows.append(question(3, Title=None, Body=picture))
    found = curate(tmp_path / "w", write_site(tmp_path, dump(rows)), unfiltered=True)
    assert reasons(found) == {"empty": 2}


@pytest.mark.parametrize("score", ["²", "9" * 400, "", "many"])
def test_a_score_that_is_no_number_is_none(tmp_path: Path, score: str) -> None:
    rows = [question(1, Score=score), answer(2, 1)]
    rows += [question(3), answer(4, 3, Score=score)]
    found = curate(tmp_path / "w", write_site(tmp_path, dump(rows)))
    assert {id: row["score"] for id, row in found[0].items()} == {"beer/1": 0}
    assert found[1].notes == {"answers without a score": 1}


def test_the_unfiltered_control_takes_any_top_answer(tmp_path: Path) -> None:
    rows = [question(1), answer(2, 1, Score=-4, Body="<p>I say @you</p>"), question(3)]
    found = curate(tmp_path / "w", write_site(tmp_path, dump(rows)), unfiltered=True)
    assert found[0]["beer/1"]["turns"][1] == "I say @you"
    assert reasons(found) == {"answer_score": 1}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (dump([question(1), answer(2, 1)])[:-30], "cut off at byte"),
        (dump([question(1), answer(2, 1), question(3)], end=""), "cut off at byte"),
        (dump([question(1), answer(2, 1)]).decode().encode("utf-16"), "in UTF-8"),
        (b"", "cut off at byte 0"),
    ],
)
def test_a_cut_off_file_is_damage_and_its_rows_are_kept(
    tmp_path: Path, data: bytes, says: str
) -> None:
    dumps = write_site(tmp_path, data)
    for size in (300, 64 << 20):
        work = tmp_path / str(size)
        with pytest.raises(UserError, match=r"Posts\.xml") as error:
            curate(work, dumps, range_bytes=size)
        assert says in str(error.value) and "--damaged keep" in str(error.value)
        found = curate(work, dumps, range_bytes=size, damaged="keep")
        assert len(found[1].damage) == 1
        assert found[1].seen == len(data.split(b'<row Id="1"')) - 1 + data.count(b'Id="3"')


def test_a_damaged_archive_does_not_stop_the_others(tmp_path: Path) -> None:
    dumps = write_site(tmp_path, dump([question(1), answer(2, 1)]))
    (dumps / "cooking.stackexchange.com.7z").write_bytes(b"7z\xbc\xaf\x27\x1c cut")
    found = curate(tmp_path / "w", dumps, damaged="keep")
    assert list(found[0]) == ["beer/1"]
    assert "cooking.stackexchange.com.7z cannot be read as .7z" in found[1].damage[0]


def test_any_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    dumps = write_site(tmp_path, dump(random_rows(random.Random(5), 30)))
    whole = curate(tmp_path / "here", dumps)
    with ray_cluster(2):
        for workers in (1, 2):
            work = tmp_path / str(workers)
            assert curate(work, dumps, range_bytes=50_000, workers=workers) == whole


def parts_below(work: Path) -> dict[str, int]:
    """Return the parts that stand, with the time when each was written."""
    return {
        str(file.parent.relative_to(work)): file.stat().st_mtime_ns
        # Not those that are being written: they are renamed while this looks.
        for file in work.glob("*/[!.]*/counts.json")
    }


def test_a_killed_run_goes_on_with_what_stands(tmp_path: Path) -> None:
    dumps = write_site(tmp_path, dump(random_rows(random.Random(6), 40)))
    work, size = tmp_path / "killed", 4000
    code = (
        "from pathlib import Path; from test_curation_stackexchange import curate; "
        f"curate(Path({str(work)!r}), Path({str(dumps)!r}), {size})"
    )
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": here}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        while len(parts_below(work)) < 10 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    before = parts_below(work)
    found = curate(work, dumps, size)
    after = parts_below(work)
    assert 10 <= len(before) < len(after)
    assert before.items() <= after.items()
    assert found == curate(tmp_path / "anew", dumps, size)
    assert curate(work, dumps, size) == found
    assert parts_below(work) == after
    assert not list(work.rglob(".*.partial"))
