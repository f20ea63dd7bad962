"""Another machine, as far as its network goes: a namespace joined to this one by virtual cables."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class OtherMachine:
    """A network namespace, in which programs run as on another machine."""

    name: str
    host: str
    """This machine's address, as the other sees it."""

    def call(self, script: Path, given: Any, timeout_s: float = 240) -> Any:
        """Run a script there that reads JSON and prints JSON; it has no token of ours."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, sys.executable, str(script)],
            input=json.dumps(given),
            env=kept | {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def other_machine() -> Iterator[OtherMachine]:
    """Make a namespace for a block; skip the test where that is not allowed."""
    number = os.getpid() % 2**14
    name, here, there = f"lima-{number}", f"lima{number}a", f"lima{number}b"
    # 198.18.0.0/15 is for measurements between networks (RFC 2544); nobody routes it.
    host, other = (f"198.18.{number // 64}.{number % 64 * 4 + one}" for one in (1, 2))
    inside = ["netns", "exec", name, "ip"]
    steps = [
        ["netns", "add", name],
        ["link", "add", here, "type", "veth", "peer", "name", there, "netns", name],
        ["address", "add", f"{host}/30", "dev", here],
        ["link", "set", here, "up"],
        [*inside, "address", "add", f"{other}/30", "dev", there],
        [*inside, "link", "set", there, "up"],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "route", "add", "default", "via", host],
    ]
    try:
        for step in steps:
            try:
                subprocess.run(["ip", *step], check=True, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("another machine's network needs the program ip (iproute2)")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no other network here, which takes root: {error.stderr.strip()}")
        yield OtherMachine(name, host)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
