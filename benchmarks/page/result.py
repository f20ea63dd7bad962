"""What a benchmark measured, as it stands in `docs/benchmarks/NAME.json`."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Literal

import psutil

from lima_ray.config.errors import UserError
from lima_ray.records.files import check_keys, parse_json, write_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "benchmarks"
CODE = ("lima_ray", "serve", "tune", "benchmarks", ":!benchmarks/page")
"""What decides figures, for git; the page does not."""
PACKAGES = ("torch", "transformers", "deepspeed", "ray")
OURS = "lima_ray"
BUSY_LOAD = 1.5
"""Load average a core from which a machine counts as used by others too."""
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    cpu: str
    cores: int
    memory_gib: float
    versions: dict[str, str]
    gpu: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        what = self.gpu or f"{self.cores} cores of {self.cpu}, {self.memory_gib:.0f} GiB"
        return f"{what}; " + ", ".join(f"{name} {said}" for name, said in self.versions.items())


@dataclass(frozen=True)
class Figure:
    """One quantity of one contender."""

    what: str
    """The quantity, such as `training speed`: figures of one `what` are compared."""
    case: str
    """Under which settings, such as `fp32`."""
    who: str
    """`lima_ray`, or a peer with its version."""
    unit: str
    samples: tuple[float, ...]
    """One a round."""
    better: Better = ""
    """Which way is better; empty where nothing is compared."""
    x: float | None = None
    """The place on a plot's x axis, where the cases are numbers."""
    axis: str = ""
    """What that axis is, with its unit."""

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)


@dataclass(frozen=True)
class Result:
    """All figures of one benchmark on one machine."""

    name: str
    command: str
    """As it is typed; what differs between machines is named by its flag in capitals."""
    date: str
    commit: str
    """Of the code that was measured, with a hash of what is changed since; empty without git."""
    machine: Machine
    seconds: float
    """That the whole benchmark took."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    """Assumptions, and what was left out and why."""

    @property
    def file(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def write(self, file: Path) -> None:
        """Write it, with each figure's median, lowest and highest sample beside the samples."""
        spread = [
            asdict(one) | {"median": one.median, "low": one.low, "high": one.high}
            for one in self.figures
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(self) | {"figures": spread})
        print(f"{len(self.figures)} figures: {file}", flush=True)


@dataclass
class Recording:
    """A benchmark's figures as they come, from its start on."""

    name: str
    started: float = field(default_factory=time.perf_counter)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def result(self, machine: Machine | None = None) -> Result:
        """Return what was measured here, or on another machine before."""
        cores, busy = len(os.sched_getaffinity(0)), list[str]()
        if self.load > BUSY_LOAD * cores and not machine:
            busy.append(
                f"the machine was not quiet: a load of {self.load:.0f} on {cores} cores when it "
                "began; ratios and CPU time say more than seconds of the clock"
            )
        return Result(
            name=self.name,
            command=shown_command(sys.argv),
            date=time.strftime("%Y-%m-%d"),
            commit=code_commit(),
            machine=machine or this_machine(),
            seconds=round(time.perf_counter() - self.started, 1),
            figures=tuple(self.figures),
            notes=(*self.notes, *busy),
        )

    def save(self, file: Path | None, machine: Machine | None = None) -> None:
        """Write the result where a file is named."""
        if file:
            self.result(machine).write(file)


def read_result(file: Path) -> Result:
    """Read a result; refuse a file that holds none."""
    row = parse_json(file.read_bytes(), str(file))
    check_keys(row, ("name", "command", "machine", "figures"), str(file), "result of a benchmark")
    try:
        figures = tuple(read_figure(one) for one in row["figures"])
        made = Result(**row | {"machine": Machine(**row["machine"]), "figures": figures})
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} is no result of a benchmark: {error}") from error
    return replace(made, notes=tuple(made.notes))


def read_figure(row: dict[str, object]) -> Figure:
    plain = {key: value for key, value in row.items() if key not in ("median", "low", "high")}
    samples = plain.pop("samples")
    if not isinstance(samples, list) or not samples:
        raise TypeError(f"{row.get('what')} has no samples")
    return Figure(samples=tuple(samples), **plain)  # pyright: ignore[reportArgumentType]


def this_machine() -> Machine:
    """Describe the processor, its memory and the packages that decide speed."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return Machine(cpu_model(), cores, round(psutil.virtual_memory().total / 2**30, 1), versions)


def cpu_model() -> str:
    """Return the processor's name with its family, as one name may stand for several."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(
        reversed([[part.strip() for part in line.split(":", 1)] for line in lines if line])
    )
    name = found.get("model name", platform.machine())
    return f"{name} (family {found['cpu family']})" if "cpu family" in found else name


def code_commit() -> str:
    """Return the last commit of the code, and a hash of what differs from it; empty without git."""
    try:
        commit = git("log", "-1", "--format=%h", "--", *CODE).strip()
        changed = git("diff", "HEAD", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + (f"+{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else "")


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def shown_command(argv: Sequence[str]) -> str:
    """Return the command line that runs, as one types it; a program's name where it is no module
    of the checkout."""
    file = Path(argv[0]).resolve()
    if ROOT not in file.parents:
        return shlex.join([file.name, *argv[1:]])
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return typed_command(module.removesuffix(".__main__"), *argv[1:])


def typed_command(module: str, *words: str) -> str:
    """Return how a module is called, without this machine's absolute paths and `--json FILE`.

    A word that is such a path becomes the name of the flag before it, in capitals.
    """
    shown: list[str] = []
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag = word.lstrip("-")
        if flag != "json":
            shown.append(flag.upper() if word.startswith("/") else word)
    return shlex.join(["python", "-m", module, *shown])
