"""What a browser's chat and its comparison share: a dialogue, replies under way, a notice."""

import asyncio
from dataclasses import dataclass, field

from lima_ray.config.errors import UserError
from lima_ray.web.sessions import Session
from serve.conversations.dialogue import MAX_TURNS, Dialogue, check_text


@dataclass
class Window:
    """One tab of a browser's window."""

    session: Session
    dialogue: Dialogue = field(default_factory=Dialogue, kw_only=True)
    stop: asyncio.Event | None = field(default=None, kw_only=True)
    """Ends the replies under way; none where there are none."""
    notice: str = field(default="", kw_only=True)
    draft: str = field(default="", kw_only=True)
    """Text that goes back into the composer, because it has no reply."""

    @property
    def busy(self) -> bool:
        """Whether a reply is under way."""
        return self.stop is not None

    def stop_reply(self) -> None:
        """End the replies under way, as far as they came."""
        if self.stop is not None:
            self.stop.set()

    def leave(self) -> None:
        """End the replies under way, and forget what the reader was told."""
        self.stop_reply()
        self.stop, self.notice, self.draft = None, "", ""

    def check_prompt(self, text: str) -> str:
        """Return a message as it may be sent; refuse an empty or long one, or a long dialogue."""
        checked = check_text(text)
        if len(self.dialogue.turns) >= MAX_TURNS:
            raise UserError(f"The conversation has {MAX_TURNS} messages; start a new one.")
        return checked
