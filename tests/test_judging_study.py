"""A study by people: who is asked what in which order, what is kept, what its owner sees."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from postgres import Postgres, postgres_missing
from starlette.requests import Request
from starlette.testclient import TestClient
from study_server import SYSTEMS, write_replies

from lima_ray.config.command_line import run_command
from lima_ray.config.errors import UserError
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.questions.item import Item, ItemKind
from lima_ray.judging.questions.verdicts import Annotator, latest, record_verdict
from lima_ray.judging.study import queue as study_queue
from lima_ray.judging.study import rendering
from lima_ray.judging.study.checks import EMPTY, Check, check_item, passes
from lima_ray.judging.study.design import MOST_LEAD, StudyDesign
from lima_ray.judging.study.folder import VERDICTS, begin, export_verdicts, open_store
from lima_ray.judging.study.handlers import AWAY, StudyHandlers, StudyPlace
from lima_ray.judging.study.page import build_page
from lima_ray.judging.study.queue import Settings, StudyQueue
from lima_ray.judging.study.status import agreements, figures
from lima_ray.judging.study.store import Assignment
from lima_ray.records.files import acquire_lock, write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict, read_verdicts
from lima_ray.web.annotation.names import NamePrompt
from lima_ray.web.annotation.server import protect
from lima_ray.web.passwords import login_line
from lima_ray.web.sessions import Session

ANNA, BOB = "anna", "bob"


def replies(name: str, prompts: int, says: str = "") -> list[Reply]:
    says = says or name
    return [
        Reply(f"p{n}", (f"What of {n}?",), name, 0, 0, f"{says} on {n}" + n * ".", True)
        for n in range(prompts)
    ]


def design(
    kind: ItemKind = "pairwise", systems: int = 2, prompts: int = 30, overlap: int = 6, **more: Any
) -> StudyDesign:
    names = [f"system-{n}" for n in range(systems)]
    models = {name: replies(name, prompts) for name in names}
    return StudyDesign(design_items(kind, models, orders="given", **more), overlap)


@contextmanager
def study(
    folder: Path, asked: StudyDesign | None = None, url: str = "", **settings: int
) -> Iterator[StudyQueue]:
    """A study that is taken up where it stands."""
    asked = asked or design()
    run = Settings(**{"check_every": 0} | settings)
    with open_store(folder, url) as store:
        kept = {"kind": asked.kind, "systems": list(asked.systems), "shared": len(asked.shared)}
        store.begin(asked.id, kept | {"rest": len(asked.rest)} | vars(run))
        yield StudyQueue(asked, store, run)


def answer_all(
    queue: StudyQueue, annotator: str, choose: Callable[[Assignment], str], most: int = 10_000
) -> list[Assignment]:
    """Answer an annotator's questions as they come; return them."""
    given = []
    while len(given) < most and (found := queue.open(annotator)):
        queue.answer(annotator, found.number, choose(found), "")
        given.append(found)
    return given


def verdicts_of(queue: StudyQueue) -> list[Verdict]:
    given = queue.store.assignments(queue.design.id, records=True)
    return [Verdict.from_json(one.record, "here") for one in given if one.record]


@pytest.mark.parametrize(("systems", "pairs"), [(2, "first"), (3, "first"), (4, "all")])
def test_each_system_is_as_often_a_as_b_at_every_time(
    tmp_path: Path, systems: int, pairs: str
) -> None:
    with study(tmp_path, design(systems=systems, prompts=12, pairs=pairs)) as queue:
        asked = queue.design.questions
        for annotator in (ANNA, BOB):
            leads: Counter[tuple[int, ...]] = Counter()
            sides: Counter[int] = Counter()
            for one in answer_all(queue, annotator, lambda one: "A"):
                pair = asked[one.drawn.question].pair
                leads[pair] += 1 if one.drawn.order[0] == 0 else -1
                assert abs(leads[pair]) <= MOST_LEAD
                for side, place in zip((1, -1), one.drawn.order, strict=True):
                    sides[pair[place]] += side
            met = Counter(place for pair in leads for place in pair)
            assert all(abs(sides[place]) <= MOST_LEAD * met[place] for place in range(systems))
    coins = [asked[key].item.content for key in asked]
    drawn = [queue.design.order(key, ANNA, 0)[0] for key in asked]
    first = [int(content[0] > content[1]) for content in coins]
    heads = sum(a == b for a, b in zip(drawn, first, strict=True))
    assert len(asked) / 4 < heads < 3 * len(asked) / 4, "without a lead it is a coin"


