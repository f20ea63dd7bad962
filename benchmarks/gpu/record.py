"""A batch's figures in one JSON file, complete after every figure: a time limit loses nothing."""

import json
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "deepspeed", "ray", "flash-attn", "flash-attn-4", "kernels")


@dataclass
class Record:
    """Figures as they come."""

    path: Path
    batch: str
    smoke: bool
    """Tiny sizes on a CPU: shows that the batch runs; its figures mean nothing."""
    started: float = field(default_factory=time.perf_counter)
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.smoke else "cuda")

    def add(self, what: str, **figures: Any) -> None:
        """Append a result, print it, and write the file anew."""
        at_s = round(time.perf_counter() - self.started, 1)
        self.results.append({"what": what, "at_s": at_s, **figures})
        shown = ", ".join(f"{name} {short(value)}" for name, value in figures.items())
        print(f"[{at_s:6.1f} s] {what}: {shown}", flush=True)
        whole = {
            "batch": self.batch,
            "smoke": self.smoke,
            "machine": machine(self.device),
            "results": self.results,
        }
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(whole, indent=1) + "\n")
        partial.replace(self.path)

    @contextmanager
    def attempt(self, what: str, **settings: Any) -> Iterator[None]:
        """Go on with the next measurement where one fails, its error recorded."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            self.add(what, **settings, error=f"{type(error).__name__}: {lines[0][:300]}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: torch.device) -> dict[str, Any]:
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    found: dict[str, Any] = {"python": platform.python_version(), "packages": packages}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return found
