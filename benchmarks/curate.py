"""Speed and memory of the passes over dumps, beside bare libraries on the same bytes.

    python -m benchmarks.curate --posts beer/Posts.xml --work /tmp/curate [--megabytes 64]

The dump is a site's Posts.xml repeated with shifted ids. Rates are of CPU seconds, the best of
several rounds that take turns; that of two processes in one archive is of wall time.
"""

import bz2
import io
import multiprocessing
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import py7zr
import tyro
import zstandard
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from benchmarks.page.result import OURS, Figure, Recording
from lima_ray.curation.candidate import Part, PartWriter
from lima_ray.curation.dumps import sevenzip
from lima_ray.curation.dumps.ranges import read_blocks, split
from lima_ray.curation.recipe import Curation, Reddit
from lima_ray.curation.sources.reddit import RedditReader
from lima_ray.curation.sources.registry import make_reader
from lima_ray.curation.sources.stackexchange.questions import StackExchangeReader
from lima_ray.curation.stages import SourceReader, Task

SHIFTED = re.compile(rb' (Id|ParentId|AcceptedAnswerId)="(\d+)"')
SHIFT = 10_000_000
ROUNDS = 3
CORES = 16
ARCHIVES = {"stackoverflow.com.7z": 68e9, "the whole dump": 92e9}
MB = 1e6


def main(
    work: Path,
    posts: Path | None = None,
    megabytes: int = 64,
    memory_of: int = 0,
    json: Path | None = None,
) -> None:
    """Print rates, their ratios, and memory as the input grows.

    Args:
        work: folder for the dumps and what is made of them.
        posts: a site's Posts.xml; without it submissions of Reddit alone are read.
        megabytes: of XML.
        memory_of: run both stages over so many copies in this process, and print its peak alone.
        json: file for the figures, such as docs/benchmarks/curate.json.
    """
    work.mkdir(parents=True, exist_ok=True)
    recording = Recording("curate")
    if memory_of:
        assert posts
        site = repeat_site(posts, work / f"copies-{memory_of}", memory_of)
        run_both(site, work / "memory")
        print(peak_mib())
        return
    if posts:
        copies = max(1, round(megabytes * MB / posts.stat().st_size))
        plain = repeat_site(posts, work / "plain", copies)
        measure_plain(plain, work, recording)
        measure_archive(plain, work, recording)
    else:
        recording.notes.append("XML and archives of posts were not read: no --posts")
    measure_zst(work, megabytes, recording)
    if posts:
        measure_memory(posts, work, recording)
    recording.save(json)


def repeat_site(source: Path, folder: Path, copies: int) -> Path:
    """Write a site's posts several times, with other ids each time; returns the file."""
    lines = [line for line in source.read_bytes().splitlines() if line.strip().startswith(b"<row ")]
    path = folder / "site.stackexchange.com" / "Posts.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n')
        for copy in range(copies):

            def shifted(match: re.Match[bytes], by: int = copy * SHIFT) -> bytes:
                return b' %s="%d"' % (match[1], int(match[2]) + by)

            file.writelines(SHIFTED.sub(shifted, line) + b"\n" for line in lines)
        file.write(b"</posts>\n")
    return path


def cpu_s(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    before = time.process_time()
    call()
    return time.process_time() - before


def compare(
    title: str, size: float, calls: dict[str, Callable[[], object]], recording: Recording
) -> dict[str, float]:
    """Print MB per CPU second of each call, and its ratio to the first; returns the best rates.

    The first call is the bare library that the others are compared with.
    """
    print(title)
    every: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            rate = size / MB / cpu_s(call)
            every[name] += [rate] if number else []  # the first time modules are imported
    bare, *passes = every
    for name in passes:
        for who, rates in ((OURS, every[name]), ("the bare library", every[bare])):
            case, unit = f"{title}: {name}; beside {bare}", "MB a CPU second"
            recording.figures.append(Figure("reading", case, who, unit, tuple(rates), "higher"))
    rates = {name: max(found) for name, found in every.items()}
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"  {name:<52}{rate:>9,.1f} MB/s{rate / first:>8.2f}", flush=True)
    return rates


def reader_of(path: Path) -> tuple[StackExchangeReader, list[Task]]:
    """Return the reader of a dump, and the tasks of its first stage."""
    source = {"kind": "stackexchange", "path": path.name}
    curation = Curation.model_validate({"inputs": str(path.parent), "sources": {"s": source}})
    reader = make_reader(curation.sources["s"], curation)
    assert isinstance(reader, StackExchangeReader)
    return reader, reader.tasks(0, [])


def run_tasks(reader: SourceReader, tasks: Sequence[Task], work: Path) -> list[Part]:
    """Run tasks in this process, and return their parts."""
    parts = []
    for task in tasks:
        with PartWriter(work / task.name) as out:
            reader.run(task, out)
        parts.append(Part(work / task.name))
    return parts


