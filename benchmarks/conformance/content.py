"""Checks of what a request's prompts and messages hold, and of what its answer tells."""

import json
from typing import Any

from benchmarks.conformance.peer import (
    PROMPT,
    QUESTION,
    Found,
    Holds,
    Peer,
    right,
    said,
    text,
    text_of,
)

# What is told


def logprobs(peer: Peer, kind: str) -> bool | Found:
    """One for each token, and each the greedy choice's."""
    if kind == "chat":
        answer = peer.ask(kind, logprobs=True)
        told = (answer["choices"][0].get("logprobs") or {}).get("content")
        values = [entry["logprob"] for entry in told or []]
    else:
        answer = peer.ask(kind, logprobs=1)
        told = answer["choices"][0].get("logprobs")
        values = told["token_logprobs"] if told else []
    if not told:
        return False
    count = answer["usage"]["completion_tokens"]
    return right(
        len(values) == count and all(value <= 0 for value in values),
        f"{len(values)} values for {count} tokens: {values}",
    )


def top_logprobs(peer: Peer, kind: str) -> bool | Found:
    """So many for each token, from the likeliest; the first greedy token is the likeliest."""
    if kind == "chat":
        answer = peer.ask(kind, logprobs=True, top_logprobs=4)
        told = answer["choices"][0]["logprobs"]["content"]
        tops = [[top["logprob"] for top in entry["top_logprobs"]] for entry in told]
        first = told[0]["logprob"]
    else:
        told = peer.ask(kind, logprobs=4)["choices"][0]["logprobs"]
        tops = [sorted(top.values(), reverse=True) for top in told["top_logprobs"]]
        first = told["token_logprobs"][0]
    # A text may stand for several tokens (parts of characters), and is then one of the four.
    ordered = all(top == sorted(top, reverse=True) and 1 <= len(top) <= 5 for top in tops)
    return right(
        ordered and len(tops[0]) >= 4 and abs(tops[0][0] - first) < 1e-4, f"{tops[:2]}, {first}"
    )


def stream(peer: Peer, kind: str) -> bool | Found:
    """The same text piece by piece, one reason to finish, and [DONE]."""
    events = peer.events(kind)
    if not events:
        return False
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    whole = text(peer, kind)
    if said(chunks) != whole:
        return Found("wrong", f"the stream says {said(chunks)!r}, the whole answer {whole!r}")
    ended = [reason for reason in reasons if reason]
    return right(events[-1] == "[DONE]" and ended == ["length"], f"{events[-1]!r}, ends {ended}")


def include_usage(peer: Peer, kind: str) -> bool | Found:
    """The last chunk has the numbers that a whole answer has, and no other chunk has."""
    plain = peer.chunks(kind)
    if any(chunk.get("usage") for chunk in plain):
        return Found("wrong", "the stream tells its usage unasked")
    chunks = peer.chunks(kind, stream_options={"include_usage": True})
    if not chunks[-1].get("usage"):
        return False
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    usage, whole = chunks[-1]["usage"], peer.ask(kind)["usage"]
    same = all(usage[count] == whole[count] for count in counts)
    return right(same and chunks[-1]["choices"] == [], f"{usage} in the stream, {whole} without")


def return_token_ids(peer: Peer, kind: str) -> bool | Found:
    """As many ids as usage says."""
    answer = peer.ask(kind, return_token_ids=True)
    choice = answer["choices"][0]
    prompt = answer.get("prompt_token_ids") or choice.get("prompt_token_ids")
    if not prompt or not choice.get("token_ids"):
        return False
    counts, usage = (len(prompt), len(choice["token_ids"])), answer["usage"]
    told = (usage["prompt_tokens"], usage["completion_tokens"])
    return right(counts == told, f"{counts} ids, but {told} tokens")


# What is read


def prompt_tokens(peer: Peer, *messages: tuple[str, Any]) -> int:
    told = [{"role": role, "content": content} for role, content in messages]
    return peer.ask("chat", messages=told, max_tokens=1)["usage"]["prompt_tokens"]


def first_role(role: str) -> Holds:
    """A message before the user's is read."""

    def holds(peer: Peer, kind: str) -> bool:
        longer = prompt_tokens(peer, (role, "You are a pirate."), ("user", QUESTION))
        return longer > prompt_tokens(peer, ("user", QUESTION))

    return holds


def dialogue(peer: Peer, kind: str) -> bool:
    """Earlier turns are read."""
    turns = [("user", QUESTION), ("assistant", "It is Paris."), ("user", "And of Spain?")]
    return prompt_tokens(peer, *turns) > prompt_tokens(peer, turns[0])


def content_parts(peer: Peer, kind: str) -> bool | Found:
    """Text in parts is text."""
    halves = [{"type": "text", "text": QUESTION[:10]}, {"type": "text", "text": QUESTION[10:]}]
    parts, plain = prompt_tokens(peer, ("user", halves)), prompt_tokens(peer, ("user", QUESTION))
    # A template may put a line's end between parts.
    return right(abs(parts - plain) <= 2, f"{parts} tokens in parts, {plain} in one")


def image(peer: Peer, kind: str) -> bool:
    """An image is looked at, or refused; never passed over."""
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": dot}}]
    return prompt_tokens(peer, ("user", parts)) > prompt_tokens(peer, ("user", QUESTION)) + 4


def echo(peer: Peer, kind: str) -> bool:
    """The text begins with the prompt."""
    return text(peer, kind, echo=True) == PROMPT + text(peer, kind)


def several_prompts(peer: Peer, kind: str) -> bool | Found:
    """A choice for each, in order."""
    prompts = [PROMPT, "Once upon a time"]
    answer = peer.ask(kind, prompt=prompts)
    alone = [text(peer, kind, prompt=prompt) for prompt in prompts]
    told = [text_of(answer, i) for i in range(len(answer["choices"]))]
    return right(told == alone, f"{told} together, {alone} alone")


def token_prompt(peer: Peer, kind: str) -> bool | Found:
    """Token ids are taken as they are."""
    answer = peer.ask(kind, prompt=[5, 9, 17, 21])
    count = answer["usage"]["prompt_tokens"]
    return right(count == 4, f"four ids count as {count} tokens")


def token_prompts(peer: Peer, kind: str) -> bool | Found:
    """Several lists of ids."""
    answer = peer.ask(kind, prompt=[[5, 9, 17], [21, 4]])
    count = (len(answer["choices"]), answer["usage"]["prompt_tokens"])
    return right(count == (2, 5), f"choices and prompt tokens are {count}")
