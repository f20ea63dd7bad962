"""A real PostgreSQL server on the loopback, which a test may kill and start again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from browser import free_port

DEBIAN = Path("/usr/lib/postgresql")
NEEDED = ("postgres", "initdb", "pg_isready")


def programs() -> Path | None:
    """The folder of the newest server that is installed whole."""
    versions = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parts[-2]), reverse=True)
    found = shutil.which("postgres")
    folders = [*versions, *([Path(found).resolve().parent] if found else [])]
    return next((folder for folder in folders if all((folder / n).exists() for n in NEEDED)), None)


def postgres_missing() -> str:
    """Why there is no server to test with; empty where there is one."""
    return "" if programs() else "no PostgreSQL here: apt-get install postgresql"


class Postgres:
    """A server with a database of its own, gone at the end of a `with`."""

    def __init__(self) -> None:
        """Choose a port and a folder."""
        folder = programs()
        assert folder is not None, postgres_missing()
        self.bin = folder
        self.port = free_port()
        self.url = f"postgresql://lima@127.0.0.1:{self.port}/postgres"
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.user = "postgres" if os.geteuid() == 0 else None
        """A server refuses to run as root."""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Postgres":
        """Make the database and start."""
        if self.user:
            shutil.chown(self.folder, self.user)
        made = [self.bin / "initdb", "-D", self.folder, "-A", "trust", "-U", "lima", "--no-sync"]
        subprocess.run(made, user=self.user, cwd="/", check=True, capture_output=True)
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Stop, and remove the files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = [
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder, "-p", str(self.port), *options],
            user=self.user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = [self.bin / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 20
        while subprocess.run(ready, capture_output=True).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a crash does: SIGQUIT takes its children along."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
            self.process = None
