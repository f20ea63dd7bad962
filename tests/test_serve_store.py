"""The store: whole conversations, their owners, verdicts, and what is exported."""

import copy
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from lima_ray.config.errors import UserError
from lima_ray.data.examples import read_examples
from lima_ray.records.verdict import Verdict, prompt_id
from lima_ray.web.database import DatabaseError, masked
from serve.conversations.dialogue import Dialogue, Turn, now
from serve.conversations.store import Conflict, Store
from serve.conversations.tables import VerdictRow
from serve.store import conversations, verdicts


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database in a folder that is not there yet."""
    return f"sqlite:///{tmp_path}/new/chat.sqlite"


@pytest.fixture
def store(url: str) -> Store:
    """An empty store."""
    return Store(url)


def talked() -> Dialogue:
    """Two exchanges and all that made them."""
    reply = Turn(
        "assistant",
        "Paris.",
        model="mini",
        revision="ab12",
        seed=2**40,
        sampling={"temperature": 0.7, "penalise_prompt": False},
        prompt_tokens=9,
        completion_tokens=3,
        finish_reason="stop",
        dropped_messages=2,
        original="Pairs.",
        thumb="up",
    )
    turns = [Turn("user", "Capital of\nFrance? 🌍"), reply]
    return Dialogue(
        system="Be short.", turns=[*turns, Turn("user", "Sure?"), Turn("assistant", "Yes.")]
    )


def test_conversation_returns_as_it_was_saved(store: Store, url: str) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    store.close()
    assert Store(url).open("anna", dialogue.id) == dialogue


def test_the_file_is_its_owners_alone(store: Store, url: str, tmp_path: Path) -> None:
    def modes() -> set[int]:
        return {file.stat().st_mode & 0o777 for file in (tmp_path / "new").glob("chat.sqlite*")}

    store.secret()
    assert modes() == {0o600}
    store.close()
    (tmp_path / "new" / "chat.sqlite").chmod(0o644)
    again = Store(url)
    again.save("anna", talked())
    assert modes() == {0o600}
    again.close()


def test_another_process_that_comes_and_goes_takes_nothing(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "new" / "chat.sqlite"
    with store.engine.connect() as first:
        first.exec_driver_sql("CREATE TABLE t (n)")
        first.commit()
        with store.engine.connect() as second:  # a second one of the pool
            second.exec_driver_sql("SELECT * FROM t")
        look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        look += "print(c.execute('SELECT count(*) FROM t').fetchall()); c.close()"
        subprocess.run([sys.executable, "-c", look, str(file)], check=True)
        assert Path(f"{file}-wal").exists(), "the log of an open database was deleted"
        first.exec_driver_sql("INSERT INTO t VALUES (1)")
        first.commit()
        seen = subprocess.run(
            [sys.executable, "-c", look, str(file)], check=True, capture_output=True, text=True
        )
    assert seen.stdout.strip() == "[(1,)]"


def test_a_folder_that_is_gone_is_a_database_that_is_away(store: Store, tmp_path: Path) -> None:
    (tmp_path / "new").rmdir()
    with pytest.raises(DatabaseError, match="unable to open"):
        store.titles("anna")


def test_a_password_in_a_url_is_not_reported() -> None:
    for url in (
        "postgresql+nodriver://anna:se:s@me@db/lima",
        "postgresql://anna:se:s@me@db:port/lima",
        "mysql://anna:se:s@me@db",
    ):
        with pytest.raises(UserError) as error:
            Store(url)
        assert "s@me" not in str(error.value) and "anna:***@db" in str(error.value)
    for url, shown in (
        ("mysql://an na:a sesame@db/x", "mysql://an na:***@db/x"),
        ("mysql://db/x?password=sesame&port=1", "mysql://db/x?password=***&port=1"),
        ("mysql://db/x?sslPassword=a sesame", "mysql://db/x?sslPassword=***"),
        ("sqlite:///a:b/x@y.sqlite", "sqlite:///a:b/x@y.sqlite"),
    ):
        assert masked(url) == shown


def test_saving_again_replaces_turns(store: Store) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    del dialogue.turns[2:]
    dialogue.turns[1] = Turn("assistant", "Paris, in France.")
    store.save("anna", dialogue)
    assert store.open("anna", dialogue.id) == dialogue


def test_nobody_reads_changes_or_deletes_anothers(store: Store) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    assert store.open("bert", dialogue.id) is None
    assert store.titles("bert") == []
    store.forget("bert", copy.copy(dialogue))
    with pytest.raises(DatabaseError, match="belongs to somebody else"):
        store.save("bert", dialogue)
    assert store.open("anna", dialogue.id) == dialogue


def test_titles_are_newest_first_and_named_by_the_prompt(store: Store) -> None:
    older, newer, named = talked(), talked(), talked()
    newer.turns[0].content = "x" * 100
    named.title = "My own"
    for dialogue in (older, newer, named):
        store.save("anna", dialogue)
    assert [name for name, _ in store.titles("anna")] == [
        "My own",
        "x" * 59 + "…",
        "Capital of France? 🌍",
    ]


def test_deleted_conversation_is_gone_with_its_turns(store: Store) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    store.forget("anna", dialogue)
    assert store.open("anna", dialogue.id) is None
    store.save("bert", dialogue)
    assert store.open("bert", dialogue.id) == dialogue


def test_nothing_is_written_over_what_another_window_wrote(store: Store) -> None:
    here = talked()
    store.save("anna", here)
    there = store.open("anna", here.id)
    assert there is not None and there.version == here.version
    there.turns.append(Turn("user", "And Spain?"))
    store.save("anna", there)
    here.turns.pop()
    for change in (store.save, store.forget):
        with pytest.raises(Conflict, match="changed in another window"):
            change("anna", here)
    assert store.open("anna", here.id) == there
    store.forget("anna", there)
    with pytest.raises(Conflict, match="deleted in another window"):
        store.save("anna", here)
    assert store.open("anna", here.id) is None


def test_of_two_that_save_at_once_one_is_reported(store: Store, url: str) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    stores, both = [store, Store(url)], Barrier(2)
    for other in stores:
        other.titles("anna")

    def save(other: Store, title: str) -> str:
        mine = other.open("anna", dialogue.id)
        assert mine is not None
        mine.title = title
        both.wait(5)
        try:
            other.save("anna", mine)
        except Conflict:
            return "conflict"
        return title

    with ThreadPoolExecutor(2) as threads:
        for number in range(20):
            calls = [threads.submit(save, s, f"{number}{i}") for i, s in enumerate(stores)]
            ended = sorted(call.result() for call in calls)
            kept = store.open("anna", dialogue.id)
            assert kept is not None and ended == sorted([kept.title, "conflict"])
    stores[1].close()


def test_own_attempt_that_was_written_without_a_word_is_no_conflict(store: Store) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    unanswered = copy.deepcopy(dialogue)
    store.save("anna", unanswered, "attempt")
    dialogue.attempts = ("attempt",)
    dialogue.title = "Later"
    store.save("anna", dialogue)
    assert store.titles("anna")[0][0] == "Later" and dialogue.attempts == ()


def test_database_of_an_earlier_release_gets_what_it_lacks(store: Store, url: str) -> None:
    dialogue = talked()
    store.save("anna", dialogue)
    store.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("ALTER TABLE conversations DROP COLUMN version")
    again = Store(url)
    found = again.open("anna", dialogue.id)
    assert found is not None and found == dialogue and found.version == ""
    again.save("anna", found)
    assert found.version and again.version("anna", dialogue.id) == found.version


def test_verdicts_are_replaced_and_taken_back_by_their_owner_alone(store: Store) -> None:
    up = Verdict("prompt", "thumbs", "anna", "up", key="thumb-1")
    vote = Verdict("prompt", "pairwise", "anna", "A", key="vote-1", order=(1, 0))
    store.judge("anna", up)
    store.judge("anna", vote)
    store.judge("anna", replace(up, verdict="down"))
    store.unjudge("bert", "vote-1")
    with pytest.raises(DatabaseError, match="belongs to somebody else"):
        store.judge("bert", vote)
    assert store.verdicts() == [replace(up, verdict="down"), vote]
    store.unjudge("anna", "thumb-1")
    assert store.verdicts() == [vote]


def test_verdicts_of_earlier_databases_are_read_and_moved(store: Store) -> None:
    texts = {"conversations": ["Hi"], "system": "Be short.", "replies": ["Hello"]}
    record = {"id": "thumb-1", "kind": "thumbs", "annotator": "anna", "models": ["m"]} | texts
    record |= {"order": [0], "verdict": "up", "conversation": "old"}
    with store.transaction() as session:
        session.add(
            VerdictRow(id="thumb-1", owner="anna", kind="thumbs", record=record, created=now())
        )
    (found,) = store.verdicts()
    assert (found.id, found.key) == (prompt_id(["Hi"], "Be short."), "thumb-1")
    store.move_verdict("anna", "thumb-1", "thumb-2", "new", stays=False)
    assert store.verdicts() == [
        replace(found, key="thumb-2", extra=texts | {"conversation": "new"})
    ]


def test_secret_is_made_once(store: Store, url: str) -> None:
    assert len(store.secret()) == 32
    assert Store(url).secret() == store.secret()


def test_exports_are_training_data_and_verdicts(store: Store, url: str, tmp_path: Path) -> None:
    complete, open_end = talked(), talked()
    del open_end.turns[-1]
    for dialogue in (complete, open_end):
        store.save("anna", dialogue)
    up = Verdict("prompt", "thumbs", "anna", "up", key="thumb-1", extra={"replies": ["é"]})
    store.judge("anna", up)
    conversations(tmp_path / "out" / "data.jsonl", url)
    verdicts(tmp_path / "out" / "verdicts.jsonl", url)
    (read,) = read_examples(str(tmp_path / "out" / "data.jsonl"))
    assert read.turns == ("Capital of\nFrance? 🌍", "Paris.", "Sure?", "Yes.")
    assert (read.id, read.source, read.system) == (complete.id, "chat", "Be short.")
    lines = (tmp_path / "out" / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["replies"] for line in lines] == [["é"]]


def test_conversation_that_ends_with_the_user_says_why_it_is_no_training_data() -> None:
    dialogue = talked()
    del dialogue.turns[-1]
    with pytest.raises(UserError, match="ends with the user's turn"):
        dialogue.example()
    with pytest.raises(UserError, match="empty"):
        Dialogue().example()


def test_wrong_databases_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no database at 'nonsense'"):
        Store("nonsense")
    with pytest.raises(UserError, match=r"no database at .*missing\.sqlite"):
        verdicts(tmp_path / "v.jsonl", f"sqlite:///{tmp_path}/missing.sqlite")
    with pytest.raises(DatabaseError):
        Store("postgresql://nobody@127.0.0.1:9/none").titles("anna")
