"""The Slurm script on this machine: Slurm's programs are stood in for, Ray and its job are real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell_commands import ROOT

SCONTROL = "#!/bin/sh\necho 127.0.0.1\necho 127.0.0.1\n"
SRUN = """#!/bin/bash
echo "$*" >> "$CALLS"
while [[ $1 == --* ]]; do shift; done
exec "$@" --node-ip-address=127.0.0.1 --num-cpus=1
"""


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 3])
def test_a_job_starts_ray_on_its_nodes_and_fails_where_its_command_does(
    tmp_path: Path, status: int
) -> None:
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    counted = "import ray; ray.init(); print(sum(n['Alive'] for n in ray.nodes()), 'nodes up')"
    variables = {
        "HOME": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "LIMA_VENV": sys.prefix,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid() * 2 + status % 2),
        "SLURM_JOB_NODELIST": "two",
    }
    ended = subprocess.run(
        [
            *("bash", ROOT / "cluster" / "slurm" / "lima.sbatch"),
            *("python", "-c", f"{counted}; raise SystemExit({status})"),
        ],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "2 nodes up" in ended.stdout, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert (ended.returncode == 0) == (status == 0)
    head, worker = calls.read_text().splitlines()
    assert "--head" in head and "--dashboard-host=127.0.0.1" in head and "--address=" in worker
    token = tmp_path / ".ray" / "auth_token"
    assert token.read_text() and token.stat().st_mode & 0o77 == 0