def test_all_are_asked_the_shared_ones_and_the_rest_is_shared_out(tmp_path: Path) -> None:
    with study(tmp_path, design(prompts=36, overlap=12), annotators=3, per_item=2) as queue:
        given: dict[str, list[Assignment]] = {name: [] for name in (ANNA, BOB, "carl")}
        left = set(given)
        while left:
            for name in sorted(left):
                found = answer_all(queue, name, lambda one: "neither", most=1)
                given[name] += found
                left -= set() if found else {name}
        counts = Counter(one.drawn.question for own in given.values() for one in own)
        assert {counts[key] for key in queue.design.shared} == {3}
        assert {counts[key] for key in queue.design.rest} == {2}
        orders = []
        for own in given.values():
            assert len({one.drawn.question for one in own}) == len(own)
            places = [place for place, one in enumerate(own) if one.drawn.shared]
            halves = [sum(place < len(own) / 2 for place in places)]
            assert all(4 <= half <= 8 for half in halves), "they are spread over the queue"
            orders.append([one.drawn.question for one in own if one.drawn.shared])
        assert orders[0] != orders[1] and set(orders[0]) == set(orders[1])


def test_shared_questions_are_of_all_pairs_alike() -> None:
    asked = design(systems=4, prompts=40, overlap=50)
    pairs = Counter(asked.questions[key].pair for key in asked.shared)
    assert sorted(pairs.values()) == [16, 17, 17]
    assert not design(prompts=5, overlap=50).rest


def test_names_of_systems_decide_nothing_that_is_shown(tmp_path: Path) -> None:
    seen = []
    for names in (("alpha", "omega"), ("omega", "alpha")):
        models = {
            name: replies(name, 25, says) for name, says in zip(names, ("one", "two"), strict=True)
        }
        asked = StudyDesign(design_items("pairwise", models, orders="given"), overlap=5)
        with study(tmp_path / names[0], asked, check_every=5) as queue:
            shown = []
            for annotator in (ANNA, BOB):
                for one in answer_all(queue, annotator, lambda one: "AB"[one.number % 2]):
                    shown.append((one.number, queue.item(one).shown))
            seen.append(shown)
    assert seen[0] == seen[1]


def test_a_question_on_a_screen_is_kept_from_others_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with study(tmp_path, design(prompts=2, overlap=0)) as queue:
        annas, bobs = queue.open(ANNA), queue.open(BOB)
        assert annas and bobs and annas.drawn.question != bobs.drawn.question
        assert queue.open("carl") is None
        monkeypatch.setattr(study_queue, "CLAIM", timedelta(0))
        assert len(answer_all(queue, "carl", lambda one: "A")) == 2
        assert queue.open(ANNA) is None, "others took it over"
        monkeypatch.undo()
        queue.answer(BOB, bobs.number, "B", "late, and it counts")
        answers = Counter(v.annotator for v in verdicts_of(queue))
        assert answers == {"carl": 2, BOB: 1}


def test_skipped_questions_come_last_and_the_last_answer_counts(tmp_path: Path) -> None:
    with study(tmp_path, design(prompts=3, overlap=3)) as queue:
        first = queue.open(ANNA)
        assert first and first.number == 1
        queue.skip(ANNA, 1)
        numbers = [one.number for one in answer_all(queue, ANNA, lambda one: "A")]
        assert numbers == [2, 3, 1]
        queue.answer(ANNA, 2, "neither", "on second thought")
        queue.answer(ANNA, 2, "neither", "on second thought")
        taken = queue.take_back(ANNA)
        assert taken and taken.number == 2 and not taken.answered
        assert taken.comment == "on second thought"
        assert [v.verdict for v in verdicts_of(queue)] == ["A", "A"]
        again = queue.open(ANNA)
        assert again and again.number == 2
        queue.answer(ANNA, 2, "B", "")
    with study(tmp_path, design(prompts=3, overlap=3)) as queue:
        assert queue.open(ANNA) is None, "it goes on where it stood"
        assert [queue.beside(ANNA, n, s) and 1 for n, s in ((1, -1), (3, 1))] == [None, None]
        before = queue.beside(ANNA, 3, -1)
        assert before and (before.number, before.choice) == (2, "B")
        assert not queue.answer(ANNA, 17, "A", "") and not queue.answer(BOB, 1, "A", "")
        with pytest.raises(UserError, match="no verdict"):
            queue.answer(ANNA, 1, "C", "")


RIGHT = {"grade": "1", "audit": "fail", "safety": "safe"}
WRONG = {"pairwise": "neither", "grade": "5", "audit": "pass", "safety": "unsafe"}


