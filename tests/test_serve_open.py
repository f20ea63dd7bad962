"""`python -m serve.open` as a user starts it: it answers, and listens on the loopback alone."""

import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import psutil
from browser import free_port
from served import wait_until


def test_server_of_this_machine_listens_on_the_loopback_alone(
    brief_dir: Path, tmp_path: Path
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "serve.open", str(brief_dir), "--no_browser"]
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": str(root)}
    log = tmp_path / "log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=tmp_path, env=env, stdout=said, stderr=said
        )
    try:
        wait_until(lambda: "chat page" in log.read_text() or server.poll() is not None, 120)
        ready = httpx.get(f"http://127.0.0.1:{port}/ready")
        assert ready.status_code == 200, log.read_text()
        tree = psutil.Process(server.pid)
        processes = {p.pid: p.name() for p in [tree, *tree.children(recursive=True)]}
        bound = [
            (processes[one.pid], ipaddress.ip_address(one.laddr.ip))
            for one in psutil.net_connections("tcp")
            if one.pid in processes and one.laddr and one.status == psutil.CONN_LISTEN
        ]
        others = {
            name
            for name, address in bound
            if not (getattr(address, "ipv4_mapped", None) or address).is_loopback
        }
        # Serve binds its replicas' gRPC to every interface; it asks for the cluster's token.
        assert bound and all(name.startswith("ray::ServeRepli") for name in others), others
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
