"""DeepSpeed's state files: written with checksums and to the disk, read without running anything.

DeepSpeed writes pickles, which may run code as they are read. Here only tensors, plain values and
the few classes that DeepSpeed itself stores are read from them (`weights_only` of torch.load), so
who may write to the runs folder cannot run code that way.

    python -m lima_ray.training.state_files STATE OUT   converts a state to a universal checkpoint
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from deepspeed.checkpoint import ds_to_universal
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from lima_ray.config.storage.bucket import Checksum
from lima_ray.config.storage.whole_folders import compute_checksum

CONVERTERS = 2
"""Processes that convert a state to a universal checkpoint."""
torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])


class ChecksumEngine(TorchCheckpointEngine):
    """What DeepSpeed's engine writes and reads its files with."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Checksum] = {}
        """Of each file this process wrote, by name."""

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file to the disk, and note its checksum."""
        with Path(path).open("wb") as file:
            out: Any = HashingWriter(file)
            torch.save(state_dict, out)
            file.flush()
            os.fsync(file.fileno())
        self.sums[Path(path).name] = out.sum

    def load(self, path: str, map_location: Any = None) -> Any:
        return torch.load(path, map_location=map_location, weights_only=True)


class HashingWriter:
    """A file that is only written to, and hashed on the way."""

    def __init__(self, file: Any) -> None:
        self.file, self.bytes, self.digest = file, 0, xxhash.xxh3_128()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    @property
    def sum(self) -> Checksum:
        """Of what is written so far."""
        return self.bytes, self.digest.hexdigest()


def find_damaged(folder: Path, sums: dict[str, Checksum]) -> list[str]:
    """Return names of files that are not there or not as they were written."""
    return [
        name for name, wanted in sums.items() if compute_checksum(folder / name) != tuple(wanted)
    ]


@contextmanager
def restrict_unpickling() -> Iterator[None]:
    """Make every torch.load inside read tensors and plain values alone, whatever it asks for."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


def main() -> None:
    """Convert a state, so that any number of workers can load it."""
    source, target = sys.argv[1:]
    sys.argv[1:] = ["--input_folder", source, "--output_folder", target, "--inject_missing_state"]
    sys.argv += [f"--num_extract_workers={CONVERTERS}", f"--num_merge_workers={CONVERTERS}"]
    with restrict_unpickling():
        ds_to_universal.main(ds_to_universal.parse_arguments())


if __name__ == "__main__":
    main()