@pytest.mark.parametrize("kind", ["pairwise", *RIGHT])
def test_checks_look_like_questions_and_are_no_verdicts(tmp_path: Path, kind: ItemKind) -> None:
    asked = design(kind, systems=2 if kind == "pairwise" else 1, prompts=20, overlap=5)
    with study(tmp_path, asked, annotators=1, check_every=5) as queue:

        def choose(one: Assignment) -> str:
            item = queue.item(one)
            real = f"on {item.id[1:]}" + int(item.id[1:]) * "."
            if kind != "pairwise":
                return RIGHT[kind]
            return "AB"[[side.turns[-1].endswith(real) for side in item.shown].index(True)]

        checks = [one for one in answer_all(queue, ANNA, choose) if one.is_check]
        assert 4 <= len(checks) <= 5 and all(one.number > 2 for one in checks)
        kept = {one.number: one for one in queue.store.assignments(asked.id, records=True)}
        assert all(kept[one.number].passed and not kept[one.number].record for one in checks)
        assert len(verdicts_of(queue)) == 20
        queue.answer(ANNA, checks[0].number, WRONG[kind], "")
        kept = {one.number: one for one in queue.store.assignments(asked.id)}
        assert kept[checks[0].number].passed is False
        assert queue.progress(ANNA).answered == 20 + len(checks), "counting does not tell checks"


def test_a_check_on_a_pair_is_passed_by_the_real_reply_alone() -> None:
    asked = design(prompts=5)
    first, second = list(asked.questions)[:2]
    for donor in ("empty", second):
        item, right = check_item(asked, Check(first, donor))
        real, false = item.shown
        assert real.turns[-1].startswith("system-") and false.turns[0] == real.turns[0]
        theirs = {q.shown[0].turns[-1] for q in [asked.questions[second].item]}
        theirs |= {asked.questions[second].item.shown[1].turns[-1], EMPTY}
        assert false.turns[-1] in theirs
        said = [passes(item, right, choice) for choice in ("A", "B", "neither")]
        assert said == [True, False, False]
        assert passes(item.swapped(), right, "B")


def test_a_check_on_a_dialogue_keeps_the_users_turns() -> None:
    def dialogue(name: str, id: str) -> list[Reply]:
        one = Reply(id, (f"Hello from {id}",), name, 0, 0, f"{name}, {id} 1", True)
        turns = (*one.conversations, one.reply, "And then?")
        return [one, Reply(id, turns, name, 0, 1, f"{name}, {id} 2", True)]

    models = {name: dialogue(name, "d1") + dialogue(name, "d2") for name in ("x", "y")}
    asked = StudyDesign(design_items("audit", models, whole=True), overlap=2)
    keys = {q.item.id: key for key, q in asked.questions.items()}
    item, _ = check_item(asked, Check(keys["d1"], keys["d2"]))
    (side,) = item.shown
    assert side.turns[::2] == ("Hello from d1", "And then?")
    assert all("d2" in text for text in side.turns[1::2]) and side.judged == (1, 3)


def databases() -> list[Any]:
    missing = postgres_missing()
    mark = pytest.mark.skipif(bool(missing), reason=missing)
    return ["sqlite", pytest.param("postgresql", marks=mark)]


