"""Pack the packages that a GPU machine without a network lacks into one archive.

    python -m benchmarks.gpu.bundle site.tar.xz --python_version 3.12

On that machine, which has a CUDA build of PyTorch and `transformers`: unpack it, put the folder and
this repository on PYTHONPATH, and run `python -m benchmarks.gpu`. The versions are those of
constraints.txt. Ray goes without its Java jar, its dashboard's pages and RLlib, which are half of
its size.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

ROOT = Path(__file__).parents[2]
PACKAGES = Path(__file__).with_name("packages.txt").read_text().split()
LEFT_OUT = ("ray/jars", "ray/dashboard/client", "ray/rllib", "ray/llm")
PLATFORMS = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def main(out: tyro.conf.Positional[Path], python_version: str = "3.12") -> None:
    """Download, strip and pack.

    Args:
        out: the archive, a .tar.xz.
        python_version: of the machine with the GPU.
    """
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    known = {normal(name): version for name, version in pins.items()}
    wanted = [p if "==" in p else f"{p}=={known[normal(p)]}" for p in PACKAGES]
    with TemporaryDirectory() as folder:
        wheels, site = Path(folder) / "wheels", Path(folder) / "site"
        wheels.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        for package in wanted:
            source = package.startswith("deepspeed")  # has no wheel; pure Python until it compiles
            command = [*pip, "wheel" if source else "download", "--no-deps", package]
            command += ["--no-build-isolation", "-w"] if source else binary(python_version)
            subprocess.run([*command, str(wheels)], check=True)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        for part in LEFT_OUT:
            shutil.rmtree(site / part, ignore_errors=True)
        for program in site.glob("ray/core/src/ray/**/*"):
            program.chmod(0o755)  # zipfile drops the bits that say a file can be run
        with tarfile.open(out, "w:xz") as archive:
            archive.add(site, "site")
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {len(wanted)} packages")


def normal(name: str) -> str:
    """A package's name as pip compares it."""
    return name.lower().replace("_", "-")


def binary(python_version: str) -> list[str]:
    """Arguments of pip for wheels of another Python on Linux."""
    tags = [f"manylinux_{p}_x86_64" for p in PLATFORMS]
    tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    platforms = [argument for tag in tags for argument in ("--platform", tag)]
    version = ["--python-version", python_version, "--implementation", "cp"]
    return ["--only-binary=:all:", *version, *platforms, "-d"]


if __name__ == "__main__":
    tyro.cli(
        main, prog="python -m benchmarks.gpu.bundle", description=__doc__, use_underscores=True
    )
