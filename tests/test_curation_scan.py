"""The first pass over posts: the pattern of usual rows finds what each attribute by itself does."""

import random
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import py7zr
import pytest
from stack_exchange import HEAD, answer, dump, question, random_rows, row

from lima_ray.curation.candidate import Part, PartWriter
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import split
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.stackexchange import posts
from lima_ray.curation.sources.stackexchange.questions import StackExchangeReader
from lima_ray.curation.sources.stackexchange.scan import PostScan

DATE = "2014-01-22T08:00:00.000"
LINES = [
    question(1),
    question(2, AnswerCount=0),
    question(3, AnswerCount=None, AcceptedAnswerId=4),
    question(4, AnswerCount="00"),
    question(5, Body='AnswerCount="0" &quot; PostTypeId="2"'),
    row(Id=6, PostTypeId=1, CreationDate=DATE),
    row(PostTypeId=1, Id=7, AnswerCount=2),
    row(CreationDate=DATE, Id=8, PostTypeId=1, AnswerCount=0),
    row(PostTypeId=1, Title="without an id"),
    question(1000000001),
    *(row(Id=id, PostTypeId=1) for id in ("9" * 18, "9" * 19, "9" * 400, "", "-8", "007", "1e3")),
    *(
        row(Id=20 + n, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=score, Body="x")
        for n, score in enumerate([10, 9, 99, 100, 0, -1, -99, "-", "", "1.5", "+12", "012", "²"])
    ),
    *(
        row(Id=40 + n, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=score)
        for n, score in enumerate(["9" * 17, "9" * 18, "9" * 19, "-" + "9" * 17, "-" + "9" * 18])
    ),
    answer(50, 1),
    answer(51, 1, OwnerUserId=-2, Score=99),
    answer(52, 1, OwnerUserId=-25, Score=99),
    answer(53, 1, OwnerUserId=None),
    answer(54, 1, Score=None, Body='Score="99"'),
    answer(1000000010, 1),
    row(Id=60, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30, OwnerUserId=-2),
    row(Id=61, PostTypeId=2, ParentId=1, CreationDate=DATE, Body='Score="30"'),
    row(Id=62, PostTypeId=2, ParentId=1, CreationDate=DATE, Body='Score="3"', Score=30),
    row(Id=63, PostTypeId=2, CreationDate=DATE, Score=30),
    row(Id=64, PostTypeId=2, ParentId=None, Score=30, CreationDate=DATE),
    row(Id=65, PostTypeId=2, ParentId="", CreationDate=DATE, Score=30),
    row(Id=66, PostTypeId=2, ParentId=1, CreationDate="", Score=30),
    row(Id=67, PostTypeId=2, ParentId=1, DeletionDate=DATE, CreationDate=DATE, Score=30),
    row(Id=68, PostTypeId=5, ParentId=1, CreationDate=DATE, Score=30),
    row(Id=69, PostTypeId=12, ParentId=1, CreationDate=DATE, Score=30),
    row(Id=70, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).replace('"', "'"),
    row(Id=71, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).lower(),
    row(Id=72, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).replace("  ", "\t", 1),
    row(Id=73, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).strip(),
    row(Id=74, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).replace("<row", "<rows"),
    row(Id=75, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30).replace(" Id", "  Id"),
    "\ufeff" + row(Id=76, PostTypeId=2, ParentId=1, CreationDate=DATE, Score=30),
    *row(Id=77, PostTypeId=2, ParentId=1, CreationDate="a|b", Score=30).split("|"),
    *row(Id=78, PostTypeId=2, ParentId="1|2", CreationDate=DATE, Score=30).split("|"),
    "",
    "  <!-- licence -->",
]
"""Rows as dumps have them, and as none has had them so far."""


def scan(path: Path, folder: Path, least: int) -> dict[str, Any]:
    """Return all that a pass over a file finds."""
    found: dict[str, Any] = {}
    for n, piece in enumerate(split(path, 30_000)):
        with PartWriter(folder / str(n)) as out, PostScan("beer", piece, least, out) as one:
            one.run()
        part = Part(folder / str(n))
        tables = {name: part.read(name).to_pylist() for name in out.tables}
        found[str(asdict(piece))] = tables | part.counts
    return found


