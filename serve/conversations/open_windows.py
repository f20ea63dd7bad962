"""The open windows of a replica, and what two of them may do to one conversation."""

import asyncio
import time
from weakref import WeakValueDictionary

from lima_ray.web.database import StoreError
from serve.conversations.chat_window import Desk
from serve.conversations.store import Store

LEFT_WAIT_S = 3.0
"""What a window that was closed or reloaded has for the end of its reply."""


class Desks:
    """Desks that windows hold."""

    def __init__(self, store: Store) -> None:
        """Begin without any."""
        self.store = store
        self.by_session: WeakValueDictionary[str, Desk] = WeakValueDictionary()
        """By Gradio's session, so that a closed tab ends its reply."""

    async def fetch(self, desk: Desk, id: str) -> None:
        """Take up one of the visitor's own conversations."""
        elsewhere = await self.being_answered(desk, id)
        try:
            found = await self.store.off_loop(Store.open, desk.visitor.owner, id)
        except StoreError as error:
            desk.notice = f"The conversation cannot be opened: {error}"
            return
        if found is None:
            desk.notice = "There is no such conversation."
        else:
            desk.open(found)
            if elsewhere:
                desk.notice = "A reply to this is under way in another window. " + desk.notice

    async def being_answered(self, desk: Desk, id: str) -> bool:
        """Whether a window has a reply under way, once those that were just left have ended it."""
        until = time.monotonic() + LEFT_WAIT_S
        while self.is_answered(desk, id) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for window in self.windows_of(desk):
            await window.saver.settle()
        return self.is_answered(desk, id)

    def is_answered(self, desk: Desk, id: str) -> bool:
        """Whether one of the visitor's windows has a reply under way in a conversation."""
        windows = self.windows_of(desk)
        return any(dialogue.id == id for window in windows for dialogue in window.answered)

    def windows_of(self, desk: Desk) -> list[Desk]:
        """The visitor's windows on this replica."""
        owner, others = desk.visitor.owner, self.by_session.values()
        return [desk, *(d for d in others if d is not desk and d.visitor.owner == owner)]

    async def catch_up(self, desk: Desk) -> bool:
        """Take up what another window did to the conversation; whether it did anything.

        Without the database nothing is asked, and the talk goes on.
        """
        dialogue, saver = desk.dialogue, desk.saver
        if desk.busy or saver.problem is not None or not dialogue.version:
            return False
        if self.is_answered(desk, dialogue.id):
            desk.notice = (
                "Another window has a reply under way in this conversation. "
                "Wait for its end, then do again what you wanted to do."
            )
            return True
        if saver.waiting:
            await saver.settle()
        owner = desk.visitor.owner
        try:
            version = await self.store.off_loop(Store.version, owner, dialogue.id)
            if version is None or version in {dialogue.version, *dialogue.attempts}:
                return False
            found = await self.store.off_loop(Store.open, owner, dialogue.id)
        except StoreError:
            return False
        if found is None or desk.dialogue is not dialogue or desk.busy:
            return False
        desk.catch_up(found)
        return True
