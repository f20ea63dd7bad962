"""The open windows of a replica, and what two of them may do to one conversation."""

import asyncio
import time
from weakref import WeakValueDictionary

from lima_ray.web.database import DatabaseError
from serve.conversations.chat_window import ChatWindow
from serve.conversations.store import Store

LEFT_WAIT_S = 3.0
"""What a window that was closed or reloaded has for the end of its reply."""


class OpenWindows:
    """The chat windows that browsers have open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.by_hash: WeakValueDictionary[str, ChatWindow] = WeakValueDictionary()
        """By Gradio's session, so that a closed tab ends its reply."""

    async def fetch(self, window: ChatWindow, id: str) -> None:
        """Take up one of the session's own conversations."""
        elsewhere = await self.being_answered(window, id)
        try:
            found = await self.store.off_loop(Store.open, window.session.owner, id)
        except DatabaseError as error:
            window.notice = f"The conversation cannot be opened: {error}"
            return
        if found is None:
            window.notice = "There is no such conversation."
        else:
            window.open(found)
            if elsewhere:
                window.notice = "A reply to this is under way in another window. " + window.notice

    async def being_answered(self, window: ChatWindow, id: str) -> bool:
        """Whether a window has a reply under way, once those that were just left have ended it."""
        until = time.monotonic() + LEFT_WAIT_S
        while self.is_answered(window, id) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for other in self.windows_of(window):
            await other.autosave.settle()
        return self.is_answered(window, id)

    def is_answered(self, window: ChatWindow, id: str) -> bool:
        """Whether one of the session's windows has a reply under way in a conversation."""
        windows = self.windows_of(window)
        return any(dialogue.id == id for other in windows for dialogue in other.answered)

    def windows_of(self, window: ChatWindow) -> list[ChatWindow]:
        """Return the session's windows on this replica."""
        owner, others = window.session.owner, self.by_hash.values()
        return [window, *(w for w in others if w is not window and w.session.owner == owner)]

    async def catch_up(self, window: ChatWindow) -> bool:
        """Take up what another window did to the conversation; whether it did anything.

        Without the database nothing is asked, and the conversation goes on.
        """
        dialogue, autosave = window.dialogue, window.autosave
        if window.busy or autosave.problem is not None or not dialogue.version:
            return False
        if self.is_answered(window, dialogue.id):
            window.notice = (
                "Another window has a reply under way in this conversation. "
                "Wait for its end, then do again what you wanted to do."
            )
            return True
        if autosave.waiting:
            await autosave.settle()
        owner = window.session.owner
        try:
            version = await self.store.off_loop(Store.version, owner, dialogue.id)
            if version is None or version in {dialogue.version, *dialogue.attempts}:
                return False
            found = await self.store.off_loop(Store.open, owner, dialogue.id)
        except DatabaseError:
            return False
        if found is None or window.dialogue is not dialogue or window.busy:
            return False
        window.catch_up(found)
        return True
