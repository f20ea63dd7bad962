"""How `kernels.c` becomes a library: compiled when first needed, kept, and switched off.

It is compiled by `cc`, or what CC names, into a cache folder that only this user may write
(lima_ray/config/cache.py). Where that cannot be, and with LIMA_KERNELS=0, `available` is false and
PyTorch computes it all (`reference.py`).

The threads are those that PyTorch keeps: the library is linked without OpenMP's own, so that it
finds the one already in the process, and the two never fight for cores.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import torch  # noqa: F401  The library takes its OpenMP.

from lima_ray.config import cache

SOURCE = Path(__file__).with_name("kernels.c")
COMPILE = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-c")
POINTER, COUNT, FORMAT, THREADS = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_int
ARGUMENTS = {
    "pack": [POINTER] * 2 + [COUNT] * 2 + [THREADS],
    "multiply": [POINTER] * 5 + [COUNT] * 3 + [FORMAT, THREADS],
    "add_norm": [POINTER] * 4 + [COUNT] * 2 + [ctypes.c_float, THREADS],
    "silu_mul": [POINTER] * 2 + [COUNT] * 2 + [THREADS],
    "rotate_into_slots": [POINTER] * 7 + [COUNT] * 5 + [THREADS],
    "attend": [POINTER] * 7 + [COUNT] * 4 + [ctypes.c_float, THREADS],
    "attend_prompt": [POINTER] * 4 + [COUNT] * 6 + [ctypes.c_float, THREADS],
}
"""Types of each function's arguments; none returns a value."""


def available() -> bool:
    """Whether the kernels can be used here; compiles them when first asked."""
    return os.environ.get("LIMA_KERNELS") != "0" and load() is not None


def library() -> ctypes.CDLL:
    found = load()
    assert found is not None
    return found


@lru_cache
def load() -> ctypes.CDLL | None:
    """Return the compiled library, or None with a warning that says why it cannot be made."""
    named = os.environ.get("CC", "cc")
    compiler = shutil.which(named)
    try:
        if compiler is None:
            raise FileNotFoundError(f"there is no C compiler {named!r}; CC names another")
        found = ctypes.CDLL(str(compile_into_cache(compiler)))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        said = error
        if isinstance(error, subprocess.CalledProcessError):
            said = f"{' '.join(error.cmd)} failed: {error.stderr}"
        logging.getLogger(__name__).warning(
            "no kernels for decoding on this CPU, so PyTorch's slower operations are used "
            "(XDG_CACHE_HOME names the folder they are kept in): %s",
            said,
        )
        return None
    found.panel.restype = found.group.restype = COUNT
    for name, types in ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = types, None
    return found


def compile_into_cache(compiler: str) -> Path:
    """Return the library's file, made unless the cache has it for this source, compiler and CPU.

    Raises:
        OSError, RuntimeError: see `cache.cached_file`.
        subprocess.CalledProcessError: the compiler refuses.
    """
    version = run(compiler, "--version")
    made_of = (SOURCE.read_text(), *COMPILE, compiler, version, describe_cpu())
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]

    def build(file: Path) -> None:
        compiled = str(file.with_suffix(".o"))
        run(compiler, *COMPILE, str(SOURCE), "-o", compiled)
        run(compiler, "-shared", compiled, "-o", str(file))

    return cache.cached_file(f"kernels-{key}.so", build)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def describe_cpu() -> str:
    """Return what `-march=native` looks at: machines of several kinds may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
