"""A dialogue as token ids, by the tokenizer's chat template; training, generation and serving share
this.

What the template writes is control: tokens that begin and end turns. What a turn says is text,
also where it spells the name of such a token (`<|im_end|>` in an article on chat formats, `<s>` in
HTML). A template is rendered as it stands, and three things are learned from it by trying it out:
which tokens are control, what it writes between the user's last word and a reply's first (its
opening), and which token ends a reply (EOT). Openings and EOT then tell every turn's tokens.

A token may not reach over the border between an opening and a reply: where the tokenizer would join
them (a reply that begins with a line break after `assistant` and a line break, say), both are
tokenised alone, since a prompt ends there too.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import mark_control_tokens

from lima_ray.errors import UserError

Message = dict[str, str]
Encoded = tuple[list[int], list[int]]
"""Ids of a dialogue, and for each the turn it belongs to: 0 the first user's with all before it, 1
the first reply with its EOT, and so on."""
MARK, END_MARK = mark_control_tokens("x", re.compile("x")).split("x")
"""What stands around a control token that a turn spells, while the template is rendered."""
ASKED, SAID = "Aqxj1", "Bqxj2"
"""Turns to try a template with."""


@dataclass(frozen=True)
class Form:
    """What a chat template makes of dialogues."""

    control: re.Pattern[str]
    """Control tokens, longest first."""
    opening: str
    """What stands between the user's last word and a reply's first."""
    eot: str
    """The token that ends a reply."""
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
class Stretch:
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


def form_of(tokenizer: Any) -> Form:
    """What the tokenizer's chat template makes of dialogues.

    Raises:
        UserError: it cannot be told where its replies begin and end.
    """
    return _form_of(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=64)
def _form_of(tokenizer: Any, template: str) -> Form:
    """The same, for a tokenizer while it has this template."""
    ask, say = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
    prompt = render(tokenizer, [ask], prompt=True)
    whole = render(tokenizer, [ask, say])
    later = render(tokenizer, [ask, say, ask], prompt=True)
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    written = {name for name in added if not name.isspace() and name in later}
    names = {name for name, token in added.items() if token.special} | written
    control = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
    opening = prompt.rpartition(ASKED)[2]
    if not (opening and whole.startswith(prompt) and SAID in whole[len(prompt) :]):
        raise UserError("its replies do not go on where its prompts end")
    eot = control.search(whole.rpartition(SAID)[2])
    if eot is None:
        raise UserError("no special token ends its replies, so nothing would teach to stop")
    leads = sorted((n for n in names if not added[n].rstrip), key=lambda name: name != eot[0])
    return Form(
        control=control,
        opening=opening,
        eot=eot[0],
        lead=leads[0] if leads else "",
        eat_right=frozenset(n for n in names if added[n].rstrip),
        eat_left=frozenset(n for n in names if added[n].lstrip),
    )


def render(tokenizer: Any, messages: list[Message], prompt: bool = False) -> str:
    """What the template makes of messages, with the beginning of a reply after them for a prompt.

    Raises:
        UserError: the template refuses them.
    """
    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=prompt,
            names_are_text=True,  # LIMA's own template changes them, for programs without this
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(f"the chat template refuses the dialogue: {error}") from error


def encode_prompt(tokenizer: Any, messages: list[Message]) -> list[int]:
    """Token ids of a dialogue that a reply shall follow.

    Raises:
        UserError: the template refuses it.
    """
    try:
        form = form_of(tokenizer)
    except UserError:  # of another model, which replies though it could not be trained here
        render(tokenizer, messages, prompt=True)
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
        )
    text = render(tokenizer, marked(messages, form), prompt=True)
    return tokenise(tokenizer, form, [stretches(form, text, borders(form, text)[0])])[0][0]


def encode_dialogues(tokenizer: Any, dialogues: Sequence[list[Message]]) -> list[Encoded | str]:
    """Token ids and turns of dialogues that end with a reply; nothing follows its EOT.

    Returns:
        for each its tokens, or what is wrong with it.

    Raises:
        UserError: nothing can be told of the template.
    """
    form = form_of(tokenizer)
    parts: list[list[Stretch]] = []
    problems: dict[int, str] = {}
    for number, messages in enumerate(dialogues):
        try:
            parts.append(checked_stretches(tokenizer, form, marked(messages, form)))
        except UserError as error:
            problems[number] = str(error)
    encoded = iter(tokenise(tokenizer, form, parts))
    return [problems.get(n) or next(encoded) for n in range(len(dialogues))]


def checked_stretches(tokenizer: Any, form: Form, messages: list[Message]) -> list[Stretch]:
    """The stretches of a dialogue, once every turn has been found in what the template made of it.

    Raises:
        UserError: the template refuses the dialogue, changes a turn or leaves it out, or would have
            been another text when the turn was asked for.
    """
    text = render(tokenizer, messages)
    begins, ends = borders(form, text)
    turns = [message for message in messages if message["role"] != "system"]
    others = [message for message in messages if message["role"] == "system"]
    if not len(begins) == len(ends) == len(turns) // 2:
        raise UserError(
            f"its chat template makes {len(begins)} replies of {len(turns) // 2}; a turn spells "
            f"what opens replies, {form.opening!r}"
        )
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        user, reply = turns[2 * number : 2 * number + 2]
        before = text[ends[number - 1] if number else 0 : begin]
        asked = [*(others if number == 0 else []), user]
        for message, part in [*((m, before) for m in asked), (reply, text[begin:end])]:
            if message["content"].strip() not in part:
                raise UserError(f"its chat template changes what the {message['role']} says")
        asked_with = messages[: len(others) + 2 * number + 1]
        if render(tokenizer, asked_with, prompt=True) != text[:begin]:
            raise UserError(f"its chat template writes reply {number + 1} behind another prompt")
    return stretches(form, text[: ends[-1]], begins)


def marked(messages: list[Message], form: Form) -> list[Message]:
    """The messages, with marks around control tokens that they spell."""
    return [
        message | {"content": mark_control_tokens(message["content"], form.control)}
        if form.control.search(message["content"])
        else message
        for message in messages
    ]


def borders(form: Form, text: str) -> tuple[list[int], list[int]]:
    """Where the replies of a rendered dialogue begin, and where their EOT ends.

    A prompt has one more beginning than ends.
    """
    opening = re.compile(f"(?<!{MARK}){re.escape(form.opening)}")
    eot = re.compile(f"(?<!{MARK}){re.escape(form.eot)}")
    begins, ends, place = [], [], 0
    while found := opening.search(text, place):
        begins.append(found.end())
        ended = eot.search(text, found.end())
        if ended is None:
            break
        ends.append(place := ended.end())
    return begins, ends


def stretches(form: Form, text: str, begins: list[int]) -> list[Stretch]:
    """A rendered dialogue, cut at its control tokens."""
    found: list[Stretch] = []
    places = [m for m in form.control.finditer(text) if text[m.start() - 1 : m.start()] != MARK]
    waiting, start, turn, before = iter([*begins, len(text) + 1]), 0, 0, ""
    begin = next(waiting)
    for place in [*places, None]:
        end, token = (place.start(), place[0]) if place else (len(text), "")
        here = start <= begin <= end
        left, right = (text[start:begin], text[begin:end]) if here else (text[start:end], "")
        if before in form.eat_right:
            left, right = left.lstrip(), right if left.strip() else right.lstrip()
        if token in form.eat_left:
            left, right = left if right.strip() else left.rstrip(), right.rstrip()
        found.append(Stretch(left, right, turn, here, not before, token))
        if here:
            turn, begin = turn + 1, next(waiting)
        if token == form.eot and turn % 2:
            turn += 1
        start, before = (place.end() if place else 0), token
    return found


def tokenise(tokenizer: Any, form: Form, dialogues: list[list[Stretch]]) -> list[Encoded]:
    """Token ids and turns of dialogues, all stretches tokenised together."""
    flat = [stretch for dialogue in dialogues for stretch in dialogue]
    whole = text_tokens(tokenizer, form, [(s.left + s.right, s.first) for s in flat])
    left = text_tokens(tokenizer, form, [(s.left if s.begins else "", s.first) for s in flat])
    joined = [ids[: len(part)] != part for ids, part in zip(whole, left, strict=True)]
    right = text_tokens(
        tokenizer, form, [(s.right if j else "", False) for s, j in zip(flat, joined, strict=True)]
    )
    pieces = zip(flat, whole, left, right, joined, strict=True)
    encoded: list[Encoded] = []
    for dialogue in dialogues:
        ids: list[int] = []
        turns: list[int] = []
        for _ in dialogue:
            stretch, all_ids, left_ids, right_ids, apart = next(pieces)
            new = left_ids + right_ids if apart else all_ids
            after = stretch.turn + stretch.begins
            user = len(left_ids) if stretch.begins else len(new)
            turns += [stretch.turn] * user + [after] * (len(new) - user)
            ids += new
            if stretch.token:
                ids.append(tokenizer.convert_tokens_to_ids(stretch.token))
                turns.append(after)
        encoded.append((ids, turns))
    return encoded


def text_tokens(tokenizer: Any, form: Form, texts: list[tuple[str, bool]]) -> list[list[int]]:
    """Token ids of texts, in which nothing is control.

    Args:
        tokenizer: the dialogues'.
        form: of its template.
        texts: each with whether it begins the dialogue; what it spells has marks around it.
    """
    plain = [text.partition(MARK)[0] for text, _ in texts]
    asked = [n for n, text in enumerate(plain) if text]
    leads = ["" if first else form.lead for _, first in texts]
    ids = iter(plain_ids(tokenizer, [leads[n] + plain[n] for n in asked]))
    found: list[list[int]] = [[] for _ in texts]
    for number in asked:
        found[number] = next(ids)[bool(leads[number]) :]
    for number, (text, first) in enumerate(texts):
        _, mark, rest = text.partition(MARK)
        if mark:
            named = rest.replace(MARK, "").replace(END_MARK, "")
            found[number] += named_ids(tokenizer, form, named, first and not plain[number])
    return found


def plain_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of texts as they stand, nothing added."""
    if not texts:
        return []
    return tokenizer(
        texts, add_special_tokens=False, split_special_tokens=False, verbose=False
    ).input_ids


