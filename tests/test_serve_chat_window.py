"""A conversation and a comparison without a browser: how replies end, and what is left then."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from browser import EngineChatClient

from lima_ray.engine.engine import Engine
from lima_ray.records.verdict import prompt_id
from lima_ray.web.sessions import Session
from serve.conversations import client as client_module
from serve.conversations.autosave import Autosave
from serve.conversations.chat_window import ChatWindow
from serve.conversations.client import ReplyOptions
from serve.conversations.comparison import ComparisonWindow
from serve.conversations.dialogue import MAX_CHARACTERS, Dialogue, Turn
from serve.conversations.store import Store
from serve.page import rendering

SAMPLING = {
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "penalise_prompt": False,
}
ASK = ReplyOptions("tiny", SAMPLING, seed=5)


class Troubled(EngineChatClient):
    """An engine behind an API that has its bad moments."""

    def __init__(self, engine: Engine) -> None:
        """Begin without trouble."""
        super().__init__({"tiny": engine}, [])
        self.loading = 0
        """Requests that still find the model loading."""
        self.breaks_after: int | None = None
        """Chunks until the connection breaks."""

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream a chat completion, unless there is trouble."""
        if self.loading:
            self.loading -= 1
            yield {"error": {"message": "loading", "type": "server", "code": "model_loading"}}
            return
        async with aclosing(super().chat(body)) as stream:
            number = 0
            async for chunk in stream:
                if number == self.breaks_after:
                    raise ConnectionError("the replica died")
                number += 1
                yield chunk


@pytest.fixture
def client(base_dir: Path) -> Troubled:
    """A tiny random model, which seldom ends a reply by itself."""
    return Troubled(Engine(base_dir, slots=4))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty database."""
    return Store(f"sqlite:///{tmp_path}/chat.sqlite")


@pytest.fixture
def window(store: Store) -> ChatWindow:
    """A browser's chat window."""
    session = Session("s" * 32)
    return ChatWindow(session, Autosave(store, session.owner))


@pytest.fixture
def other(window: ChatWindow, store: Store) -> ChatWindow:
    """Another window of the same session."""
    return ChatWindow(window.session, Autosave(store, window.session.owner))


def open_same(other: ChatWindow, window: ChatWindow, store: Store) -> None:
    """Have another window open the conversation of this one, as it is stored."""
    found = store.open(window.session.owner, window.dialogue.id)
    assert found is not None
    other.open(found)


async def ask_in_one_and_open_in_other(
    window: ChatWindow, other: ChatWindow, client: Troubled, store: Store
) -> None:
    """Have two windows show one conversation."""
    await handlers(window, client, "the cat", short(4))
    open_same(other, window, store)


async def handlers(
    window: ChatWindow, client: Troubled, text: str, ask: ReplyOptions = ASK
) -> None:
    """Send a message and wait for the reply."""
    before = window.add_prompt(text)
    assert before is not None
    async for _ in window.answer(client, ask, before):
        pass
    await window.autosave.settle()


def short(limit: int, seed: int | None = 5) -> ReplyOptions:
    """Ask for a short reply."""
    return ReplyOptions("tiny", {**SAMPLING, "max_tokens": limit}, seed)


def test_reply_keeps_what_made_it(window: ChatWindow, client: Troubled, store: Store) -> None:
    asyncio.run(handlers(window, client, "the cat", short(6)))
    (_, turn) = window.dialogue.turns
    assert (turn.model, turn.revision, turn.seed) == ("tiny", "revision-of-tiny", 5)
    assert turn.sampling == {**SAMPLING, "max_tokens": 6}
    assert (turn.completion_tokens, turn.finish_reason) == (6, "length")
    assert "length limit" in window.notice
    assert store.open(window.session.owner, window.dialogue.id) == window.dialogue


