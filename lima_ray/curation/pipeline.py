"""The passes over the dumps: tasks of all sources, spread over a cluster by Ray Data.

Each task is one block of a Ray Data dataset, so pieces of one file are read on several nodes, few
rows are in memory at a time, and a lost node's tasks run again. What a task made stands in a folder
of `work`, which every node must see; a run that was killed goes on with the folders that stand.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from lima_ray.config.cluster import NODE_ID_LABEL, connect
from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import SHOWN_ERRORS, UserError
from lima_ray.config.paths import PACKAGE
from lima_ray.config.storage.bucket import is_url
from lima_ray.config.terminal import printable
from lima_ray.curation.candidate import Part, PartWriter
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.registry import make_reader
from lima_ray.curation.stages import SourceReader, Task
from lima_ray.records.files import explain_write_errors
from lima_ray.results.units import counted

Damaged = Literal["stop", "keep"]

OF_THE_CHOICE = ("rows", "choose", "temperature")
"""Fields of a section on which no part depends: other values read nothing again."""
OWN_FOLDER = re.compile(r".+-[0-9a-f]{8}")
ROOM = PACKAGE / "curation"
CODE = (
    *(ROOM / name for name in ("sources", "dumps", "candidate.py", "filters.py")),
    *(ROOM / name for name in ("first_person.py", "markdown.py")),
    PACKAGE / "data",
)
LIBRARIES = ("lxml", "html-to-markdown")
"""Code and libraries that make parts; what another version made is made again."""


@dataclass(frozen=True)
class Job:
    """A task of a source, and where its part goes."""

    source: str
    task: Task
    folder: Path


def run_stages(
    curation: Curation, work: Path, workers: int | None = None, damaged: Damaged = "stop"
) -> dict[str, list[Part]]:
    """Run every source's stages, and return its parts in the order of the dump.

    Args:
        curation: the recipe.
        work: folder of the parts.
        workers: tasks at a time; none takes every core of the cluster, 0 runs in this process.
        damaged: what to do where a dump is: stop once all else is read, or keep what was read.

    Raises:
        UserError: a dump that is missing or damaged; what was read is kept for the next time.
    """
    readers = {name: make_reader(s, curation) for name, s in curation.sources.items()}
    done: dict[str, list[Part]] = {name: [] for name in readers}
    latest: dict[str, list[Part]] = {name: [] for name in readers}
    going, stage = list(readers), 0
    while going:
        jobs: dict[str, list[Job]] = {}
        wrong = []
        for name in going:
            try:
                jobs[name] = plan(name, readers[name], stage, latest[name], curation, work)
            except UserError as error:
                wrong.append(str(error))
        if wrong:
            raise UserError("\n  ".join(dict.fromkeys(wrong)))
        every = [job for those in jobs.values() for job in those]
        # What is damaged is read again, since a file fetched anew may have the old one's time.
        todo = [job for job in every if not Part(job.folder).serves(damaged == "keep")]
        run_jobs(todo, len(every), curation, workers, stage)
        for name in going:
            latest[name] = [Part(job.folder) for job in jobs[name]]
            done[name] += latest[name]
        check_damage([p for name in going for p in latest[name]], damaged)
        going, stage = [name for name in going if jobs[name]], stage + 1
    return done


def remove_unused(work: Path, parts: Mapping[str, Sequence[Part]]) -> int:
    """Remove the parts that no step of a run used, and return their bytes.

    Only what this command makes is removed: folders of a source with folders of parts in them.

    Args:
        work: folder of the parts, which no other process uses.
        parts: all that the run used.
    """
    used = {part.folder for those in parts.values() for part in those}
    size = 0
    for folder in filter(is_own, work.glob("*")):
        unused = [p for p in folder.glob("*") if is_own(p) and is_part(p) and p not in used]
        for part in unused:
            size += sum(file.stat().st_size for file in part.iterdir() if file.is_file())
            shutil.rmtree(part, ignore_errors=True)
        if unused:
            with suppress(OSError):  # other things are in it
                folder.rmdir()
    return size


def is_part(folder: Path) -> bool:
    """Return whether a folder holds a part, or what was written of one."""
    return folder.name.endswith(".partial") or (folder / "counts.json").is_file()


def is_own(folder: Path) -> bool:
    """Return whether a folder is named as this command names those of a source or a part."""
    name = folder.name.removesuffix(".partial")
    return bool(OWN_FOLDER.fullmatch(name)) and folder.is_dir() and not folder.is_symlink()


def plan(
    name: str,
    reader: SourceReader,
    stage: int,
    latest: list[Part],
    curation: Curation,
    work: Path,
) -> list[Job]:
    """Return the jobs of a source's stage; the folder's name tells all that they depend on."""
    section = curation.sources[name].model_dump(mode="json", exclude=set(OF_THE_CHOICE))
    damage = [said for part in latest if (said := part.counts["damage"])]
    said = [section, curation.seed, code_digest(), damage]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    folder = work / f"{name}-{digest}"
    return [Job(name, task, task.folder(folder)) for task in reader.tasks(stage, latest)]


@cache
def code_digest() -> str:
    """Return what tells apart code that makes other parts of the same dump."""
    digest = hashlib.sha256(str([version(name) for name in LIBRARIES]).encode())
    for place in CODE:
        for file in sorted([place] if place.is_file() else place.rglob("*.*")):
            if file.suffix in (".py", ".yaml"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def run_jobs(
    todo: list[Job], count: int, curation: Curation, workers: int | None, stage: int
) -> None:
    """Run jobs, the last of `count`; the parts of the others stand."""
    if not todo:
        return
    title = "reading" if stage == 0 else "joining"
    ran = run_here(todo, curation) if workers == 0 else run_on_ray(todo, curation, workers)
    with ProgressDisplay(count, title, completed=count - len(todo), count=True) as shown:
        for finished, name in enumerate(ran, start=count - len(todo) + 1):
            shown.update(finished, title, f"pieces, last {name}")
            shown.log(f"{title}: {finished}/{count} pieces", at_once=finished == count)


def run_here(jobs: list[Job], curation: Curation) -> Iterator[str]:
    """Run jobs in this process, and yield the name of each that is done."""
    for job in jobs:
        yield run_job(to_row(job, curation))["name"]


def run_on_ray(jobs: list[Job], curation: Curation, workers: int | None) -> Iterator[str]:
    """Run jobs over the cluster, a block each, and yield the name of each that is done."""
    import ray
    from ray.data import DataContext, TaskPoolStrategy
    from ray.exceptions import RayTaskError

    connect()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plan and its start
    DataContext.get_current().enable_progress_bars = False
    rows = [to_row(job, curation) for job in jobs]
    options: dict[str, Any] = {}
    if is_url(curation.out):  # the parts are on this node's disk
        options["label_selector"] = {NODE_ID_LABEL: ray.get_runtime_context().get_node_id()}
    tasks = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        run_job, compute=TaskPoolStrategy(size=workers), num_cpus=1, **options
    )
    try:
        for row in tasks.iter_rows():
            yield row["name"]
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def to_row(job: Job, curation: Curation) -> dict[str, str]:
    """Return a job as a row of a dataset."""
    task = {"name": job.task.name, "arguments": json.dumps(dict(job.task.arguments))}
    said = curation.model_dump_json()
    return task | {"source": job.source, "folder": str(job.folder), "curation": said}


@lru_cache(maxsize=8)
def reader_of(curation: str, source: str) -> SourceReader:
    """Return a source's reader in this process."""
    recipe = Curation.model_validate_json(curation)
    return make_reader(recipe.sources[source], recipe)