@pytest.mark.parametrize(
    ("least", "newline"),
    [(10, "\n"), (10, "\r\n"), (1, "\n"), (0, "\r\n"), (-5, "\n"), (-(1 << 31), "\n"), (100, "\n")],
)
def test_usual_rows_are_read_as_any_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, newline: str
) -> None:
    draw = random.Random(least)
    rows = [*random_rows(draw, 10), *LINES, *random_rows(draw, 10, usual=True)]
    path = tmp_path / "Posts.xml"
    path.write_bytes(dump(rows, newline=newline))
    found = scan(path, tmp_path / "usual", least)
    monkeypatch.setattr(posts, "USUAL_HEAD", re.compile(rb"(?!)"))  # matches nothing
    assert found == scan(path, tmp_path / "any", least)
    assert sum(len(part["questions"]) for part in found.values()) > 15
    assert sum(len(part["answers"]) for part in found.values()) > (15 if least < 100 else 1)


def test_rows_of_dumps_are_usual(tmp_path: Path) -> None:
    usual = [question(1), question(2, Score=-1), question(3, AcceptedAnswerId=9)]
    usual += [
        row(Id=4, PostTypeId=2, ParentId=3, CreationDate=DATE, Score=score) for score in (-3, 0, 12)
    ]
    for line in usual:
        for text in (line, line.strip(), f"\t{line}\r"):
            assert posts.USUAL_HEAD.match(text.encode())


@pytest.mark.parametrize("range_bytes", [100_000, 400_000])
@pytest.mark.parametrize("cut", [0, 50_000])
def test_a_dump_cut_off_before_it_was_packed_is_noticed_by_ranges_of_any_size(
    tmp_path: Path, range_bytes: int, cut: int
) -> None:
    texts = [random.Random(n).randbytes(60_000).hex() for n in range(3)]
    text = dump([question(n, Body=text) for n, text in enumerate(texts, 1)])
    path, bzip2 = tmp_path / "site.7z", [{"id": py7zr.FILTER_BZIP2}]
    with py7zr.SevenZipFile(path, "w", filters=bzip2) as packed:
        packed.writestr(text[: len(text) - cut], "Posts.xml")
    damage = []
    for piece in split(path, range_bytes):
        with PartWriter(tmp_path / "part") as out, PostScan("beer", piece, 10, out) as one:
            try:
                one.run()
            except DumpError as error:
                damage.append(str(error))
    assert len(damage) == bool(cut) and all("does not end with </posts>" in d for d in damage)


COPIES = """
import sys
from pathlib import Path
from test_curation_scan import run_copies
run_copies(Path(sys.argv[1]), int(sys.argv[2]))
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def run_copies(folder: Path, copies: int) -> None:
    """Run both stages over so many copies of some posts, with other ids, in as many ranges."""
    site = folder / "beer.stackexchange.com"
    site.mkdir(parents=True)
    rows = "\n".join(random_rows(random.Random(0), 80, usual=True)) + "\n"
    with (site / "Posts.xml").open("w", encoding="utf-8") as file:
        file.write(HEAD)
        for copy in range(copies):
            file.write(re.sub(r'(?:(?<= Id=")|(?<=entId="))(?=\d+")', str(copy + 1), rows))
        file.write("</posts>")
    section = {"kind": "stackexchange", "path": "."}
    curation = Curation(inputs=str(folder), sources={"it": section})  # pyright: ignore[reportArgumentType]
    StackExchangeReader.range_bytes = len(rows.encode())
    parts = run_stages(curation, folder / "work", 0)["it"]
    assert len(parts) >= 2 * copies


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    peak_mib = []
    for copies in (10, 100):
        command = [sys.executable, "-c", COPIES, str(tmp_path / str(copies)), str(copies)]
        path = ":".join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": path})
        peak_mib.append(int(done.stdout.split()[-1]) / 1024)
    assert peak_mib[1] < peak_mib[0] + 12, peak_mib
