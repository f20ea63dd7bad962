"""A conversation and a comparison without a browser: how replies end, and what is left then."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from browser import EngineSpeaker

from lima_ray.engine import Engine
from lima_ray.records.verdict import prompt_id
from lima_ray.web.sessions import Visitor
from serve.conversations import client as speaking
from serve.conversations.autosave import Saver
from serve.conversations.chat_window import MOST_LETTERS, Ask, Desk
from serve.conversations.comparison import Arena, Contestant
from serve.conversations.dialogue import Dialogue, Turn
from serve.conversations.store import Store
from serve.page import rendering

SAMPLING = {
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "penalise_prompt": False,
}
ASK = Ask("tiny", SAMPLING, seed=5)


class Troubled(EngineSpeaker):
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
def speaker(base_dir: Path) -> Troubled:
    """A tiny random model, which seldom ends a reply by itself."""
    return Troubled(Engine(base_dir, slots=4))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty database."""
    return Store(f"sqlite:///{tmp_path}/chat.sqlite")


@pytest.fixture
def desk(store: Store) -> Desk:
    """A visitor's desk."""
    visitor = Visitor("s" * 32)
    return Desk(visitor, Saver(store, visitor.owner))


def open_same(other: Desk, desk: Desk, store: Store) -> None:
    """Have another window open the conversation of this one, as it is stored."""
    found = store.open(desk.visitor.owner, desk.dialogue.id)
    assert found is not None
    other.open(found)


async def talk(desk: Desk, speaker: Troubled, text: str, ask: Ask = ASK) -> None:
    """Say something and hear the reply."""
    before = desk.say(text)
    assert before is not None
    async for _ in desk.answer(speaker, ask, before):
        pass
    await desk.saver.settle()


def short(limit: int, seed: int | None = 5) -> Ask:
    """Ask for a short reply."""
    return Ask("tiny", {**SAMPLING, "max_tokens": limit}, seed)


def test_reply_keeps_what_made_it(desk: Desk, speaker: Troubled, store: Store) -> None:
    asyncio.run(talk(desk, speaker, "the cat", short(6)))
    (_, turn) = desk.dialogue.turns
    assert (turn.model, turn.revision, turn.seed) == ("tiny", "revision-of-tiny", 5)
    assert turn.sampling == {**SAMPLING, "max_tokens": 6}
    assert (turn.completion_tokens, turn.finish_reason) == (6, "length")
    assert "length limit" in desk.notice
    assert store.open(desk.visitor.owner, desk.dialogue.id) == desk.dialogue


