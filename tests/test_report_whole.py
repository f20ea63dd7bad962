"""One study from replies to report: the exact judge, a model judge, two people in a browser."""

import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from annotation_page import AnnotationPage
from browser import CHROMIUM, chromium, free_port

from benchmarks.local_servers.chat_server import serving
from benchmarks.local_servers.judge_server import JudgeServer
from lima_ray.config.command_line import run_command
from lima_ray.data.examples import read_examples
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import read_verdicts

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

PROMPTS = 8
RAMBLE = " What is more: {other}\n\nHow is it spelled?\n> So it says in the book."


def write_systems(folder: Path) -> list[str]:
    """Replies to the miniature's held-out prompts: right ones, and some that go on and on."""
    rows = read_examples("lima_ray/miniature/rows/heldout.jsonl")[:PROMPTS]
    references = []
    for name in ("base", "aligned"):
        replies = []
        for number, row in enumerate(rows):
            rambles = name == "base" and number % 4 != 3
            more = RAMBLE.format(other=rows[number - 1].turns[-1]) if rambles else ""
            text, extra = row.turns[-1] + more, {"group": "in", **row.extra}
            prompt = row.turns[:1]
            replies.append(Reply(row.id, prompt, name, 0, 0, text, True, extra=extra))
        (folder / name).mkdir()
        write_jsonl([one.to_json() for one in replies], folder / name / "replies.jsonl")
        references.append(f"{name}={folder / name}")
    return references


def shorter(a: str, b: str) -> str:
    return "A" if len(a) < len(b) else "B" if len(b) < len(a) else "neither"


@contextmanager
def study_page(references: list[str], out: Path) -> Iterator[str]:
    """The page of a study until its server ends and writes its verdicts."""
    flags = ["--overlap", str(PROMPTS // 2), "--check_every", "0", "--no_open"]
    port = free_port()
    command = [sys.executable, "-m", "lima_ray.study", *references, "--out", str(out)]
    server = subprocess.Popen(
        [*command, *flags, "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout and any(f":{port}/" in line for line in server.stdout)
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGINT)
        assert "verdicts of people" in server.communicate(timeout=60)[0]
    finally:
        server.kill()
        server.wait()


def annotate(references: list[str], out: Path) -> None:
    """Have two people answer by turns: anna as she reads, ben that neither is better."""
    with study_page(references, out) as address, chromium() as browser:
        pages = [
            AnnotationPage(browser, address, name, "#side-b .bot-row") for name in ("anna", "ben")
        ]
        while any(one.place["id"] for one in pages):
            for one in (one for one in pages if one.place["id"]):
                sides = [one.page.locator(f"#side-{side} .bot-row").inner_text() for side in "ab"]
                choice = shorter(*sides).lower() if one.name == "anna" else "neither"
                one.press(choice[0])
        assert [one.errors for one in pages] == [[], []]


def preferred(folder: Path, *, person: bool, name: str = "") -> dict[tuple[str, str], list[str]]:
    """What was preferred of each prompt, by annotator."""
    found: dict[tuple[str, str], list[str]] = {}
    for v in read_verdicts(folder / "verdicts.jsonl"):
        if (v.extra["annotator_kind"] == "person") == person and name in ("", v.annotator):
            place = {"A": 0, "B": 1}.get(str(v.verdict))
            said = "neither" if place is None else v.models[v.order[place]]
            found.setdefault((v.id, v.annotator), []).append(said)
    return found


def agreement_of(rows: list[tuple[str, str]]) -> float:
    points = [1.0 if a == b else 0.5 if "neither" in (a, b) else 0.0 for a, b in rows]
    return sum(points) / len(points)


@pytest.mark.slow
def test_judges_and_people_of_one_study_meet_in_one_report(tmp_path: Path) -> None:
    references = write_systems(tmp_path)
    judged, study, out = (tmp_path / name for name in ("judged", "study", "report"))
    with serving(JudgeServer(decide=shorter)) as server:
        judges = ["exact", f"short@{server.url},name=short"]
        run_command("judge", [*references, "--judges", *judges, "--out", str(judged), "--passport"])
    annotate(references, study)
    told = [str(judged), str(study), "--replies", *references, "--out", str(out)]
    run_command("report", told)

    with (out / "figures" / "agreement.csv").open(encoding="utf-8") as file:
        rows = {row["annotators"]: row for row in csv.DictReader(file)}
    assert set(rows) == {
        *("people and people", "people and exact", "people and short"),
        *("exact and short", "all"),
    }
    people = preferred(study, person=True)
    by_prompt: dict[str, dict[str, str]] = {}
    for (id, annotator), (said,) in people.items():
        by_prompt.setdefault(id, {})[annotator] = said
    assert len(by_prompt) == PROMPTS, "every question is answered by somebody"
    shared = [tuple(said.values()) for said in by_prompt.values() if len(said) == 2]
    assert len(shared) == PROMPTS // 2
    among = rows["people and people"]
    assert float(among["tie_discounted"]) == pytest.approx(agreement_of(shared))  # pyright: ignore
    for name in ("exact", "short"):
        own = preferred(judged, person=False, name=name)
        assert all(len(set(both)) == 1 for both in own.values()), "the same in both orders"
        each = [
            agreement_of([(said, own[id, name][0]) for said in answers.values()])
            for id, answers in by_prompt.items()
        ]
        found = float(rows[f"people and {name}"]["tie_discounted"])
        assert found == pytest.approx(sum(each) / len(each))
    # Both prefer what does not go on and on, and call what is said alike a tie.
    assert float(rows["exact and short"]["tie_discounted"]) == 1
    assert float(rows["exact and short"]["tie_discounted_low"]) < 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('class="item"') == PROMPTS