def run_both(path: Path, work: Path) -> None:
    """Read a dump and join it."""
    reader, tasks = reader_of(path)
    parts = run_tasks(reader, tasks, work)
    run_tasks(reader, reader.tasks(1, parts), work)
    shutil.rmtree(work)


def measure_plain(path: Path, work: Path, recording: Recording) -> None:
    """Compare passes over plain XML with one of lxml."""
    reader, tasks = reader_of(path)
    first_stage = partial(run_tasks, reader, tasks, work / "parts")
    calls = {
        "bare lxml.iterparse, three attributes": lambda: parse_all(path),
        "lines of the ranges": lambda: [0 for piece in split(path) for _ in read_blocks(piece)],
        "first stage: rows tested, parts written": first_stage,
        "both stages: top answers parsed, filtered": lambda: run_both(path, work / "both"),
    }
    title = f"plain XML, {path.stat().st_size / MB:.0f} MB"
    compare(title, path.stat().st_size, calls, recording)


def parse_all(path: Path) -> int:
    """Read three attributes of every row by lxml."""
    count = 0
    for _, row in etree.iterparse(str(path), tag="row"):
        count += bool(row.get("Id") and row.get("PostTypeId") and row.get("Score"))
        row.clear()
        while row.getprevious() is not None:
            del row.getparent()[0]
    return count


def measure_archive(plain: Path, work: Path, recording: Recording) -> None:
    """Compare passes over a .7z with bzip2 alone, and two processes in it with one."""
    path = work / "site.stackexchange.com.7z"
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_BZIP2}]) as archive:
        archive.write(plain, "Posts.xml")
    [stream] = sevenzip.streams(path)
    reader, tasks = reader_of(path)
    first_stage = partial(run_tasks, reader, tasks, work / "parts")
    rates = compare(
        f".7z of bzip2, {stream.size / MB:.1f} MB packed, rates of unpacked bytes",
        plain.stat().st_size,
        {
            "bare bz2": lambda: unpack(path, stream),
            "lines of the ranges": lambda: [0 for p in split(path) for _ in read_blocks(p)],
            "first stage: rows tested, parts written": first_stage,
        },
        recording,
    )
    packed = list(rates.values())[2] * stream.size / plain.stat().st_size
    for name, size in ARCHIVES.items():
        hours = size / MB / packed / CORES / 3600
        print(f"  on paper {name}, {size / 1e9:.0f} GB, {CORES} cores: {hours:.2f} h")
    measure_processes(path, work, stream.size)


def unpack(path: Path, stream: sevenzip.PackedStream) -> None:
    """Unpack a bzip2 stream by the standard library."""
    decoder = bz2.BZ2Decompressor()
    with path.open("rb") as file:
        file.seek(stream.start)
        while not decoder.eof:
            decoder.decompress(file.read(1 << 20))