def run_job(row: dict[str, str]) -> dict[str, str]:
    """Do one task and write its part; what stands before damage is kept, and the damage noted."""
    task = Task(row["name"], json.loads(row["arguments"]))
    folder = Path(row["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(folder, "--out"), PartWriter(folder) as out:
        try:
            reader_of(row["curation"], row["source"]).run(task, out)
        except DumpError as error:
            out.damage = str(error)
        except OSError as error:
            if error.filename is None or Path(error.filename).is_relative_to(folder.parent):
                raise
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    return {"name": task.name}


def check_damage(parts: list[Part], damaged: Damaged) -> None:
    """Report damaged dumps, of which what stood before the damage is kept.

    Raises:
        UserError: there are such, and they are not to be kept.
    """
    found = list(dict.fromkeys(d for part in parts if (d := part.counts.get("damage"))))
    if not found:
        return
    more = f"\n  and {len(found) - SHOWN_ERRORS} more" if len(found) > SHOWN_ERRORS else ""
    shown = "\n  ".join(found[:SHOWN_ERRORS]) + more
    if damaged == "keep":
        print(f"goes on with what stands before the damage:\n  {printable(shown)}")
        return
    raise UserError(
        f"{counted(len(found), 'piece')} of the dumps cannot be read to the end; all else is "
        "read and kept. Fetch the files anew and run the same command, or go on with what stands "
        "before the damage by --damaged keep:\n"
        f"  {shown}"
    )
