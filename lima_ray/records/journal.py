"""An append-only file of JSON records, a line each, of which a kill loses none."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lima_ray.records.files import parse_json


@dataclass(frozen=True)
class Journal:
    """Records of one file, in the order in which they came."""

    file: Path
    durable: bool = False
    """Wait for the disk at each record, so that a power cut loses none either."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; an OSError leaves the file as it was, ValueError refuses NaN and inf."""
        line = f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n".encode()
        with self.file.open("ab", buffering=0) as out:
            before = out.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[out.write(line) :]
            except OSError:
                out.truncate(before)
                raise
            if self.durable:
                os.fsync(out.fileno())

    def records(self, damaged: Literal["stop", "skip"] = "stop") -> list[dict[str, Any]]:
        """Return every whole record, no cut-off last line; refuse or skip what is no object."""
        found = []
        for number, line in enumerate(self._whole_lines(), start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                found.append(record)
            elif damaged == "stop":
                found.append(parse_json(line, f"{self.file}:{number}"))
        return found

    def repair(self) -> None:
        """Drop a last line that a kill cut off, so that the next record begins a line."""
        if self.file.exists():
            os.truncate(self.file, sum(map(len, self._whole_lines())))

    def _whole_lines(self) -> list[bytes]:
        lines = self.file.read_bytes().splitlines(keepends=True) if self.file.exists() else []
        return [line for line in lines if line.endswith(b"\n")]