def test_outgrown_context_is_reported(window: ChatWindow, client: Troubled) -> None:
    async def exchanges() -> None:
        context = client.engines["tiny"].context
        while not window.dialogue.turns or not window.dialogue.turns[-1].dropped_messages:
            assert len(window.dialogue.turns) < context
            await handlers(window, client, "green river " * 12, short(context // 4))

    asyncio.run(exchanges())
    dropped = window.dialogue.turns[-1].dropped_messages
    assert f"the oldest {dropped} messages were left out" in window.notice


def test_loading_model_is_waited_for(
    window: ChatWindow, client: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LOADING_WAIT_S", 0.05)
    client.loading = 2
    asyncio.run(handlers(window, client, "the cat", short(4)))
    assert len(window.dialogue.turns) == 2 and window.dialogue.turns[1].completion_tokens == 4


def test_loading_model_can_be_given_up(window: ChatWindow, client: Troubled) -> None:
    async def give_up() -> None:
        client.loading = 1000
        before = window.add_prompt("the cat")
        assert before is not None
        async for _ in window.answer(client, ASK, before):
            assert window.stop is not None
            window.stop.set()

    asyncio.run(asyncio.wait_for(give_up(), 1))
    assert window.dialogue.turns == [] and window.draft == "the cat"


def test_broken_stream_keeps_what_came(window: ChatWindow, client: Troubled) -> None:
    client.breaks_after = 8
    asyncio.run(handlers(window, client, "the cat"))
    assert window.dialogue.turns[1].content and window.dialogue.turns[1].finish_reason == "error"
    assert "broke off" in window.notice and "the replica died" in window.notice
    assert client.in_flight == 0


def test_reply_is_kept_while_it_comes_and_marked_where_its_end_is_lost(
    window: ChatWindow, client: Troubled, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.conversations.chat_window.SAVE_EVERY_S", 0)
    found: list[Dialogue] = []

    async def die_meanwhile() -> None:
        before = window.add_prompt("the cat")
        assert before is not None
        async for _ in window.answer(client, ASK, before):
            await window.autosave.settle()
            kept = store.open(window.session.owner, window.dialogue.id)
            if kept is not None and len(kept.turns) == 2:
                found.append(kept)
                return

    asyncio.run(die_meanwhile())
    (reply,) = [turn for turn in found[0].turns if turn.role == "assistant"]
    assert reply.content and reply.finish_reason is None
    window.open(found[0])
    assert "⋯ broke off here" in str(rendering.messages(window.dialogue)[1]["content"])
    assert window.draft == "", "the question is answered, in part"


def test_stream_that_ends_without_a_reason_is_no_complete_reply(
    window: ChatWindow, client: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = EngineChatClient.chat

    async def cut(self: EngineChatClient, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async with aclosing(complete(self, body)) as stream:
            async for chunk in stream:
                yield chunk
                if any((c.get("delta") or {}).get("content") for c in chunk["choices"]):
                    return

    monkeypatch.setattr(EngineChatClient, "chat", cut)
    asyncio.run(handlers(window, client, "the cat"))
    assert window.dialogue.turns[1].finish_reason == "error" and "broke off" in window.notice


def test_windows_that_write_at_once_both_keep_what_they_have(
    window: ChatWindow, other: ChatWindow, client: Troubled, store: Store
) -> None:
    async def write() -> str:
        await ask_in_one_and_open_in_other(window, other, client, store)
        window.rename("Cats")
        await window.autosave.settle()
        await handlers(other, client, "the moon", short(4))
        message = other.autosave.message()
        window.autosave.forget(window.dialogue)
        await handlers(other, client, "the sun", short(4))
        assert other.autosave.message() == "", "it is a conversation of its own by now"
        await window.settle()
        return message

    message = asyncio.run(write())
    assert "“the cat” was changed in another window" in message and "Nothing is lost" in message
    ((title, id),) = store.titles(window.session.owner)
    assert title == "the cat (second window)" and id == other.dialogue.id != window.dialogue.id
    assert store.open(window.session.owner, id) == other.dialogue
    assert [turn.content for turn in other.dialogue.turns[::2]] == [
        "the cat",
        "the moon",
        "the sun",
    ]


def test_a_thumb_goes_along_with_the_reply_of_a_second_window(
    window: ChatWindow, other: ChatWindow, client: Troubled, store: Store
) -> None:
    async def judge() -> None:
        await handlers(window, client, "the cat", short(4))
        await handlers(window, client, "the dog", short(4))
        window.thumb(1, True)
        await window.autosave.settle()
        open_same(other, window, store)
        window.rename("Cats")
        await window.autosave.settle()
        other.thumb(3, False)
        await other.autosave.settle()
        assert "changed in another window" in other.autosave.message()

    asyncio.run(judge())
    kept = {f"thumb-{window.dialogue.turns[1].id}": window.dialogue.id}
    moved = {f"thumb-{other.dialogue.turns[place].id}": other.dialogue.id for place in (1, 3)}
    assert {v.key: v.extra["conversation"] for v in store.verdicts()} == kept | moved

    async def take_back() -> None:
        for place in (1, 3):
            other.thumb(place, None)
        await other.autosave.settle()

    asyncio.run(take_back())
    assert [verdict.key for verdict in store.verdicts()] == list(kept)


def test_a_reply_of_which_nothing_came_is_not_kept(window: ChatWindow, store: Store) -> None:
    window.dialogue.turns = [Turn("user", "the cat"), Turn("assistant", " ")]

    async def save() -> None:
        window.autosave.save(window.dialogue)
        await window.autosave.settle()

    asyncio.run(save())
    found = store.open(window.session.owner, window.dialogue.id)
    assert found is not None and [turn.content for turn in found.turns] == ["the cat"]


def test_deletion_of_what_another_window_went_on_with_deletes_nothing(
    window: ChatWindow, other: ChatWindow, client: Troubled, store: Store
) -> None:
    async def delete() -> None:
        await ask_in_one_and_open_in_other(window, other, client, store)
        await handlers(other, client, "the moon", short(4))
        window.autosave.forget(window.dialogue)
        await window.autosave.settle()

    asyncio.run(delete())
    assert "is not deleted" in window.autosave.message()
    assert store.open(window.session.owner, other.dialogue.id) == other.dialogue


def test_question_without_reply_returns_to_the_composer(
    window: ChatWindow, client: Troubled
) -> None:
    asyncio.run(handlers(window, client, "the cat", short(4)))
    before = list(window.dialogue.turns)
    client.breaks_after = 0
    asyncio.run(handlers(window, client, "the moon"))
    assert window.dialogue.turns == before
    assert window.draft == "the moon" and "back in the box" in window.notice


def test_failed_retry_leaves_the_old_reply(window: ChatWindow, client: Troubled) -> None:
    asyncio.run(handlers(window, client, "the cat", short(4)))
    old = list(window.dialogue.turns)

    async def retry() -> None:
        before = window.retry(1)
        assert before is not None
        async for _ in window.answer(client, ASK, before):
            pass
        await window.autosave.settle()

    client.breaks_after = 0
    asyncio.run(retry())
    assert window.dialogue.turns == old and window.draft == ""
    client.breaks_after = None
    asyncio.run(retry())
    assert window.dialogue.turns[1].seed == 6, (
        "a fixed seed moves on, or the reply would be the same"
    )


def test_thumbs_go_with_their_replies(window: ChatWindow, client: Troubled, store: Store) -> None:
    async def judge() -> None:
        for prompt in ("the cat", "the moon"):
            await handlers(window, client, prompt, short(4))
        window.thumb(0, True)
        window.thumb(1, True)
        window.thumb(3, False)
        window.thumb(1, None)
        await window.autosave.settle()

    asyncio.run(judge())
    assert rendering.thumbs(window.dialogue) == [None, "Dislike"]
    (verdict,) = store.verdicts()
    assert verdict.kind == "thumbs" and verdict.verdict == "down"
    turns = [turn.content for turn in window.dialogue.turns]
    assert verdict.id == prompt_id(turns[:3], None) and verdict.key.startswith("thumb-")
    assert verdict.extra["conversations"] == turns[:3] and verdict.extra["replies"] == turns[3:]
    assert verdict.annotator.startswith("anonymous-")
    assert window.session.id not in str(verdict)


def test_conversation_that_is_left_does_not_come_back(window: ChatWindow, client: Troubled) -> None:
    async def leave() -> Dialogue:
        first = window.dialogue
        before = window.add_prompt("the cat")
        assert before is not None
        async for _ in window.answer(client, ASK, before):
            if first.turns[-1].content:
                window.open(Dialogue())
        await window.autosave.settle()
        return first

    first = asyncio.run(leave())
    assert client.in_flight == 0
    assert window.dialogue.turns == [] and window.notice == ""
    assert first.turns[1].finish_reason == "stopped"


@pytest.mark.parametrize("text", ["", "  \n", "\x00", "x" * (MAX_CHARACTERS + 1)])
def test_unfit_messages_are_refused(window: ChatWindow, text: str) -> None:
    assert window.add_prompt(text) is None
    assert window.dialogue.turns == [] and window.notice


def test_comparison_order_is_drawn_and_unfinished_rounds_have_no_vote(client: Troubled) -> None:
    one, two = short(6), ReplyOptions("tiny", SAMPLING, 5)
    comparison, orders = ComparisonWindow(Session("s" * 32)), set[tuple[int, int]]()

    async def compare(text: str) -> None:
        assert comparison.add_prompt(text, "")
        async with aclosing(comparison.answer(client, (one, two))) as steps:
            async for _ in steps:
                assert comparison.judge("A", "anna") is None, "no vote while replies come"
                replies = comparison.round.replies if comparison.round else ()
                if comparison.stop is not None and all(turn.content for turn in replies):
                    comparison.stop.set()

    async def rounds() -> None:
        for _ in range(20):
            comparison.leave()
            await compare("the cat")
            assert comparison.round is not None
            orders.add(comparison.round.order)
            vote = comparison.judge("neither", "anna")
            assert vote is not None and comparison.judge("A", "anna") is None, "one vote a round"
            assert vote.extra["sampling"] == [one.sampling, two.sampling], (
                "as configured, not shown"
            )
            assert vote.order == comparison.round.order
        client.breaks_after = 0
        await compare("the moon")

    asyncio.run(rounds())
    assert orders == {(0, 1), (1, 0)}
    assert comparison.draft == "the moon" and "not two replies" in comparison.notice
    assert comparison.add_prompt("the sun", ""), "the conversation goes on from the last round"
    assert [turn.content for turn in comparison.dialogue.turns][::2] == ["the cat", "the sun"]
