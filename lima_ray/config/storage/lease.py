"""A lease: an object in the store that its holder renews, so that others keep away meanwhile.

The API here has no conditional create, so two who take a free lease within the same second may both
look like the first; each reads it again a moment later, and the one whose name it does not hold
gives way. A holder that is cut off from the store for longer than `EXPIRES_S` may lose it to
another; it stops when it sees that.
"""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable

from lima_ray.config.errors import UserError
from lima_ray.config.storage import bucket
from lima_ray.config.storage.bucket import Location

RENEW_S = 8.0
EXPIRES_S = 30.0
"""How long a lease that nobody renews keeps others away."""
SETTLE_S = 1.0


def stop_process() -> None:
    """End this process as a signal does, which says where its work stands."""
    os.kill(os.getpid(), signal.SIGTERM)


class Lease:
    """Held from its making until `release`, renewed in a thread."""

    def __init__(self, at: Location, busy: str, on_loss: Callable[[], None] = stop_process) -> None:
        """Take the lease; one that nobody renews is waited out, and a live one refused.

        Raises:
            UserError: `busy`, where another process holds it.
        """
        self.at, self.on_loss = at, on_loss
        self.token, self.count = uuid.uuid4().hex, 0
        with bucket.impatient(EXPIRES_S):
            self._wait_for_others(busy)
            self._write()
            time.sleep(SETTLE_S)
            if read_lease(at).get("token") != self.token:
                raise UserError(busy)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._renew, daemon=True)
        self.thread.start()

    def _wait_for_others(self, busy: str) -> None:
        first, begun = read_lease(self.at), time.monotonic()
        if not first or is_dead(first):
            return
        host = first.get("host")
        print(f"{self.at} is held by a process on {host}; seeing whether it lives", flush=True)
        while time.monotonic() - begun < EXPIRES_S:
            time.sleep(SETTLE_S)
            now = read_lease(self.at)
            if not now:
                return
            if now != first:
                raise UserError(f"{busy} (it is on {host})")

    def _write(self) -> None:
        self.count += 1
        said = {"token": self.token, "host": socket.gethostname(), "pid": os.getpid()}
        said |= {"renewed": self.count, "time": round(time.time(), 1)}
        bucket.write_object(self.at, json.dumps(said).encode())

    def _renew(self) -> None:
        while not self.ending.wait(RENEW_S):
            try:
                holder = read_lease(self.at).get("token", self.token)
                if holder == self.token:
                    self._write()
                    continue
            except UserError as error:  # the work says the same, and knows what to do
                print(error, flush=True)
                continue
            print(f"another process has taken {self.at}; this one stops", flush=True)
            self.on_loss()
            return

    def release(self) -> None:
        self.ending.set()
        self.thread.join()
        if read_lease(self.at).get("token") == self.token:
            bucket.remove_object(self.at)


def read_lease(at: Location) -> dict[str, object]:
    """Return what a lease says; nothing where there is none."""
    try:
        found = json.loads(bucket.read_object(at) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_dead(lease: dict[str, object]) -> bool:
    """Return whether a lease's holder was a process of this machine that is gone."""
    pid = lease.get("pid")
    if lease.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
