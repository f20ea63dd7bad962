"""Each batch of GPU measurements runs through on a CPU, at tiny sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["correct", "training", "serving", "aligned"])
def test_a_batch_runs_on_a_cpu(tmp_path: Path, batch: str) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", batch, "--smoke", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / f"{batch}.json").read_text())["results"]
    assert results
    assert [r for r in results if "error" in r] == []
