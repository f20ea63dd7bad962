"""Advisories on pinned versions: a found one fails by its name, an index out of reach does not."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.local_servers.http_server import QuietHandler, listening

pytest.importorskip("pip_audit")
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "audit.py"
ADVISORY = {
    "id": "GHSA-q2x7-8rv6-6q7h",
    "aliases": ["CVE-2024-56326"],
    "summary": "Jinja has a sandbox breakout through indirect reference to format method",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.5"}]}],
        }
    ],
}


@pytest.fixture
def osv() -> Iterator[str]:
    """An index that knows of one advisory, in OSV's protocol."""

    class Index(QuietHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = (asked["package"]["name"], asked["version"]) == ("jinja2", "3.1.4")
            said = {"vulns": [ADVISORY]} if known else {}
            self.respond(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    with listening(Index) as port:
        yield f"http://127.0.0.1:{port}/v1/query"


def audit(file: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, file, "--osv-url", url],
        env=os.environ | {"NO_PROXY": "127.0.0.1", "XDG_CACHE_HOME": str(file.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_version_with_an_advisory_fails_by_its_name(osv: str, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# pinned\nmarkupsafe==3.0.2\njinja2==3.1.4\n")
    ended = audit(file, osv)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "jinja2 3.1.4: GHSA-q2x7-8rv6-6q7h CVE-2024-56326; fixed in 3.1.5" in ended.stdout
    file.write_text("jinja2==3.1.5\n")
    ended = audit(file, osv)
    assert (ended.returncode, ended.stdout) == (0, "advisories: 1 versions looked up by osv\n")


def test_an_index_out_of_reach_is_told_and_does_not_fail(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("jinja2==3.1.4\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1/query"
    ended = audit(file, url)
    assert ended.returncode == 0 and ended.stdout.startswith("advisories: not looked up"), ended


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_what_is_ignored_has_a_reason_that_is_told() -> None:
    one: dict[str, Any] = {"name": "jinja2", "version": "3.1.4", "vulns": [{**ADVISORY}]}
    one["vulns"][0]["fix_versions"] = []
    found = [one, {"name": "ours", "skip_reason": "not on PyPI"}]
    lines, bad = script().report(found, {"CVE-2024-56326": "no template of others is rendered"})
    assert not bad and "; ignored: no template of others" in lines[0]
    assert lines[1] == "not looked up: ours (not on PyPI)"
    assert script().report(found, {})[1]
    assert all(reason.strip() for reason in script().IGNORED.values())