def test_outgrown_context_is_told(desk: Desk, speaker: Troubled) -> None:
    async def exchanges() -> None:
        context = speaker.engines["tiny"].context
        while not desk.dialogue.turns or not desk.dialogue.turns[-1].dropped_messages:
            assert len(desk.dialogue.turns) < context
            await talk(desk, speaker, "green river " * 12, short(context // 4))

    asyncio.run(exchanges())
    dropped = desk.dialogue.turns[-1].dropped_messages
    assert f"the oldest {dropped} messages were left out" in desk.notice


def test_loading_model_is_waited_for(
    desk: Desk, speaker: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "LOADING_WAIT_S", 0.05)
    speaker.loading = 2
    asyncio.run(talk(desk, speaker, "the cat", short(4)))
    assert len(desk.dialogue.turns) == 2 and desk.dialogue.turns[1].completion_tokens == 4


def test_loading_model_can_be_given_up(desk: Desk, speaker: Troubled) -> None:
    async def give_up() -> None:
        speaker.loading = 1000
        before = desk.say("the cat")
        assert before is not None
        async for _ in desk.answer(speaker, ASK, before):
            assert desk.stop is not None
            desk.stop.set()

    asyncio.run(asyncio.wait_for(give_up(), 1))
    assert desk.dialogue.turns == [] and desk.draft == "the cat"


def test_broken_stream_keeps_what_came(desk: Desk, speaker: Troubled) -> None:
    speaker.breaks_after = 8
    asyncio.run(talk(desk, speaker, "the cat"))
    assert desk.dialogue.turns[1].content and desk.dialogue.turns[1].finish_reason == "error"
    assert "broke off" in desk.notice and "the replica died" in desk.notice
    assert speaker.in_flight == 0


def test_reply_is_kept_while_it_comes_and_marked_where_its_end_is_lost(
    desk: Desk, speaker: Troubled, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.conversations.chat_window.SAVE_EVERY_S", 0)
    found: list[Dialogue] = []

    async def die_meanwhile() -> None:
        before = desk.say("the cat")
        assert before is not None
        async for _ in desk.answer(speaker, ASK, before):
            await desk.saver.settle()
            kept = store.open(desk.visitor.owner, desk.dialogue.id)
            if kept is not None and len(kept.turns) == 2:
                found.append(kept)
                return

    asyncio.run(die_meanwhile())
    (reply,) = [turn for turn in found[0].turns if turn.role == "assistant"]
    assert reply.content and reply.finish_reason is None
    desk.open(found[0])
    assert "⋯ broke off here" in str(rendering.messages(desk.dialogue)[1]["content"])
    assert desk.draft == "", "the question is answered, in part"


def test_stream_that_ends_without_a_reason_is_no_whole_reply(
    desk: Desk, speaker: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EngineSpeaker.chat

    async def cut(self: EngineSpeaker, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async with aclosing(whole(self, body)) as stream:
            async for chunk in stream:
                yield chunk
                if any((c.get("delta") or {}).get("content") for c in chunk["choices"]):
                    return

    monkeypatch.setattr(EngineSpeaker, "chat", cut)
    asyncio.run(talk(desk, speaker, "the cat"))
    assert desk.dialogue.turns[1].finish_reason == "error" and "broke off" in desk.notice


def test_windows_that_write_at_once_both_keep_what_they_have(
    desk: Desk, speaker: Troubled, store: Store
) -> None:
    other = Desk(desk.visitor, Saver(store, desk.visitor.owner))

    async def write() -> str:
        await talk(desk, speaker, "the cat", short(4))
        open_same(other, desk, store)
        desk.rename("Cats")
        await desk.saver.settle()
        await talk(other, speaker, "the moon", short(4))
        told = other.saver.message()
        desk.saver.forget(desk.dialogue)
        await talk(other, speaker, "the sun", short(4))
        assert other.saver.message() == "", "it is a conversation of its own by now"
        await desk.settle()
        return told

    told = asyncio.run(write())
    assert "“the cat” was changed in another window" in told and "Nothing is lost" in told
    ((title, id),) = store.titles(desk.visitor.owner)
    assert title == "the cat (second window)" and id == other.dialogue.id != desk.dialogue.id
    assert store.open(desk.visitor.owner, id) == other.dialogue
    assert [turn.content for turn in other.dialogue.turns[::2]] == [
        "the cat",
        "the moon",
        "the sun",
    ]


def test_a_thumb_goes_along_with_the_reply_of_a_second_window(
    desk: Desk, speaker: Troubled, store: Store
) -> None:
    other = Desk(desk.visitor, Saver(store, desk.visitor.owner))

    async def judge() -> None:
        await talk(desk, speaker, "the cat", short(4))
        await talk(desk, speaker, "the dog", short(4))
        desk.thumb(1, True)
        await desk.saver.settle()
        open_same(other, desk, store)
        desk.rename("Cats")
        await desk.saver.settle()
        other.thumb(3, False)
        await other.saver.settle()
        assert "changed in another window" in other.saver.message()

    asyncio.run(judge())
    kept = {f"thumb-{desk.dialogue.turns[1].id}": desk.dialogue.id}
    moved = {f"thumb-{other.dialogue.turns[place].id}": other.dialogue.id for place in (1, 3)}
    assert {v.key: v.extra["conversation"] for v in store.verdicts()} == kept | moved

    async def take_back() -> None:
        for place in (1, 3):
            other.thumb(place, None)
        await other.saver.settle()

    asyncio.run(take_back())
    assert [verdict.key for verdict in store.verdicts()] == list(kept)


def test_a_reply_of_which_nothing_came_is_not_kept(desk: Desk, store: Store) -> None:
    desk.dialogue.turns = [Turn("user", "the cat"), Turn("assistant", " ")]

    async def save() -> None:
        desk.saver.save(desk.dialogue)
        await desk.saver.settle()

    asyncio.run(save())
    found = store.open(desk.visitor.owner, desk.dialogue.id)
    assert found is not None and [turn.content for turn in found.turns] == ["the cat"]


def test_deletion_of_what_another_window_went_on_with_deletes_nothing(
    desk: Desk, speaker: Troubled, store: Store
) -> None:
    other = Desk(desk.visitor, Saver(store, desk.visitor.owner))

    async def delete() -> None:
        await talk(desk, speaker, "the cat", short(4))
        open_same(other, desk, store)
        await talk(other, speaker, "the moon", short(4))
        desk.saver.forget(desk.dialogue)
        await desk.saver.settle()

    asyncio.run(delete())
    assert "is not deleted" in desk.saver.message()
    assert store.open(desk.visitor.owner, other.dialogue.id) == other.dialogue


def test_question_without_reply_returns_to_the_composer(desk: Desk, speaker: Troubled) -> None:
    asyncio.run(talk(desk, speaker, "the cat", short(4)))
    before = list(desk.dialogue.turns)
    speaker.breaks_after = 0
    asyncio.run(talk(desk, speaker, "the moon"))
    assert desk.dialogue.turns == before
    assert desk.draft == "the moon" and "back in the box" in desk.notice


def test_failed_retry_leaves_the_old_reply(desk: Desk, speaker: Troubled) -> None:
    asyncio.run(talk(desk, speaker, "the cat", short(4)))
    old = list(desk.dialogue.turns)

    async def retry() -> None:
        before = desk.again(1)
        assert before is not None
        async for _ in desk.answer(speaker, ASK, before):
            pass
        await desk.saver.settle()

    speaker.breaks_after = 0
    asyncio.run(retry())
    assert desk.dialogue.turns == old and desk.draft == ""
    speaker.breaks_after = None
    asyncio.run(retry())
    assert desk.dialogue.turns[1].seed == 6, "a fixed seed moves on, or the reply would be the same"


def test_thumbs_go_with_their_replies(desk: Desk, speaker: Troubled, store: Store) -> None:
    async def judge() -> None:
        for prompt in ("the cat", "the moon"):
            await talk(desk, speaker, prompt, short(4))
        desk.thumb(0, True)
        desk.thumb(1, True)
        desk.thumb(3, False)
        desk.thumb(1, None)
        await desk.saver.settle()

    asyncio.run(judge())
    assert rendering.thumbs(desk.dialogue) == [None, "Dislike"]
    (verdict,) = store.verdicts()
    assert verdict.kind == "thumbs" and verdict.verdict == "down"
    turns = [turn.content for turn in desk.dialogue.turns]
    assert verdict.id == prompt_id(turns[:3], None) and verdict.key.startswith("thumb-")
    assert verdict.extra["conversations"] == turns[:3] and verdict.extra["replies"] == turns[3:]
    assert verdict.annotator.startswith("anonymous-")
    assert desk.visitor.session not in str(verdict)


def test_conversation_that_is_left_does_not_come_back(desk: Desk, speaker: Troubled) -> None:
    async def leave() -> Dialogue:
        first = desk.dialogue
        before = desk.say("the cat")
        assert before is not None
        async for _ in desk.answer(speaker, ASK, before):
            if first.turns[-1].content:
                desk.open(Dialogue())
        await desk.saver.settle()
        return first

    first = asyncio.run(leave())
    assert speaker.in_flight == 0
    assert desk.dialogue.turns == [] and desk.notice == ""
    assert first.turns[1].finish_reason == "stopped"


@pytest.mark.parametrize("text", ["", "  \n", "\x00", "x" * (MOST_LETTERS + 1)])
def test_unfit_messages_are_refused(desk: Desk, text: str) -> None:
    assert desk.say(text) is None
    assert desk.dialogue.turns == [] and desk.notice


def test_comparison_order_is_drawn_and_unfinished_rounds_have_no_vote(speaker: Troubled) -> None:
    one, two = Contestant("tiny", SAMPLING | {"max_tokens": 6}), Contestant("tiny", SAMPLING)
    arena, orders = Arena("anna"), set[tuple[int, int]]()

    async def compare(text: str) -> None:
        assert arena.say(text, "")
        async with aclosing(arena.answer(speaker, (one, two), 5)) as steps:
            async for _ in steps:
                assert arena.judge("A", "anna") is None, "no vote while replies come"
                replies = arena.round.replies if arena.round else ()
                if arena.stop is not None and all(turn.content for turn in replies):
                    arena.stop.set()

    async def rounds() -> None:
        for _ in range(20):
            arena.leave()
            await compare("the cat")
            assert arena.round is not None
            orders.add(arena.round.order)
            vote = arena.judge("neither", "anna")
            assert vote is not None and arena.judge("A", "anna") is None, "one vote a round"
            assert vote.extra["sampling"] == [one.sampling, two.sampling], (
                "as configured, not shown"
            )
            assert vote.order == arena.round.order
        speaker.breaks_after = 0
        await compare("the moon")

    asyncio.run(rounds())
    assert orders == {(0, 1), (1, 0)}
    assert arena.draft == "the moon" and "not two replies" in arena.notice
    assert arena.say("the sun", ""), "the conversation goes on from the last round"
    assert [turn.content for turn in arena.dialogue.turns][::2] == ["the cat", "the sun"]
