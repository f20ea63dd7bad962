"""Resume states: DeepSpeed's own, written by all workers, checked before they are used.

A state is a folder `step-NNNNNN` that appears with its name when every file of it is on the disk,
with a manifest of their checksums. Until then the state before it stays whole. A run that goes on
with another number of workers converts its state to a universal checkpoint first.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from lima_ray.config.errors import UserError
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.bucket import Checksum
from lima_ray.config.storage.working_copy import location, name_disk
from lima_ray.model.export import check_disk_space, folder_bytes
from lima_ray.model.parameters import count_elements
from lima_ray.records.files import write_json
from lima_ray.records.run import MANIFEST, Run, SavedState
from lima_ray.training.state_files import ChecksumEngine, find_damaged, restrict_unpickling
from lima_ray.training.zero import resume_state_bytes

POLL_S = 1.0
OF_WORKER = re.compile(r"zero_pp_rank_(\d+)_")
"""In the name of a file that one worker alone writes and reads."""
DAMAGED_PREFIX = "damaged-"
"""How the name of a state's folder begins that is not as it was written."""


def leads_disk(folder: Path) -> bool:
    """Return whether this worker is the first of those that see a folder; all call it together.

    Of a working copy each node has its own; any other folder is one that all see.
    """
    if location(folder) is None:
        return dist.get_rank() == 0
    names: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(names, name_disk(folder))
    return names.index(names[dist.get_rank()]) == dist.get_rank()


