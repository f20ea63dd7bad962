"""A dialogue as token ids, by the chat template, for training, generation and serving alike.

The template writes control tokens, which begin and end turns. What a turn holds is text,
also where it spells the name of such a token (`<|im_end|>` in an article on chat formats, `<s>` in
HTML). Three things are learned of a template by rendering a small dialogue with it:
which tokens are control, what it writes between the user's last turn and a reply (its
opening), and which token ends a reply (EOT). Openings and EOT then tell every turn's tokens.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from lima_ray.config.errors import UserError
from lima_ray.data.turns import (
    EncodedTurns,
    Segment,
    TemplateSyntax,
    control_marks,
    match_any,
    split_segments,
    tokenise_segments,
)

Message = dict[str, str]
PROBE_USER, PROBE_REPLY = "Aqxj1", "Bqxj2"
"""Turns to try a template with."""


def analyse_template(tokenizer: Any) -> TemplateSyntax:
    """Return the syntax of a chat template; refuse it where replies' ends cannot be told."""
    return _analyse_template(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=64)
def _analyse_template(tokenizer: Any, template: str) -> TemplateSyntax:
    """Analyse a template once for each tokenizer that has it."""
    user, assistant = (
        {"role": "user", "content": PROBE_USER},
        {"role": "assistant", "content": PROBE_REPLY},
    )
    prompt = render(tokenizer, [user], prompt=True)
    whole = render(tokenizer, [user, assistant])
    later = render(tokenizer, [user, assistant, user], prompt=True)
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    written = {name for name in added if not name.isspace() and name in later}
    names = {name for name, token in added.items() if token.special} | written
    control = match_any(names)
    opening = prompt.rpartition(PROBE_USER)[2]
    if not (opening and whole.startswith(prompt) and PROBE_REPLY in whole[len(prompt) :]):
        raise UserError("its replies do not go on where its prompts end")
    eot = control.search(whole.rpartition(PROBE_REPLY)[2])
    if eot is None:
        raise UserError("no special token ends its replies, so nothing would teach to stop")
    leads = sorted((n for n in names if not added[n].rstrip), key=lambda name: name != eot[0])
    return TemplateSyntax(
        control=control,
        opening=opening,
        eot=eot[0],
        lead=leads[0] if leads else "",
        eat_right=frozenset(n for n in names if added[n].rstrip),
        eat_left=frozenset(n for n in names if added[n].lstrip),
    )


def render(tokenizer: Any, messages: list[Message], prompt: bool = False) -> str:
    """Render messages by the chat template; for a prompt, with the beginning of a reply."""
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
    """Return token ids of a dialogue that a reply shall follow."""
    try:
        syntax = analyse_template(tokenizer)
    except UserError:  # of another model, which replies though it could not be trained here
        render(tokenizer, messages, prompt=True)
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
        )
    text = render(tokenizer, mark_control_names(messages, syntax), prompt=True)
    return tokenise_segments(
        tokenizer, syntax, [split_segments(syntax, text, find_replies(syntax, text)[0])]
    )[0][0]


def encode_dialogues(
    tokenizer: Any, dialogues: Sequence[list[Message]]
) -> list[EncodedTurns | str]:
    """Return token ids and turns of dialogues that end with a reply, or what is wrong with each.

    Nothing follows the last reply's EOT.
    """
    syntax = analyse_template(tokenizer)
    parts: list[list[Segment]] = []
    problems: dict[int, str] = {}
    for number, messages in enumerate(dialogues):
        try:
            parts.append(split_checked(tokenizer, syntax, mark_control_names(messages, syntax)))
        except UserError as error:
            problems[number] = str(error)
    encoded = iter(tokenise_segments(tokenizer, syntax, parts))
    return [problems.get(n) or next(encoded) for n in range(len(dialogues))]


def split_checked(tokenizer: Any, syntax: TemplateSyntax, messages: list[Message]) -> list[Segment]:
    """Split a dialogue once every turn has been found in what the template made of it.

    Raises:
        UserError: the template refuses the dialogue, changes a turn or leaves it out, or would have
            been another text when the turn was asked for.
    """
    text = render(tokenizer, messages)
    begins, ends = find_replies(syntax, text)
    turns = [message for message in messages if message["role"] != "system"]
    others = [message for message in messages if message["role"] == "system"]
    if not len(begins) == len(ends) == len(turns) // 2:
        raise UserError(
            f"its chat template makes {len(begins)} replies of {len(turns) // 2}; a turn spells "
            f"what opens replies, {syntax.opening!r}"
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
    return split_segments(syntax, text[: ends[-1]], begins)


def mark_control_names(messages: list[Message], syntax: TemplateSyntax) -> list[Message]:
    """Return the messages, with marks around control tokens that they spell."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    return [
        message | {"content": mark_control_tokens(message["content"], syntax.control)}
        if syntax.control.search(message["content"])
        else message
        for message in messages
    ]


def find_replies(syntax: TemplateSyntax, text: str) -> tuple[list[int], list[int]]:
    """Return where replies begin and where their EOT ends; a prompt has one more beginning."""
    mark = control_marks()[0]
    opening = re.compile(f"(?<!{mark}){re.escape(syntax.opening)}")
    eot = re.compile(f"(?<!{mark}){re.escape(syntax.eot)}")
    begins, ends, place = [], [], 0
    while found := opening.search(text, place):
        begins.append(found.end())
        ended = eot.search(text, found.end())
        if ended is None:
            break
        ends.append(place := ended.end())
    return begins, ends