def named_ids(tokenizer: Any, form: Form, text: str, first: bool) -> list[int]:
    """Token ids of a text that spells control tokens, which are text in it."""
    reader = text_reader(tokenizer, form)
    ids = reader(text, add_special_tokens=False).input_ids
    if not first:  # behind a line break, since some tokenizers put a space before a beginning
        before = reader("\n", add_special_tokens=False).input_ids
        behind = reader(f"\n{text}", add_special_tokens=False).input_ids
        ids = behind[len(before) :] if behind[: len(before)] == before else ids
    named = form.control.search(text)
    if named and tokenizer.convert_tokens_to_ids(named[0]) in ids and len(named[0]) > 1:
        # Some models know such a token as a word too: it is cut behind its first character.
        halves = text[: named.start() + 1], text[named.start() + 1 :]
        first_ids, second_ids = (
            named_ids(tokenizer, form, half, first and n == 0) for n, half in enumerate(halves)
        )
        return first_ids + second_ids
    return ids


@lru_cache(maxsize=16)
def text_reader(tokenizer: Any, form: Form) -> Any:
    """A copy of the tokenizer that takes control tokens for text.

    A copy, since the setting is one of the tokenizer's state, which threads share.
    """
    reader = copy.deepcopy(tokenizer)
    named = [t for t in reader.added_tokens_decoder.values() if form.control.fullmatch(t.content)]
    for token in named:
        token.special = True
    reader.add_tokens(named, special_tokens=True)
    reader.split_special_tokens = True
    return reader
