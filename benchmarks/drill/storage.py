"""Faults of storage: a disk without room for another byte, a bucket that does not answer."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.drill.outcome import Fault, Outcome, expect, skipped, wait_until
from benchmarks.drill.training import describe_lost
from benchmarks.drill.trainings import (
    END_S,
    FIRST_STEP_S,
    LOCAL,
    Training,
    expect_same,
    reference,
)
from benchmarks.local_servers.s3_server import CREDENTIALS, s3_server
from lima_ray.config.storage.working_copy import CACHE

DISK_MIB = 256
FAULT_AFTER = 10
OUTAGE_S = 60.0
"""Longer than pyarrow itself tries again."""
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


def stop_store(folder: Path) -> Outcome:
    """Take a run's bucket away for a minute, with a state just written, and give it back."""
    whole = reference(folder.parents[1])
    with s3_server() as store:
        environment = LOCAL | CREDENTIALS | {CACHE: str(folder / "working_copies")}
        training = Training(folder, "run", environment, {"runs_dir": store.url("runs")})
        training.begin()
        try:
            state = "runs/run/state/.step-000008.manifest.json"
            wait_until(lambda: state in store.names(), FIRST_STEP_S, "a state in the bucket")
            store.stop()
            fault_s, objects = time.time(), store.objects.by_name
            kept = dict(objects)
            time.sleep(OUTAGE_S)
            store.start()
            wait_until(lambda: objects.keys() - kept.keys(), END_S, "the run is stored again")
            seconds = time.time() - fault_s
            training.finish()
        finally:
            training.kill()
        store.download("runs/run/", training.run.path)
    starts = training.records("start")
    expect(len(starts) == 1, f"the training began {len(starts)} times")
    return Outcome(describe_lost(0), seconds, expect_same(training, whole))


FAULTS = [
    Fault("disk", "a full disk", fill_disk),
    Fault("bucket", f"an S3 store does not answer for {OUTAGE_S:.0f} s", stop_store),
]
