"""Decisions of reviewers, and the queue that shows candidates to several at once."""

import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from served import wait_until
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate
from lima_ray.curation.dataset import SourcePool, choose
from lima_ray.curation.recipe import Curation
from lima_ray.curation.review import rendering
from lima_ray.curation.review.decisions import Decision, Verdict, read_decisions, resolve
from lima_ray.curation.review.page import build_page
from lima_ray.curation.review.queue import CLAIM_S, ChangedError, ReviewItem, ReviewQueue
from lima_ray.curation.review.server import serve_review
from lima_ray.curation.review.similarity import Neighbours
from lima_ray.curation.review.window import ReviewPlace, Window
from lima_ray.curation.selection.selectors import Row
from lima_ray.web.annotation import server
from lima_ray.web.annotation.names import NamedSessionStore
from lima_ray.web.annotation.rendering import messages, notice
from lima_ray.web.annotation.server import protect
from lima_ray.web.passwords import login_line


def said(id: str, verdict: Verdict, reviewer: str, text: str = "", at: str = "") -> Decision:
    """A decision; an edit's reply is the text."""
    turns = ("prompt", text) if verdict == "edit" else None
    return Decision(id, verdict, reviewer, at, turns)


def items(picked: int, spare: int = 0, source: str = "cooking") -> list[ReviewItem]:
    """Candidates of a source, numbered by rank."""
    return [
        ReviewItem(Candidate(f"{source}/{n}", (f"{n}?", f"{n}."), source), source, n <= picked, n)
        for n in range(1, picked + spare + 1)
    ]


def test_last_decision_of_a_reviewer_stands_and_undo_gives_back_the_one_before() -> None:
    told = [said("a", "keep", "anna"), said("a", "drop", "anna")]
    assert resolve(told)["a"].verdict == "drop"
    told.append(said("a", "undo", "anna"))
    assert resolve(told)["a"].verdict == "keep"
    told.append(said("a", "undo", "anna"))
    assert "a" not in resolve(told)
    assert resolve([*told, said("a", "undo", "anna")]) == {}, "there is nothing left to take back"


@pytest.mark.parametrize(
    ("votes", "lead", "verdict", "text"),
    [
        (["keep", "keep", "drop"], "", "keep", None),
        (["keep", "drop"], "", "undecided", None),
        (["keep", "drop"], "r1", "drop", None),
        (["keep", "drop"], "somebody else", "undecided", None),
        (["drop", "keep", "edit x"], "r2", "edit", "x"),
        (["drop", "keep", "edit x"], "", "undecided", None),
        (["edit x", "edit x", "edit y"], "r2", "edit", "x"),
        (["drop", "drop", "edit x"], "r2", "drop", None),
    ],
)
def test_majority_decides_and_the_lead_where_it_is_even(
    votes: list[str], lead: str, verdict: str, text: str | None
) -> None:
    told = []
    for number, vote in enumerate(votes):
        word, _, edited = vote.partition(" ")
        told.append(said("a", word, f"r{number}", edited))  # pyright: ignore[reportArgumentType]
    outcome = resolve(told, lead)["a"]
    assert outcome.verdict == verdict and outcome.disagreement
    assert outcome.turns == (("prompt", text) if text else None)


