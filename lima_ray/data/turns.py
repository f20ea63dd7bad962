"""A rendered dialogue, cut at its control tokens and made into token ids, turn by turn.

A token may not reach over the border between a reply's opening and the reply: where the tokenizer
would join them (a reply that begins with a line break after `assistant` and a line break, say),
both are tokenised alone, since a prompt ends there too.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

EncodedTurns = tuple[list[int], list[int]]
"""Ids of a dialogue, and for each the turn it belongs to: 0 the first user's with all before it, 1
the first reply with its EOT, and so on."""


@lru_cache
def control_marks() -> tuple[str, str]:
    """Return the marks around a control token that a turn spells, during rendering."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    before, after = mark_control_tokens("x", re.compile("x")).split("x")
    return before, after


@dataclass(frozen=True)
class TemplateSyntax:
    control: re.Pattern[str]
    """Control tokens, longest first."""
    opening: str
    """The text between the user's last turn and a reply."""
    eot: str
    lead: str
    """A control token to tokenise a text behind, so that it is taken for no beginning."""
    eat_right: frozenset[str]
    """Control tokens that swallow the white space after them."""
    eat_left: frozenset[str]
    """Those that swallow it before them."""

    @property
    def roles(self) -> bool:
        """Whether anything but the EOT tells turns apart; LIMA's form has no more."""
        return self.opening != self.eot


@dataclass(frozen=True)
class Segment:
    """Text between two control tokens, or at an end, in which a reply may begin."""

    left: str
    right: str
    """The reply's part, where `begins`."""
    turn: int
    """The turn that `left` belongs to."""
    begins: bool
    """Whether a reply begins between the two."""
    first: bool
    """Whether no control token stands before it."""
    token: str
    """The control token after it, or nothing at the end."""


def split_segments(syntax: TemplateSyntax, text: str, begins: list[int]) -> list[Segment]:
    found: list[Segment] = []
    mark = control_marks()[0]
    places = [m for m in syntax.control.finditer(text) if text[m.start() - 1 : m.start()] != mark]
    waiting, start, turn, before = iter([*begins, len(text) + 1]), 0, 0, ""
    begin = next(waiting)
    for place in [*places, None]:
        end, token = (place.start(), place[0]) if place else (len(text), "")
        here = start <= begin <= end
        left, right = (text[start:begin], text[begin:end]) if here else (text[start:end], "")
        if before in syntax.eat_right:
            left, right = left.lstrip(), right if left.strip() else right.lstrip()
        if token in syntax.eat_left:
            left, right = left if right.strip() else left.rstrip(), right.rstrip()
        found.append(Segment(left, right, turn, here, not before, token))
        if here:
            turn, begin = turn + 1, next(waiting)
        if token == syntax.eot and turn % 2:
            turn += 1
        start, before = (place.end() if place else 0), token
    return found


def tokenise_segments(
    tokenizer: Any, syntax: TemplateSyntax, dialogues: list[list[Segment]]
) -> list[EncodedTurns]:
    """Return token ids and turns of dialogues, all segments tokenised together."""
    flat = [segment for dialogue in dialogues for segment in dialogue]
    whole = tokenise_texts(tokenizer, syntax, [(s.left + s.right, s.first) for s in flat])
    left = tokenise_texts(tokenizer, syntax, [(s.left if s.begins else "", s.first) for s in flat])
    joined = [ids[: len(part)] != part for ids, part in zip(whole, left, strict=True)]
    right = tokenise_texts(
        tokenizer,
        syntax,
        [(s.right if j else "", False) for s, j in zip(flat, joined, strict=True)],
    )
    pieces = zip(flat, whole, left, right, joined, strict=True)
    encoded: list[EncodedTurns] = []
    for dialogue in dialogues:
        ids: list[int] = []
        turns: list[int] = []
        for _ in dialogue:
            segment, all_ids, left_ids, right_ids, apart = next(pieces)
            new = left_ids + right_ids if apart else all_ids
            after = segment.turn + segment.begins
            user = len(left_ids) if segment.begins else len(new)
            turns += [segment.turn] * user + [after] * (len(new) - user)
            ids += new
            if segment.token:
                ids.append(tokenizer.convert_tokens_to_ids(segment.token))
                turns.append(after)
        encoded.append((ids, turns))
    return encoded


def tokenise_texts(
    tokenizer: Any, syntax: TemplateSyntax, texts: list[tuple[str, bool]]
) -> list[list[int]]:
    """Return token ids of texts, in which nothing is control.

    With each comes whether it begins the dialogue; what it spells has marks around it.
    """
    before, after = control_marks()
    plain = [text.partition(before)[0] for text, _ in texts]
    asked = [n for n, text in enumerate(plain) if text]
    leads = ["" if first else syntax.lead for _, first in texts]
    ids = iter(tokenise_plain(tokenizer, [leads[n] + plain[n] for n in asked]))
    found: list[list[int]] = [[] for _ in texts]
    for number in asked:
        found[number] = next(ids)[bool(leads[number]) :]
    for number, (text, first) in enumerate(texts):
        _, mark, rest = text.partition(before)
        if mark:
            named = rest.replace(before, "").replace(after, "")
            found[number] += tokenise_control_names(
                tokenizer, syntax.control, named, first and not plain[number]
            )
    return found


def tokenise_plain(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(
        texts, add_special_tokens=False, split_special_tokens=False, verbose=False
    ).input_ids


def tokenise_control_names(
    tokenizer: Any, control: re.Pattern[str], text: str, first: bool
) -> list[int]:
    """Return ids of a text whose control names are text; `first` tells if it begins a dialogue."""
    reader = text_only_tokenizer(tokenizer, control)
    ids = reader(text, add_special_tokens=False).input_ids
    if not first:  # behind a line break, since some tokenizers put a space before a beginning
        before = reader("\n", add_special_tokens=False).input_ids
        behind = reader(f"\n{text}", add_special_tokens=False).input_ids
        ids = behind[len(before) :] if behind[: len(before)] == before else ids
    named = control.search(text)
    if named and tokenizer.convert_tokens_to_ids(named[0]) in ids and len(named[0]) > 1:
        # Some models know such a token as a word too: it is cut behind its first character.
        halves = text[: named.start() + 1], text[named.start() + 1 :]
        first_ids, second_ids = (
            tokenise_control_names(tokenizer, control, half, first and n == 0)
            for n, half in enumerate(halves)
        )
        return first_ids + second_ids
    return ids


def match_any(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of these names, the longest first; of none, one that is never found."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


@lru_cache(maxsize=16)
def text_only_tokenizer(tokenizer: Any, control: re.Pattern[str]) -> Any:
    """Return a copy of the tokenizer that takes control tokens for text.

    A copy, since the setting is one of the tokenizer's state, which threads share.
    """
    reader = copy.deepcopy(tokenizer)
    named = [t for t in reader.added_tokens_decoder.values() if control.fullmatch(t.content)]
    for token in named:
        token.special = True
    reader.add_tokens(named, special_tokens=True)
    reader.split_special_tokens = True
    return reader
