"""Serving on one GPU: our engine bare and behind HTTP, and vLLM where an environment has it.

`benchmarks/serve.py` whole, on a random 6.7B Llama in bf16, streamed, 1 to 128 requests at once.
`LIMA_VLLM_PYTHON` names a Python that has vLLM.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.record import Record

ROOT = Path(__file__).parents[2]
LIMIT_S = 540


def run(record: Record) -> None:
    """Measure all of it; what was measured before the limit is kept."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks.serve", "--work", folder]
        command += ["--rounds", "1", "--shapes", "ragged", "--ways", "stream", "--out", str(out)]
        command += ["--quiet_s", "2", "--per_client", "1"]
        if record.smoke:
            command += ["--sizes", "tiny", "--concurrency", "1", "--only", "engine"]
        else:
            command += ["--sizes", "7b", "--gpu", "--concurrency", "1", "8", "32", "128"]
            command += ["--only", "engine", "serve", "vllm"]
        if vllm := os.environ.get("LIMA_VLLM_PYTHON"):
            command += ["--vllm_python", vllm]
        with record.attempt("serving"):
            try:
                subprocess.run(command, check=True, timeout=LIMIT_S, cwd=ROOT)
            finally:
                found = json.loads(out.read_text()) if out.exists() else []
                for figures in found:
                    record.add("serving", **figures)
            if not found:
                raise RuntimeError("nothing was measured; see the servers' logs above")
