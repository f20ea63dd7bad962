"""Joining a Ray cluster, or starting one on this machine: checked before Ray waits, and quiet."""

import logging
import os
import re
import socket

from lima_ray.errors import UserError

ADDRESS_ENV = "RAY_ADDRESS"
ANSWERS_WITHIN_S = 5.0
QUIET = {
    # Its default, 15, lets anything else on the machine starve a training.
    "RAY_worker_niceness": "0",
    # Light tasks and actors share a core on purpose; of workers that died we tell ourselves.
    "RAY_DEDUP_LOGS_SKIP_REGEX": (
        "worker processes have been started on node|A worker died or was killed while executing"
    ),
}
"""Ray's environment where it is not set otherwise; read when Ray is imported or started."""


def prepare_environment() -> None:
    """Set what Ray reads when it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # A new cluster has it on; where it is off, Ray's warning stays.
    tokens = logging.getLogger("ray._private.authentication.authentication_token_setup")
    tokens.addFilter(lambda record: "is enabled for this Ray cluster" not in record.getMessage())


def check_address() -> None:
    """Refuse a `RAY_ADDRESS` where nobody answers; Ray itself would wait for minutes.

    Raises:
        UserError: the address, and what to do.
    """
    given = os.environ.get(ADDRESS_ENV, "")
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)/?", given)
    if not found:
        return  # local, auto, none
    try:
        place = found[1], int(found[2])
        socket.create_connection(place, timeout=ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{ADDRESS_ENV} is {given}, and no Ray cluster answers there ({error}). Start it, or "
            f"`unset {ADDRESS_ENV}` to use a Ray of this machine's own"
        ) from error