@pytest.mark.parametrize("kind", databases())
def test_annotators_at_once_lose_nothing(tmp_path: Path, kind: str) -> None:
    server: AbstractContextManager[Any] = Postgres() if kind == "postgresql" else nullcontext()
    with server as running:
        url = running.url if running else ""
        asked = design(prompts=18, overlap=3)
        errors: list[Exception] = []
        with study(tmp_path, asked, url) as first, open_store(tmp_path, url) as another:
            queues = [first, StudyQueue(asked, another, first.settings)]

            def annotate(name: str, queue: StudyQueue) -> None:
                try:
                    answer_all(queue, name, lambda one: "A")
                except Exception as error:
                    errors.append(error)

            threads = [
                threading.Thread(target=annotate, args=(f"annotator {n}", queues[n % 2]))
                for n in range(5)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not errors
            given = first.store.assignments(asked.id)
            counts = Counter(one.drawn.question for one in given if one.answered)
            assert {counts[key] for key in asked.shared} == {5}
            assert {counts[key] for key in asked.rest} == {1}, "nobody is given another's question"
            assert export_verdicts(tmp_path, first.store, asked.id) == len(given)


def test_verdicts_are_those_of_any_judge_and_others_stay(tmp_path: Path) -> None:
    asked = design(prompts=4, overlap=2)
    models = next(iter(asked.questions.values())).item
    theirs = record_verdict(models, Annotator("gpt", "endpoint"), "B").to_json()
    write_jsonl([theirs], tmp_path / VERDICTS)
    with study(tmp_path, asked, check_every=3) as queue:
        given = answer_all(queue, ANNA, lambda one: "A")
        queue.answer(ANNA, given[0].number, "B", "=1+1")
        for _ in range(2):
            assert export_verdicts(tmp_path, queue.store, asked.id) == 4
        found = read_verdicts(tmp_path / VERDICTS)
        assert found[0].to_json() == theirs and len(found) == len(latest(found)) == 5
        own = {one.key: one for one in found[1:]}
        for one in (one for one in given if not one.is_check):
            item, choice = queue.item(one), "B" if one is given[0] else "A"
            expected = record_verdict(item, Annotator(ANNA), choice)
            kept = own[expected.key]
            assert (kept.verdict, kept.models, kept.order) == (
                choice,
                expected.models,
                expected.order,
            )
            assert kept.extra["wording"] == expected.extra["wording"]
            assert kept.extra["annotator_kind"] == "person" and kept.extra["at"]
        assert own[record_verdict(queue.item(given[0]), Annotator(ANNA), "B").key].explanation
        busy = acquire_lock(tmp_path / f".{VERDICTS}.lock", "busy")
        with pytest.raises(UserError, match="another process"):
            export_verdicts(tmp_path, queue.store, asked.id)
        busy.release()


def test_owner_sees_agreement_and_what_more_answers_bring(tmp_path: Path) -> None:
    with study(tmp_path, design(prompts=30, overlap=10)) as queue:
        answer_all(queue, ANNA, lambda one: "AB"[one.drawn.order.index(0)], most=16)
        answer_all(queue, BOB, lambda one: "neither")
        verdicts, systems = verdicts_of(queue), list(queue.design.systems)
        shared = sum(one.annotator == ANNA and bool(one.extra.get("shared")) for one in verdicts)
        found = dict(agreements(verdicts))
        tie_discounted = found["Agreement (a tie against none counts half)"]
        assert (tie_discounted.value, tie_discounted.n_items) == (0.5, shared)
        assert found["Equal answers"].value == 0
        shares = {one.name: one for one in figures(verdicts, systems)}
        wins = sum(one.annotator == ANNA for one in verdicts)
        assert shares["win"].value == pytest.approx(wins / len(verdicts))
        assert shares["lose"].value == 0
        assert all(one.after < (one.high - one.low) / 2 for one in shares.values())


def test_owner_sees_grades(tmp_path: Path) -> None:
    with study(tmp_path, design("grade", systems=1, prompts=8, overlap=8)) as queue:
        answer_all(queue, ANNA, lambda one: str(1 + one.number % 6))
        answer_all(queue, BOB, lambda one: "4")
        (found,) = figures(verdicts_of(queue), list(queue.design.systems))
        assert found.low < found.value < found.high and not found.percent
        assert dict(agreements(verdicts_of(queue)))["Krippendorff's alpha"].n_items == 8


def test_place_of_a_browser_is_read_with_care() -> None:
    assert StudyPlace.parse(StudyPlace(7, 6, 9).to_text()) == StudyPlace(7, 6, 9)
    for text in ("", "[]", "{", '{"id": "7"}', '{"id": -1}', '{"id": true}', '{"id": 1e99}'):
        assert StudyPlace.parse(text) == StudyPlace()
    for text in ("[" * 100_000, f'{{"id": {2**40}}}', '{"serial": null}'):
        assert StudyPlace.parse(text) == StudyPlace()


def test_texts_of_others_are_no_markup() -> None:
    bad = "<img src=x onerror=alert(1)>"
    progress = study_queue.Progress(1, 2)
    pieces = [rendering.bar(bad, progress, bad), rendering.system_line(bad)]
    pieces += [rendering.head(1, bad, bad)]
    assert not any("<img" in piece for piece in pieces)


def request_of(user: str) -> gr.Request:
    """A request of a login's window."""
    state = {"session": Session("window", user)}
    return gr.Request(Request({"type": "http", "headers": [], "query_string": b"", "state": state}))


@pytest.mark.skipif(bool(postgres_missing()), reason=postgres_missing())
def test_an_annotator_whose_database_dies_stays_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Postgres() as server, study(tmp_path, design(prompts=4), server.url) as queue:
        handlers = StudyHandlers(queue, NamePrompt(queue.store, "answers"))
        anna = request_of(ANNA)
        first = handlers.load(anna)
        server.kill()
        for step in (handlers.undo, handlers.skip, handlers.back, handlers.again):
            told = step(anna, first.place.to_text())
            assert told.away and told.notice == AWAY, "and not why, which may name files"
            assert (told.place.id, told.place.serial) == (1, first.place.serial + 1)
        told = handlers.answer(anna, first.place.to_text(), "", choice="A")
        assert told.away and told.place.saved == 0
        assert "database" in caplog.text
        server.start()
        told = handlers.answer(anna, told.place.to_text(), "", choice="A")
        assert (told.place.id, told.place.saved, told.notice) == (2, 1, "")
        assert [one.verdict for one in verdicts_of(queue)] == ["A"]


def test_page_refuses_strangers_and_files(tmp_path: Path) -> None:
    login_file = tmp_path / "logins.txt"
    login_file.write_text(login_line(ANNA, "a long secret"))
    asks = {"accept": "text/html"}
    with study(tmp_path) as queue:
        page = protect(build_page(queue, "Study", login_file), None)
        with TestClient(page, "http://localhost", follow_redirects=False) as browser:
            assert browser.get("/", headers=asks).headers["location"].endswith("/login")
            assert browser.post("/gradio_api/queue/join", json={}).status_code == 401
            browser.post("/login", data={"name": ANNA, "password": "a long secret"})
            told = browser.get("/", headers=asks)
            assert told.status_code == 200 and "Log out" in told.text
            file = {"data": [{"path": "/etc/passwd"}], "fn_index": 0, "session_hash": "w"}
            assert browser.post("/gradio_api/queue/join", json=file).status_code == 400


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which ends with an error, and return what it says."""
    with pytest.raises(SystemExit) as ended:
        run_command("study", [*args, "--port", "0", "--no_open"])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_bad_input_is_told_before_the_page_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references, out = write_replies(tmp_path, 3), ["--out", str(tmp_path / "study")]
    assert "whose replies?" in run(out, capsys)
    assert "no replies at" in run([f"{SYSTEMS[0]}=nowhere", *out], capsys)
    assert "two models" in run([references[0], *out], capsys)
    assert "login file" in run([*references, *out, "--host", "0.0.0.0"], capsys)
    assert "cannot be reached" in run(
        [*references, *out, "--database", "postgresql://lima@127.0.0.1:1/none"], capsys
    )
    assert "no database at" in run([*references, *out, "--database", "none"], capsys)
    assert "no study" in run([*out, "--status"], capsys)
    assert "there are 3" in run([*references, *out, "--prompts", "7"], capsys)
    lock = acquire_lock(tmp_path / "study" / ".lock", "busy")
    assert "another study runs" in run([*references, *out], capsys)
    lock.release()
    other = Item("audit", (SYSTEMS[0],), ((replies(SYSTEMS[0], 2)[1],),))
    verdict = record_verdict(other, Annotator(BOB), "pass")
    write_jsonl([verdict.to_json()], tmp_path / "study" / VERDICTS)
    assert f"other replies of {SYSTEMS[0]} on p1" in run([*references, *out], capsys)
    (tmp_path / "study" / VERDICTS).unlink()
    file = tmp_path / f"replies-{SYSTEMS[1]}" / "replies.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[0]]))
    assert "several replies" in run([*references, *out], capsys)
    file.write_text("\n".join(lines[1:]))
    assert f"{SYSTEMS[1]} lacks 1 of 3 replies: p1" in run([*references, *out], capsys)
    assert not (tmp_path / "study" / VERDICTS).exists()


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    begin(tmp_path, design(), {"overlap": 6, "kind": "pairwise"})
    begin(tmp_path, design(), {"overlap": 6, "kind": "pairwise"})
    with pytest.raises(UserError, match="--overlap was 6 and is 7"):
        begin(tmp_path, design(overlap=7), {"overlap": 7, "kind": "pairwise"})
    with pytest.raises(UserError, match="the replies or the wording"):
        begin(tmp_path, design(prompts=31), {"overlap": 6, "kind": "pairwise"})


def test_status_and_verdicts_are_had_while_the_page_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with study(tmp_path, design(), check_every=6) as queue:
        begin(tmp_path, queue.design, {})
        said = ""
        for _ in range(2):
            run_command("study", ["--out", str(tmp_path), "--status", "--export"])
            said = capsys.readouterr().out
            assert f"{len(verdicts_of(queue))} verdicts of people" in said
            answer_all(queue, ANNA, lambda one: "A", most=20)
            queue.skip(ANNA, 1)
        assert "Nobody has answered yet" not in said and ANNA in said
        assert "+- after 20 more" in said