def test_journal_survives_a_torn_last_line(tmp_path: Path) -> None:
    queue = ReviewQueue(items(3), tmp_path)
    queue.decide("cooking/1", "keep", "anna", note="häubsch")
    queue.decide("cooking/2", "edit", "anna", turns=("2?", "zwei\n\n```\ncode\n```"))
    file = tmp_path / "decisions.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "cooking/3", "verd')
    assert [d.id for d in read_decisions(tmp_path)] == ["cooking/1", "cooking/2"]
    again = ReviewQueue(items(3), tmp_path)
    assert again.outcomes["cooking/2"].turns == ("2?", "zwei\n\n```\ncode\n```")
    again.decide("cooking/3", "drop", "bob")
    assert file.read_bytes().startswith(whole)
    assert [d.verdict for d in read_decisions(tmp_path)] == ["keep", "edit", "drop"]
    assert read_decisions(tmp_path)[0].note == "häubsch"


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a", "verdict": "keep", "reviewer": "anna"},
        {"id": "a", "verdict": "love", "reviewer": "anna", "at": ""},
        {"id": "a", "verdict": "edit", "reviewer": "anna", "at": ""},
        {"id": "a", "verdict": "keep", "reviewer": "anna", "at": "", "turns": ["x"]},
        {"id": "a", "verdict": "edit", "reviewer": "anna", "at": "", "turns": ["x", 3]},
    ],
)
def test_line_that_is_no_decision_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    good = said("a", "keep", "anna").to_json()
    (tmp_path / "decisions.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=r"decisions\.jsonl:2"):
        read_decisions(tmp_path)


def test_an_edit_without_text_is_no_decision(tmp_path: Path) -> None:
    row = {"id": "a", "verdict": "edit", "reviewer": "ana", "at": "2026", "turns": ["why", " \n"]}
    (tmp_path / "decisions.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"jsonl:1: edited turn 2 is empty; drop the row"):
        read_decisions(tmp_path)


def test_two_reviewers_see_different_candidates_until_none_else_is_left(tmp_path: Path) -> None:
    queue = ReviewQueue(items(3), tmp_path)
    assert queue.next("w1", "anna") == "cooking/1"
    assert queue.next("w2", "bob") == "cooking/2"
    queue.decide("cooking/1", "keep", "anna")
    assert queue.next("w1", "anna") == "cooking/3"
    queue.decide("cooking/2", "keep", "bob")
    assert queue.next("w2", "bob") == "cooking/3", "nothing else is left"
    queue.claim(None, "w1")
    queue.claim(None, "w2")
    assert queue.next("w3", "carl") == "cooking/3"


def test_claim_ends_after_some_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("lima_ray.curation.review.queue.time.monotonic", lambda: now)
    queue = ReviewQueue(items(2), tmp_path)
    queue.next("w1", "anna")
    now += CLAIM_S - 1
    assert queue.next("w2", "bob") == "cooking/2"
    now += 2
    assert queue.next("w3", "carl") == "cooking/1"


def test_next_of_its_source_takes_the_place_of_a_dropped_one(tmp_path: Path) -> None:
    queue = ReviewQueue(items(2, 2) + items(1, 1, "brewing"), tmp_path)
    assert queue.ids("open", "anna") == ["cooking/1", "cooking/2", "brewing/1"]
    queue.decide("cooking/2", "drop", "anna")
    assert queue.ids("open", "anna", "cooking") == ["cooking/1", "cooking/3"]
    progress = queue.progress()["cooking"]
    assert (progress.asked, progress.kept, progress.dropped, progress.open) == (2, 0, 1, 2)
    queue.undo("anna")
    assert queue.ids("open", "anna", "cooking") == ["cooking/1", "cooking/2"]
    assert queue.undo("anna") is None


def test_next_of_its_group_takes_the_place_while_there_is_one(tmp_path: Path) -> None:
    made = [("a", True), ("b", True), ("a", False), ("b", False)]
    queue = ReviewQueue(
        [
            ReviewItem(Candidate(f"{n}", ("?", "."), "se", group), "se", picked, n)
            for n, (group, picked) in enumerate(made, start=1)
        ],
        tmp_path,
    )
    queue.decide("2", "drop", "anna")
    assert queue.ids("open", "anna") == ["1", "4"]
    queue.decide("4", "drop", "anna")
    assert queue.ids("open", "anna") == ["1", "3"]


@pytest.mark.parametrize("selector", ["random", "score"])
def test_what_is_to_be_decided_is_what_the_dataset_takes(tmp_path: Path, selector: str) -> None:
    source = {"kind": "examples", "path": "x", "rows": 6, "choose": selector, "temperature": 3}
    curation = Curation.model_validate({"sources": {"own": source}})
    rows = [Row(f"{n}", "abc"[n % 3], float(n), 900) for n in range(30)]
    pool = SourcePool("own", curation.sources["own"], [], rows)
    chosen = choose(curation, pool)
    queued = [
        ReviewItem(Candidate(id, ("?", "."), "own", "abc"[int(id) % 3]), "own", id in chosen, rank)
        for rank, id in enumerate(chosen + choose(curation, pool, frozenset(chosen)), start=1)
    ]
    queue = ReviewQueue(queued, tmp_path)
    dropped = set[str]()
    for id in (chosen[0], chosen[1], chosen[-1]):
        queue.decide(id, "drop", "anna")
        dropped.add(id)
        assert set(queue.ids("open", "bob")) == set(choose(curation, pool, frozenset(dropped)))


def test_disagreements_are_counted_and_shown(tmp_path: Path) -> None:
    queue = ReviewQueue(items(2), tmp_path)
    queue.decide("cooking/1", "keep", "anna")
    assert queue.ids("second", "bob") == ["cooking/1"] and not queue.ids("second", "anna")
    queue.decide("cooking/1", "drop", "bob")
    assert queue.ids("disagreements", "anna") == ["cooking/1"]
    assert queue.progress()["cooking"].disagreements == 1
    assert queue.progress()["cooking"].undecided == 1
    led = ReviewQueue(items(2), tmp_path, lead="anna")
    assert led.ids("kept", "anna") == ["cooking/1"]


def test_own_decision_of_another_window_is_not_overwritten_unseen(tmp_path: Path) -> None:
    queue = ReviewQueue(items(1), tmp_path)
    first = queue.decide("cooking/1", "keep", "anna")
    assert queue.decide("cooking/1", "keep", "anna") == first, "the same again changes nothing"
    with pytest.raises(ChangedError) as changed:
        queue.decide("cooking/1", "drop", "anna")
    assert changed.value.current == first
    queue.decide("cooking/1", "drop", "anna", seen=first.at)
    assert [d.verdict for d in read_decisions(tmp_path)] == ["keep", "drop"]


def test_edit_that_changes_nothing_is_a_keep(tmp_path: Path) -> None:
    queue = ReviewQueue(items(1), tmp_path)
    assert queue.decide("cooking/1", "edit", "anna", turns=("1?", "1.")).verdict == "keep"


def test_window_skips_goes_back_and_returns_to_what_was_skipped(tmp_path: Path) -> None:
    queue = ReviewQueue(items(3), tmp_path)
    window = Window(queue, "w1", "session", "anna")
    shown = []
    window.begin()
    for step in (window.skip, window.skip, window.back, window.back, window.back, window.skip):
        step()
        shown.append(window.place.id.removeprefix("cooking/"))
    assert shown == ["2", "3", "2", "1", "1", "2"]
    for id in ("cooking/2", "cooking/3"):
        queue.decide(id, "keep", "anna")
    window.begin()
    assert window.place.id == "cooking/1"
    queue.decide("cooking/1", "drop", "anna")
    window.forward()
    assert window.place.id == ""
    window.back()
    assert window.place.id == "cooking/1" and window.own


def test_place_of_a_browser_is_read_with_care() -> None:
    place = ReviewPlace("cooking/1", "2026", "cooking", "kept", "cooking/2", 7)
    assert ReviewPlace.parse(place.to_text()) == place
    for text in (
        "",
        "[]",
        '{"id": 3}',
        '{"view": "everything"}',
        '{"view": ["open"]}',
        "{",
        "[" * 100_000,
    ):
        assert ReviewPlace.parse(text) == ReviewPlace()


def test_near_repeats_come_first() -> None:
    text = "Warm the milk slowly and stir it all the time until it thickens"
    texts = [text, "How do I grow tomatoes?", "", f"{text}.", "Stir the milk"]
    for embedder in (None, lambda given: np.array([[len(t) + 1, t.count("w")] for t in given])):
        neighbours = Neighbours(texts, embedder)
        found = neighbours.nearest(0)
        assert found and found[0][0] == 3 and found[0][1] > 0.99 and len(found) == 3
        assert 0 not in [place for place, _ in found]
    assert Neighbours(["alone"]).nearest(0) == []


def test_texts_of_others_are_no_markup() -> None:
    bad = "<img src=x onerror=alert(1)>"
    one = Candidate(
        "a/1", (bad, f"{bad}\n\n`<b>`"), bad, bad, 1, bad, "javascript:alert(1)", (bad,)
    )
    item = ReviewItem(one, bad, True, 1)
    outcome = resolve([said("a/1", "keep", bad), said("a/1", "edit", "b", bad)])["a/1"]
    pieces = [
        rendering.details(item),
        rendering.head(item, said("a/1", "keep", bad), outcome, bad),
        rendering.neighbours([(item, 0.9, outcome)]),
        rendering.others(outcome, "b", one.turns),
        rendering.others(outcome, bad, one.turns),
        notice(bad),
        rendering.progress(bad, {}, bad),
        *(m["content"][0]["text"] for m in messages(one.turns)),
    ]
    for piece in pieces:
        assert "<img" not in piece and 'href="javascript' not in piece


def test_edit_that_repeats_a_word_is_compared_soon() -> None:
    before, after = "a " * 1490, "a b " * 745
    began_s = time.process_time()
    assert "<ins>" in rendering.changes([before], [after])
    assert time.process_time() - began_s < 5


def test_heads_that_are_long_or_late_and_connections_of_one_address_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    monkeypatch.setattr(server, "CONNECTIONS", 5)
    app = protect(PlainTextResponse("here"), frozenset())
    config = uvicorn.Config(
        app, http=server.BoundedConnection, ws="none", lifespan="off", log_level="critical"
    )
    runner = uvicorn.Server(config)
    with server.listen("127.0.0.1", 0) as listener, ExitStack() as stack:
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(setattr, runner, "should_exit", True)

        def client(sent: bytes) -> socket.socket:
            found = stack.enter_context(socket.create_connection(listener.getsockname()))
            found.settimeout(10)
            with suppress(OSError):  # it may be refused before all is sent
                found.sendall(sent)
            return found

        def answer(sent: bytes) -> bytes:
            with client(sent) as asking, suppress(ConnectionResetError):
                return asking.recv(1000)
            return b""

        head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        assert answer(head + b"\r\n").startswith(b"HTTP/1.1 200")
        assert answer(head + b"X: " + b"a" * 100_000).startswith(b"HTTP/1.1 400")
        with client(head + b"\r\n") as kept:
            assert kept.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(0.7)
            kept.sendall(head + b"\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 200"), "between requests it may wait"
            kept.sendall(head)
            assert kept.recv(1000) == b"", "the second head comes too late"
        assert answer(head) == answer(b"") == b""
        held = [client(head) for _ in range(5)]
        assert answer(head + b"\r\n") == b""
        assert all(one.recv(1) == b"" for one in held)
        wait_until(lambda: answer(head + b"\r\n").startswith(b"HTTP/1.1 200"), 5)


def test_open_port_needs_logins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="login file"):
        serve_review(items(1), tmp_path, host="0.0.0.0", port=0)
    with pytest.raises(UserError, match="no candidate"):
        serve_review([], tmp_path, port=0)


def test_page_refuses_strangers_other_hosts_and_files(tmp_path: Path) -> None:
    login_file = tmp_path / "logins.txt"
    login_file.write_text(login_line("anna", "a long secret"))
    store = NamedSessionStore(f"sqlite:///{tmp_path}/sessions.sqlite")
    queue = ReviewQueue(items(2), tmp_path)
    pages = {
        logins: build_page(queue, Neighbours(["a", "b"]), store, "Review", logins)
        for logins in (None, login_file)
    }
    asks = {"accept": "text/html"}
    with TestClient(protect(pages[None], frozenset()), "http://localhost") as anyone:
        assert anyone.get("/", headers=asks).status_code == 200
        assert anyone.get("/", headers={"host": "evil.example"}).status_code == 421
        file = {"data": [{"path": "/etc/passwd"}], "fn_index": 0, "session_hash": "w"}
        refused = anyone.post("/gradio_api/queue/join", json=file)
        assert refused.status_code == 400 and "file" in refused.text
        long = anyone.post("/gradio_api/queue/join", content=b"x" * 2_000_001)
        assert long.status_code == 413
    with TestClient(protect(pages[login_file], None), follow_redirects=False) as stranger:
        assert stranger.get("/", headers=asks).headers["location"].endswith("/login")
        assert stranger.post("/gradio_api/queue/join", json={}).status_code == 401
    store.close()
