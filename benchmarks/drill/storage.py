"""Faults of storage: a disk that is full, without room for another byte."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.drill.outcome import Fault, Outcome, expect, skipped
from benchmarks.drill.training import describe_lost
from benchmarks.drill.trainings import LOCAL, Training, expect_same, reference

DISK_MIB = 256
FAULT_AFTER = 10
USER_ERROR = 2
"""Status of a command that ends with a message for its user."""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system for the block; false where this user may not."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill_disk(folder: Path) -> Outcome:
    """Take all room while a training runs; make room again, and give the command again."""
    whole = reference(folder.parents[1])
    disk = folder / "disk"
    with small_disk(disk) as mounted:
        if not mounted:
            return skipped("a small file system cannot be mounted here (needs root)")
        training = Training(disk, "run", LOCAL, log=folder / "run.log")
        training.begin()
        try:
            training.wait_for_step(FAULT_AFTER)
            ballast = disk / "ballast"
            take_all_room(ballast)
            status = training.wait()
            expect(status == USER_ERROR, f"status {status} on a full disk:\n{training.said}")
            told = [line for line in training.said.splitlines() if "no room" in line]
            expect(bool(told), f"the full disk is not told of:\n{training.said}")
            state = training.run.latest_state()
            expect(state is not None, "no state is left")
            ballast.unlink()
            fault_s = time.time()
            training.begin()
            went_on = training.wait_until_it_goes_on(fault_s)
            expect(state is not None and went_on.step >= state.step, f"from {went_on.step}")
            training.finish()
            held = expect_same(training, whole)
        finally:
            training.kill()
    return Outcome(
        describe_lost(went_on.lost), went_on.seconds, f"{held}; the error names the disk"
    )


def take_all_room(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as out:
        for size in (2**20, 2**10, 1):
            try:
                while True:
                    out.write(bytes(size))
            except OSError:
                continue


FAULTS = [Fault("disk", "a full disk", fill_disk)]
