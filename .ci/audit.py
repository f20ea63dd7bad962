"""Look the versions of constraints.txt up among known advisories, and fail where one has any.

    python .ci/audit.py [FILE] [--osv-url URL]

Asks PyPI, and OSV where PyPI's answers are not within reach, as behind a mirror. Where neither is,
it says so and passes: that a machine is offline is no fault of the versions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IGNORED: dict[str, str] = {}
"""Advisories that do not concern this project, each with the reason."""
OSV = "https://api.osv.dev/v1/query"
TIMEOUT_S = 15


def look_up(versions: list[str], flags: list[str]) -> list[dict[str, Any]] | None:
    """Return what an index says of each version; none where it does not answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(versions))
        file.flush()
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            file.name,
            "--format",
            "json",
        ]
        command += ["--no-deps", "--disable-pip", "--progress-spinner", "off", *flags]
        command += ["--timeout", str(TIMEOUT_S)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None
    # A mirror knows the packages and not their advisories; pip-audit then skips each of them.
    return None if all("skip_reason" in one for one in found) else found


def report(found: list[dict[str, Any]], ignored: dict[str, str]) -> tuple[list[str], bool]:
    """Return lines on advisories, and whether one is among them that is not ignored."""
    lines, bad = [], False
    for one in found:
        if "skip_reason" in one:
            lines.append(f"not looked up: {one['name']} ({one['skip_reason']})")
        for advisory in one.get("vulns", []):
            names = sorted([advisory["id"], *advisory["aliases"]], reverse=True)
            reason = next((ignored[name] for name in names if name in ignored), None)
            bad = bad or reason is None
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            said = f"ignored: {reason}" if reason else f"fixed in {fixed}"
            lines.append(f"{one['name']} {one['version']}: {' '.join(names)}; {said}")
    return lines, bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    root = Path(__file__).parents[1]
    parser.add_argument("file", nargs="?", type=Path, default=root / "constraints.txt")
    parser.add_argument("--osv-url", help="ask this OSV alone")
    given = parser.parse_args()
    lines = [line.partition("#")[0].strip() for line in given.file.read_text().splitlines()]
    versions = [line for line in lines if line]
    indexes = [["--vulnerability-service", "osv", "--osv-url", given.osv_url or OSV]]
    if not given.osv_url:
        indexes.insert(0, ["--vulnerability-service", "pypi"])
    for flags in indexes:
        if look_up(versions[:1], flags) is None:  # one is enough to know that it does not answer
            continue
        found = look_up(versions, flags)
        if found is not None:
            lines, bad = report(found, IGNORED)
            asked = sum("skip_reason" not in one for one in found)
            print("\n".join([*lines, f"advisories: {asked} versions looked up by {flags[1]}"]))
            return int(bad)
    print("advisories: not looked up, since neither PyPI nor OSV answers from here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
