"""Serve a model on this machine and open the chat page.

    python -m serve.open                          # the miniature; trained first if need be
    python -m serve.open runs/NAME --port 8001

Starts a Ray of its own on loopback, tells the address when the page answers, and ends with Ctrl-C.
`serve run serve.app:build` does the same with every setting, `serve deploy` on a cluster.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import os
    import sys

    # Ray, which reads it when it is imported, then listens on the loopback alone, as it does by
    # default on other systems than Linux; an address of the loopback it replaces by the machine's.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("open"))

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress
from pathlib import Path

import ray
from pydantic import ValidationError
from ray import serve

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import describe_errors
from serve.app import build
from serve.arguments import MINIATURE, Args, OpenCommand

QUIET = {"log_level": "WARNING", "enable_access_log": False}


def main(given: OpenCommand) -> None:
    """Serve until Ctrl-C; refuse where there is no model, or the port is taken."""
    check_free(given.port)
    if given.model == MINIATURE and not Path(MINIATURE).is_dir():
        print("no miniature yet: training it first, which takes minutes", flush=True)
        subprocess.run([sys.executable, "-m", "lima_ray.miniature.demo"], check=True)
    try:
        args = Args.model_validate({"model": given.model})
    except ValidationError as error:
        raise UserError(describe_errors(error, "arguments")) from error
    print(f"loading {next(iter(args.model))} ...", flush=True)
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # else for all, on every interface
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": given.port}, logging_config=QUIET)
    serve.run(build(args), logging_config=QUIET)
    server = f"http://127.0.0.1:{given.port}"
    print(f"chat page    {server}/chat/\nAPI          {server}/v1\nCtrl-C ends", flush=True)
    if given.browser and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(f"{server}/chat/")
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    print("\nending")
    ray.shutdown()


def check_free(port: int) -> None:
    """Refuse a port that another program has."""
    if not 0 < port < 2**16:
        raise UserError(f"--port is {port}; ports are 1 to 65535")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken ({error.strerror}); give another --port"
            ) from error