def save_state(engine: Any, run: Run, step: int, keep: int) -> int:
    """Write a resume state from all workers, then drop older ones.

    Where the run lives in a bucket, each worker writes its files to its own disk and from there to
    the store, which has the state once all have.

    Args:
        keep: states to keep, this one included; the one before it is removed once this one is
            whole, so with 1 there are two on the disk while it is written.

    Returns:
        bytes written by all workers (on rank 0; 0 elsewhere).

    Raises:
        UserError: on every worker alike, where the disk lacks room; nothing has been written then.
    """
    folder = run.state_dir / f"step-{step:06d}"
    partial = run.state_dir / f"{folder.name}.partial"
    first, leads = dist.get_rank() == 0, leads_disk(run.path)
    if leads:
        run.state_dir.mkdir(parents=True, exist_ok=True)
        for leftover in run.state_dir.glob("*.partial"):
            shutil.rmtree(leftover)
        drop_states(run, max(1, keep - 1))
        partial.mkdir()
    if first:
        whole_folders.withdraw(folder)
    check_disk_space(run.state_dir, state_bytes(engine), f"the resume state of step {step}")
    engine.checkpoint_engine = files = ChecksumEngine()
    engine.save_checkpoint(
        str(run.state_dir),
        tag=partial.name,
        client_state={"step": step},
        save_latest=False,
        exclude_frozen_parameters=True,
    )
    whole_folders.upload_files(partial, folder, files.sums)
    sums = [None] * dist.get_world_size()
    dist.all_gather_object(sums, files.sums)
    if not leads:
        return 0
    written = {name: found for part in sums for name, found in (part or {}).items()}
    manifest = {"step": step, "workers": dist.get_world_size()}
    manifest |= {"zero_stage": engine.zero_optimization_stage(), "files": written}
    write_json(partial / MANIFEST, manifest)
    sync_folder(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    sync_folder(run.state_dir)
    if first and location(folder):
        about = {key: value for key, value in manifest.items() if key != "files"}
        own = whole_folders.upload_files(folder, folder, [MANIFEST])
        whole_folders.commit(folder, written | own, about)
    drop_states(run, keep)
    return sum(size for size, _ in written.values()) if first else 0


def drop_states(run: Run, keep: int) -> None:
    """Remove all states but the newest, what was converted from others, and what is damaged.

    Of a run in a bucket the first worker does so in the store, and each disk's with its copies.
    """
    kept = {state.folder.name for state in run.states()[:keep]}
    if location(run.state_dir):
        if dist.get_rank() == 0:
            for name in set(whole_folders.names_of_whole(run.state_dir)) - kept:
                whole_folders.remove(run.state_dir / name)
        else:  # whose disk is not told of each state that is saved
            here = sorted(f.name for f in run.state_dir.glob(f"step-{'[0-9]' * 6}"))
            kept = set(here[-keep:])
    for old in run.state_dir.iterdir():
        if old.name.startswith(("step-", DAMAGED_PREFIX)) and old.name not in kept:
            shutil.rmtree(old)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk, where the file system can tell."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def find_intact_state(run: Run) -> tuple[SavedState | None, list[str]]:
    """Return the newest state whose files are as they were written; the workers share the reading.

    Returns:
        the state, none where the run has not saved one, and a line about each damaged one.

    Raises:
        UserError: on every worker alike, where all states are damaged or of an earlier version.
    """
    leads = leads_disk(run.path)
    if location(run.path):
        if leads:
            refresh_states(run)
        dist.barrier()
    run.check_states()
    workers = dist.get_world_size()
    shared = [(run.states(), unreadable_states(run))]
    dist.broadcast_object_list(shared, src=0)
    states, unreadable = shared[0]
    states = [replace(state, folder=run.state_dir / state.folder.name) for state in states]
    notes = [
        f"the state in {folder} is damaged: {MANIFEST} cannot be read" for folder in unreadable
    ]
    bad_states: list[SavedState] = []
    for state in states:
        found: list[Any] = [None] * workers
        dist.all_gather_object(found, fetch_and_check(state, files_of_worker(state, leads)))
        bad = sorted(name for part in found for name in part)
        if not bad:
            break
        bad_states.append(state)
        notes.append(
            f"the state of step {state.step} is damaged and not used: {', '.join(bad)} in "
            f"{state.folder} changed since it was written"
        )
    else:
        if notes:
            raise UserError(
                f"{'; '.join(notes)}. No sound state is left: restore these files, or remove "
                f"{run.state_dir} to train from the beginning"
            )
        return None, []
    dist.barrier()
    for folder in [*unreadable, *(bad.folder for bad in bad_states)]:
        if dist.get_rank() == 0:
            whole_folders.withdraw(folder)
        if leads and folder.exists():
            folder.rename(folder.with_name(f"{DAMAGED_PREFIX}{folder.name}"))
    return states[len(bad_states)], notes


def refresh_states(run: Run) -> None:
    """Know which states a bucket holds, and remove from this disk and there what is not whole."""
    changing_files.pull(run.state_dir)
    whole = set(whole_folders.names_of_whole(run.state_dir))
    for folder in run.state_dir.glob("step-*"):
        if folder.name not in whole:
            shutil.rmtree(folder)
    if dist.get_rank() == 0:
        for name in whole_folders.names_of_not_whole(run.state_dir):
            whole_folders.remove(run.state_dir / name)


def files_of_worker(state: SavedState, leads: bool) -> dict[str, Checksum]:
    """Return the files of a state that this worker checks, and fetches where it is in a bucket.

    There a disk needs the files of its own workers, and those that no single worker wrote; a state
    that is converted, all.
    """
    rank, workers, files = dist.get_rank(), dist.get_world_size(), state.files
    if location(state.folder) is None:
        return dict(sorted(files.items())[rank::workers])
    if state.workers != workers and state.zero_stage != 0:
        return files if leads else {}
    of_worker = {name: OF_WORKER.search(name) for name in files}
    mine = [n for n, found in of_worker.items() if (int(found[1]) == rank if found else leads)]
    return {name: files[name] for name in mine}


def fetch_and_check(state: SavedState, files: dict[str, Checksum]) -> list[str]:
    """Return the names of a state's files that are damaged, in the store too if it is in one."""
    whole_folders.fetch_files(state.folder, files)
    bad = find_damaged(state.folder, files)
    if bad and location(state.folder):
        whole_folders.fetch_files(state.folder, bad, afresh=True)
        bad = find_damaged(state.folder, {name: files[name] for name in bad})
    return bad


def unreadable_states(run: Run) -> list[Path]:
    """Return folders of states that were complete once, without a manifest that can be read."""
    known = {state.folder for state in run.states()}
    if location(run.state_dir):
        return []
    return sorted(f for f in run.state_dir.glob(f"step-{'[0-9]' * 6}") if f not in known)


def state_bytes(engine: Any) -> int:
    """Return the bytes of an engine's resume state."""
    trained = sum(count_elements(p) for p in engine.module.parameters() if p.requires_grad)
    return resume_state_bytes(trained, next(engine.module.parameters()).element_size())


def convert_to_universal(state: SavedState) -> str:
    """Convert a state, by one worker of each disk, for any number of them; return its new tag."""
    folder = state.folder.with_name(f"{state.folder.name}-universal")
    leads = leads_disk(state.folder.parents[1])
    if leads:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier start; nobody has checked it
    check_disk_space(state.folder, folder_bytes(state.folder), "converting the resume state")
    if leads:
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "lima_ray.training.state_files", state.folder, partial]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the state could not be converted:\n{done.stderr[-2000:]}")
        partial.rename(folder)
    while not folder.exists():
        time.sleep(POLL_S)  # not at a barrier, whose time-out a large state would exceed
    dist.barrier()
    return folder.name


def load_state(engine: Any, run: Run, tag: str) -> None:
    """Load weights and optimizer from a resume state or its universal form."""
    engine.checkpoint_engine = ChecksumEngine()
    with restrict_unpickling():
        path, _ = engine.load_checkpoint(str(run.state_dir), tag=tag, load_module_strict=False)
    if path is None:
        raise RuntimeError(f"{run.state_dir / tag} could not be loaded")
    if isinstance(engine.basic_optimizer, torch.optim.AdamW):
        # A universal state gives every group one step counter, on the CPU: each needs its own.
        for parameter, averages in engine.basic_optimizer.state.items():
            step = torch.as_tensor(averages["step"], dtype=torch.float32)
            averages["step"] = step.to(parameter.device, copy=True)
