"""How a step's time and memory grow: measured on this machine's cores, simulated on GPUs.

    python -m benchmarks.scaling workers        # 1, 2 and 4 workers share a batch: minutes
    python -m benchmarks.scaling sizes          # by rows, row length and parameters: minutes
    python -m benchmarks.scaling gpus           # LLaMA 7B and 65B on 1 to 64 GPUs, simulated

`workers` needs quiet cores. The step that the simulation's formulas give for several workers, from
one worker's speed and the bandwidth of a bare all-reduce, stands beside the measured one. `sizes`
are of one worker of one thread, by CPU time; exponents are fits of the logarithms with 95 %
intervals.
"""

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import tyro

from benchmarks.page.result import Figure, Recording
from benchmarks.scaling.measured import (
    HIDDENS,
    STAGES,
    USUAL_HIDDEN,
    Point,
    WorkerSteps,
    build_bases,
    measure_points,
    measure_workers,
)
from benchmarks.scaling.simulation import Speed, simulate, step_time
from benchmarks.scaling.traffic import traffic
from lima_ray.results.intervals import t_quantile

FP32 = 4
AXES = {
    "rows": "rows of a step, 256 tokens each",
    "row length": "tokens of a row, 8 rows a step",
    "parameters": "million parameters, 8 rows of 256 tokens",
}


def workers(steps: int = 3, json: Path | None = None) -> None:
    """Measure steps that 1, 2 and 4 workers share.

    Args:
        steps: measured steps of each, after one that warms up.
        json: file for the figures, such as docs/benchmarks/scaling-workers.json.
    """
    recording = Recording("scaling-workers")
    cores = len(os.sched_getaffinity(0))
    alone: list[WorkerSteps] = []
    with TemporaryDirectory() as folder:
        bases = build_bases(Path(folder), (USUAL_HIDDEN,))
        for count in (1, 2, 4):
            found = measure_workers(bases[USUAL_HIDDEN], count, steps)
            alone = alone or found
            for one in found[: len(STAGES)]:
                print(f"{count} workers, ZeRO {one.stage}: {median(one.seconds):.2f} s", flush=True)
            record_workers(recording, found, count, alone, cores)
    for note in recording.notes:
        print(note)
    recording.save(json)


def sizes(steps: int = 2, json: Path | None = None) -> None:
    """Measure one worker's steps by rows, row length and parameters.

    Args:
        steps: measured steps of each size, after one that warms up.
        json: file for the figures, such as docs/benchmarks/scaling-sizes.json.
    """
    recording = Recording("scaling-sizes")
    with TemporaryDirectory() as folder:
        points = measure_points(build_bases(Path(folder), HIDDENS), steps)
    for varied, own in by_varied(points).items():
        record_points(recording, varied, own)
    for note in recording.notes:
        print(note)
    recording.save(json)


def record_workers(
    recording: Recording,
    found: list[WorkerSteps],
    count: int,
    alone: list[WorkerSteps],
    cores: int,
) -> None:
    """Add steps by workers, their communication, and what the simulation's formulas give."""
    case = f"{count} worker{'s' * (count > 1)}"
    x, axis = float(count), "workers, one thread each"
    if count > cores:
        recording.notes.append(f"{case} share {cores} cores: oversubscribed")
    for stage in dict.fromkeys(one.stage for one in found):
        own = [one for one in found if one.stage == stage]
        seconds = tuple(max(step) for step in zip(*(w.seconds for w in own), strict=True))
        shares = tuple(100 * sum(w.communicating_s) / sum(w.seconds) for w in own)
        sent = own[0].sent / own[0].parameters
        for what, unit, samples in (
            ("step time by workers", "s", seconds),
            ("share of communication", "% of a worker's time", shares),
            ("elements sent by a ring, over parameters", "", (sent,)),
        ):
            recording.figures.append(
                Figure(what, case, f"ZeRO {stage}", unit, samples, x=x, axis=axis)
            )
        if 1 < count <= cores:
            expected, said = predict(own[0], next(a for a in alone if a.stage == stage), count)
            measured = median(seconds)
            who = f"ZeRO {stage}, by the simulation's formulas"
            recording.figures.append(
                Figure("step time by workers", case, who, "s", (expected,), x=x, axis=axis)
            )
            recording.notes.append(
                f"ZeRO {stage}, {case}: {said}: {expected:.2f} s, measured {measured:.2f} s, "
                f"ratio {expected / measured:.2f}"
            )


def predict(several: WorkerSteps, alone: WorkerSteps, count: int) -> tuple[float, str]:
    """Return the step of several workers, nothing hidden, from one worker's and the bandwidth."""
    speed = Speed(alone.flops / median(alone.seconds), float("inf"))
    moved = traffic(several.stage, several.parameters, several.micro_batches, "deepspeed")
    sent, stage = moved.sent(count, FP32), several.stage
    one = step_time(speed, several.flops, several.parameters, stage, count, sent, several.bandwidth)
    said = (
        f"arithmetic {one.arithmetic:.2f} s, {sent / 1e6:.0f} MB at "
        f"{several.bandwidth / 1e9:.2f} GB/s"
    )
    return one.exposed, said


def by_varied(points: list[Point]) -> dict[str, list[Point]]:
    """Group points by what was varied; the warm-up has no name."""
    names = dict.fromkeys(point.varied for point in points if point.varied)
    return {name: [p for p in points if p.varied == name] for name in names}


def record_points(recording: Recording, varied: str, points: list[Point]) -> None:
    """Add time and memory over what was varied, and the exponents that fit them."""
    for what, unit in (("step time", "s of CPU"), ("memory", "MiB")):
        values = []
        for point in points:
            samples = point.cpu_s if what == "step time" else (point.peak / 2**20,)
            values.append(median(samples))
            recording.figures.append(
                Figure(
                    f"{what} by {varied}",
                    f"{point.value:,.4g}",
                    "one worker",
                    unit,
                    samples,
                    x=point.value,
                    axis=AXES[varied],
                )
            )
        slope, half = exponent([point.value for point in points], values)
        recording.notes.append(
            f"{what} grows with {varied} to the power {slope:.2f} "
            f"[{slope - half:.2f}, {slope + half:.2f}]"
        )


def exponent(x: list[float], y: list[float]) -> tuple[float, float]:
    """Fit y = a x^b; returns b and half its 95 % interval, of three points or more."""
    log_x, log_y = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    squares, freedom = float((log_x**2).sum()), len(x) - 2
    slope = float(log_x @ log_y) / squares
    error = float(np.sqrt(((log_y - slope * log_x) ** 2).sum() / freedom / squares))
    return slope, error * t_quantile(freedom)


def gpus(json: Path | None = None) -> None:
    """Compute steps on GPUs.

    Args:
        json: file for the figures, such as docs/benchmarks/simulation.json.
    """
    recording = Recording("simulation", load=0.0)  # nothing is timed
    simulate(recording)
    for one in recording.figures:
        ends = f"{one.low:,.1f}" + (f" to {one.high:,.1f}" if len(one.samples) > 1 else "")
        print(f"{one.case:8} {one.what:48} {one.who:34} {ends} {one.unit}")
    for note in recording.notes:
        print(f"- {note}")
    recording.save(json)


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    commands = {"workers": workers, "sizes": sizes, "gpus": gpus}
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m benchmarks.scaling", description=__doc__, use_underscores=True
    )