def measure_processes(path: Path, work: Path, packed: int) -> None:
    """Compare the wall time of two processes inside one archive with that of one."""
    StackExchangeReader.range_bytes = max(1, packed // 8 * 4)
    tasks = reader_of(path)[1]
    wall_s: dict[int, float] = {}
    longest_s: dict[int, float] = {}
    for _ in range(ROUNDS):
        for count in (1, 2):
            shares = [(path, tasks[n::count], work / f"of-{count}") for n in range(count)]
            with multiprocessing.get_context("spawn").Pool(count) as pool:
                warm = [(path, tasks[:1], work / f"warm-{n}") for n in range(count)]
                pool.starmap(run_share, warm, chunksize=1)
                before = time.perf_counter()
                used = pool.starmap(run_share, shares, chunksize=1)
                spent = time.perf_counter() - before
            wall_s[count] = min(wall_s.get(count, spent), spent)
            longest_s[count] = min(longest_s.get(count, max(used)), max(used))
    for name, spent in (("wall time", wall_s), ("CPU time of the longer", longest_s)):
        print(
            f"  {len(tasks)} ranges, {name}: one process {spent[1]:.2f} s, two {spent[2]:.2f} s: "
            f"{spent[1] / spent[2]:.2f} times"
        )


def run_share(path: Path, tasks: Sequence[Task], work: Path) -> float:
    """Run tasks and return the CPU seconds."""
    reader, _ = reader_of(path)
    return cpu_s(lambda: run_tasks(reader, tasks, work))


FALSE = (
    *("archived", "brand_safe", "contest_mode", "hidden", "hide_score", "is_crosspostable"),
    *("is_reddit_media_domain", "is_video", "locked", "over_18", "pinned", "spoiler", "stickied"),
)
ONE_IN = (10, 100)
NULL = (
    *("author_flair_css_class", "author_flair_text", "distinguished", "link_flair_css_class"),
    *("link_flair_text", "media", "parent_whitelist_status", "secure_media", "suggested_sort"),
)
"""Fields of submissions, and what most of them hold."""


def measure_zst(work: Path, megabytes: int, recording: Recording) -> None:
    """Compare a pass over submissions, of which few are wanted, with zstandard and orjson."""
    for one_in in ONE_IN:
        folder = work / f"one-in-{one_in}"
        folder.mkdir(exist_ok=True)
        path, size = write_submissions(folder / "RS_2018-01.zst", megabytes, one_in)
        title = f"RS_2018-01.zst, {size / MB:.0f} MB of JSON, 1 in {one_in} of the subreddit"
        # Stories are comments: without a file of them the reader refuses the submissions.
        (folder / "RC_2018-01.zst").write_bytes(zstandard.compress(b""))
        reader = RedditReader(Reddit(kind="reddit", path="."), folder, seed=0)
        tasks = [task for task in reader.tasks(0, []) if path.name in str(task.arguments)]
        compare(
            title,
            size,
            {
                "zstandard and orjson": partial(parse_json, path),
                "first stage": partial(run_tasks, reader, tasks, folder / "parts"),
            },
            recording,
        )


def write_submissions(path: Path, megabytes: int, one_in: int) -> tuple[Path, int]:
    """Write submissions as the monthly dumps hold them; returns the file and the bytes of JSON."""
    size, number = 0, 0
    with path.open("wb") as raw, zstandard.ZstdCompressor(3).stream_writer(raw) as file:
        while size < megabytes * MB:
            line = orjson.dumps(submission(number, one_in)) + b"\n"
            size, number = size + len(line), number + 1
            file.write(line)
    return path, size


def submission(number: int, one_in: int) -> dict[str, Any]:
    """Return a submission with the fields that those of January 2018 have.

    Args:
        number: of the submission; two in 3 show a page, with a preview of it in several sizes.
        one_in: so many one is of the subreddit; 1 in 50 of these has the score that it needs.
    """
    name = "WritingPrompts" if number % one_in == 0 else f"subreddit{number % 97}"
    shown = number % 3 > 0
    url = f"https://www.reddit.com/r/{name}/comments/{number:x}/story_{number * 104_729 % 999_983}/"
    record: dict[str, Any] = dict.fromkeys(FALSE, False) | dict.fromkeys(NULL)
    record |= {"author": f"user{number * 7919 % 1_000_003}", "created_utc": 1_514_764_800 + number}
    record |= {"domain": "i.example.com" if shown else f"self.{name}", "edited": False}
    record |= {"gilded": 0, "id": f"{number:x}", "is_self": not shown, "media_embed": {}}
    record |= {"num_comments": number % 30, "num_crossposts": 0, "permalink": url[22:], "url": url}
    record |= {
        "retrieved_on": 1_518_545_128,
        "score": 5000 if number % (50 * one_in) == 0 else number % 97,
    }
    record |= {"secure_media_embed": {}, "subreddit": name, "subreddit_id": f"t5_{number % 97:05x}"}
    record |= {"subreddit_type": "public", "thumbnail": "default", "whitelist_status": "all_ads"}
    record |= {"title": f"[WP] Story {number * 104_729 % 999_983} of a ship"}
    record["selftext"] = "" if shown else f"{number * 15_485_863 % 982_451_653} " * 40
    if shown:
        sizes = [{"height": n, "url": f"{url}?width={n}", "width": n} for n in (108, 216, 320, 640)]
        images = [{"id": f"{number:x}", "resolutions": sizes, "source": sizes[-1], "variants": {}}]
        record |= {"post_hint": "link", "preview": {"enabled": False, "images": images}}
    return record


def parse_json(path: Path) -> int:
    """Parse every line, and count those of a subreddit."""
    found = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    with path.open("rb") as raw, decompressor.stream_reader(raw, read_size=1 << 20) as file:
        for line in io.BufferedReader(file, 1 << 20):
            found += orjson.loads(line)["subreddit"] == "WritingPrompts"
    return found


def peak_mib() -> float:
    """Return the peak of this process's memory; getrusage would tell its parent's, if larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure_memory(source: Path, work: Path, recording: Recording) -> None:
    """Print the peak memory of both stages in a process of their own, as the input grows."""
    for copies in (1, 10, 100):
        command = [sys.executable, "-m", "benchmarks.curate", "--posts", str(source)]
        command += ["--work", str(work), "--memory-of", str(copies)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        megabytes = copies * source.stat().st_size / MB
        print(f"peak memory of both stages over {megabytes:,.0f} MB: {peak:.0f} MiB", flush=True)
        case = f"{megabytes:,.0f} MB of XML"
        recording.figures.append(Figure("peak of both stages", case, OURS, "MiB", (peak,)))


if __name__ == "__main__":
    tyro.cli(main)
