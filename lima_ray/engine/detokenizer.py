"""Tokens to text as they come, and the stop strings that may end it.

    detokenizer = Detokenizer(tokenizer, stop=["\\n\\n"])
    for token in tokens:
        print(detokenizer.add(token), end="")
    print(detokenizer.finish())

Text that was returned is never taken back: half of a character, and the beginning of what may
become a stop string, wait for what follows. Joined, the pieces are the text that `decode` gives for
all tokens at once, cut before the stop string where there is one.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

BYTE = re.compile("<0x[0-9A-F]{2}>")
"""SentencePiece's tokens for single bytes, which mean characters only as whole runs."""
REPLACEMENT = "\ufffd"
"""What a decoder returns for bytes that are no character (yet)."""


class Detokenizer:
    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        """Begin an empty text.

        Args:
            tokenizer: decodes; control tokens leave no text.
            stop: strings that end the reply before themselves; none is empty.
        """
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.control_tokens, self.byte_tokens = special_tokens(tokenizer)
        self.tokens: list[int] = []
        self.begin = self.read = 0
        """Tokens from `begin` are decoded together; those before `read` have given their text."""
        self.held = ""
        """Text that may be the beginning of a stop string."""
        self.stopped_by: str | None = None
        """The stop string that was found."""

    def add(self, token: int) -> str:
        """Add a token, and return the text that is now final, maybe none."""
        if token in self.control_tokens:
            return ""
        self.tokens.append(token)
        if token in self.byte_tokens:
            return ""
        before, now = self.decode(self.begin, self.read), self.decode(self.begin)
        if now.endswith(REPLACEMENT) or len(now) <= len(before):
            return ""
        self.begin, self.read = self.read, len(self.tokens)
        return self.before_stop(now[len(before) :])

    def finish(self) -> str:
        """Return what was held back until the end of the reply."""
        if self.stopped_by is not None:
            return ""
        rest = self.decode(self.begin)[len(self.decode(self.begin, self.read)) :]
        self.begin = self.read = len(self.tokens)
        text = self.before_stop(rest)
        if self.stopped_by is None:
            text, self.held = text + self.held, ""
        return text

    def decode(self, start: int, end: int | None = None) -> str:
        return decode(self.tokenizer, self.tokens[start:end])

    def before_stop(self, new: str) -> str:
        """Append new text to what is held, and return all in which no stop string can begin."""
        if not self.stop or self.stopped_by is not None:
            return "" if self.stopped_by is not None else new
        text = self.held + new
        found = [(place, s) for s in self.stop if (place := text.find(s)) >= 0]
        if found:
            place, self.stopped_by = min(found)
            self.held = ""
            return text[:place]
        longest = max(map(len, self.stop)) - 1
        tails = (text[-n:] for n in range(min(longest, len(text)), 0, -1))
        self.held = next((t for t in tails if any(s.startswith(t) for s in self.stop)), "")
        return text[: len(text) - len(self.held)]


def decode(tokenizer: Any, tokens: list[int]) -> str:
    """Return the text of tokens, without control tokens, and without the clean-up of spaces that
    some tokenizers ask for, which changes code and rare punctuation."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return backend.decode(tokens, skip_special_tokens=True)


@lru_cache(maxsize=64)
def special_tokens(tokenizer: Any) -> tuple[frozenset[int], frozenset[int]]:
    """Return the control tokens, which leave no text, and the tokens of single bytes."""
    added = tokenizer.added_tokens_decoder.items()
    vocab = tokenizer.get_vocab().items()
    return (
        frozenset(id for id, token in added if token.special),
        frozenset(id for token, id in vocab if BYTE.fullmatch(token)),
    )
