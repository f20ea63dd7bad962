"""Which fields of OpenAI's API a server honours, refuses, ignores, or gets wrong.

    python -m benchmarks.conformance --url http://127.0.0.1:8000/v1 --model NAME [--key KEY]

A field is *honoured* when what it asks for shows in the answer, and *refused* when the server says
400 or 422 and names it. *ignored* means that it was taken and nothing came of it; *wrong*, that the
answer contradicts it, or that the refusal has another status or names nothing.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2 as httpx
import tyro
from rich.console import Console
from rich.table import Table

Verdict = Literal["honoured", "refused", "ignored", "wrong"]
COLOURS = {"honoured": "green", "refused": "green", "ignored": "yellow", "wrong": "red"}
QUESTION = "What is the capital of France? Tell me all about it."
PROMPT = "The capital of France is"
Body = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a check came to."""

    verdict: Verdict
    detail: str = ""


class Refused(Exception):
    """The server refused a request, which ends a check."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code}: {response.text[:200]}")
        self.status, self.text = response.status_code, response.text


@dataclass
class Peer:
    """A server that speaks OpenAI's API, and the model to ask."""

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 300.0
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.client = httpx.Client(headers=headers, timeout=self.timeout_s)

    def post(self, path: str, body: Body) -> httpx.Response:
        """The response to any body."""
        return self.client.post(f"{self.url.rstrip('/')}/{path}", json=body)

    def ask(self, kind: str, **fields: Any) -> Body:
        """An answer of a kind of completion.

        Raises:
            Refused: the server refused.
        """
        response = self.post(PATHS[kind], self.body(kind, **fields))
        if response.status_code != 200:
            raise Refused(response)
        return response.json()

    def body(self, kind: str, **fields: Any) -> Body:
        """A request: a short greedy reply unless the fields say otherwise; None leaves out."""
        content: Body = {"prompt": PROMPT}
        if kind == "chat":
            content = {"messages": [{"role": "user", "content": QUESTION}]}
        asked = {"model": self.model, "temperature": 0, "max_tokens": 12} | content | fields
        return {name: value for name, value in asked.items() if value is not None}

    def events(self, kind: str, **fields: Any) -> list[str]:
        """The data of a stream's events."""
        response = self.post(PATHS[kind], self.body(kind, stream=True, **fields))
        if response.status_code != 200:
            raise Refused(response)
        if not response.headers["content-type"].startswith("text/event-stream"):
            return []
        lines = response.text.replace("\r", "").split("\n")
        return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]

    def chunks(self, kind: str, **fields: Any) -> list[Body]:
        """The chunks of a stream."""
        return [json.loads(data) for data in self.events(kind, **fields) if data != "[DONE]"]


PATHS = {"chat": "chat/completions", "completions": "completions"}
Holds = Callable[[Peer, str], bool | Found]


@dataclass(frozen=True)
class Check:
    """One field of one kind of completion."""

    kind: str
    field: str
    holds: Holds
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kind}-{self.field}{'-' if self.note else ''}{self.note}".replace(" ", "_")

    def run(self, peer: Peer) -> Found:
        """See what the server makes of the field."""
        try:
            found = self.holds(peer, self.kind)
        except Refused as error:
            if error.status in (400, 422) and self.field.split(".")[0] in error.text:
                return Found("refused")
            return Found("wrong", str(error))
        except (KeyError, IndexError, TypeError, ValueError, httpx.HTTPError) as error:
            return Found("wrong", f"{type(error).__name__}: {error}")
        if isinstance(found, Found):
            return found
        return Found("honoured") if found else Found("ignored")


def text_of(answer: Body, choice: int = 0) -> str:
    """What a choice says."""
    found = answer["choices"][choice]
    return found["message"]["content"] if "message" in found else found["text"]


def text(peer: Peer, kind: str, **fields: Any) -> str:
    """What the first choice says."""
    return text_of(peer.ask(kind, **fields))


def said(chunks: list[Body]) -> str:
    """The text of a stream's first choice."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if not choice["index"]]
    parts = [c["delta"].get("content") if "delta" in c else c.get("text") for c in choices]
    return "".join(part or "" for part in parts)


def right(holds: bool, detail: str) -> Found:
    """Honoured, or wrong and why."""
    return Found("honoured") if holds else Found("wrong", detail)


# Sampling


def temperature(peer: Peer, kind: str) -> bool:
    """0 is greedy whatever the seed; 2 is not."""
    cold = {text(peer, kind, seed=seed) for seed in (1, 2, 3)}
    hot = {text(peer, kind, temperature=2.0, seed=seed) for seed in (1, 2, 3)}
    return len(cold) == 1 and len(hot) == 3


def is_greedy(name: str, value: float) -> Holds:
    """A value at which even a hot draw takes the likeliest token."""

    def holds(peer: Peer, kind: str) -> bool:
        hot: Body = {"temperature": 2.0, "seed": 7}
        narrow = text(peer, kind, **hot, **{name: value})
        return narrow == text(peer, kind) != text(peer, kind, **hot)

    return holds


def seed(peer: Peer, kind: str) -> bool:
    """The same seed repeats, another does not."""
    draws = [text(peer, kind, temperature=1.5, seed=seed) for seed in (11, 11, 12)]
    return draws[0] == draws[1] != draws[2]


def changes(name: str, value: Any, neutral: Any = None, tokens: int = 60) -> Holds:
    """A value that changes a greedy reply."""

    def holds(peer: Peer, kind: str) -> bool:
        long: Body = {"max_tokens": tokens}
        return text(peer, kind, **long, **{name: value}) != text(
            peer, kind, **long, **{name: neutral}
        )

    return holds


def penalise_prompt(peer: Peer, kind: str) -> bool:
    """The prompt's tokens become unlikely, or do not."""
    fields: Body = {"repetition_penalty": 3.0, "max_tokens": 60}
    counted = text(peer, kind, penalise_prompt=True, **fields)
    return counted != text(peer, kind, penalise_prompt=False, **fields)


def n(peer: Peer, kind: str) -> bool:
    """Several choices, which differ when they are drawn."""
    answer = peer.ask(kind, n=3, temperature=1.5)
    return (
        sorted(choice["index"] for choice in answer["choices"]) == [0, 1, 2]
        and len({text_of(answer, choice) for choice in range(3)}) > 1
    )


# Where a reply ends


def stop(peer: Peer, kind: str, several: bool = False) -> bool | Found:
    """The reply ends before the text, and the reason is stop."""
    whole = text(peer, kind)
    cut = next(whole[i : i + 3] for i in range(4, len(whole)) if whole[i : i + 3].isascii())
    answer = peer.ask(kind, stop=["@@never@@", cut] if several else cut)
    if text_of(answer) == whole:
        return False
    return right(
        text_of(answer) == whole[: whole.find(cut)]
        and answer["choices"][0]["finish_reason"] == "stop",
        f"{text_of(answer)!r} for {whole!r} cut at {cut!r}",
    )


def several_stops(peer: Peer, kind: str) -> bool | Found:
    """A list of texts."""
    return stop(peer, kind, several=True)


def bounds(name: str) -> Holds:
    """A number of tokens, and the reason is length."""

    def holds(peer: Peer, kind: str) -> bool | Found:
        answer = peer.ask(kind, **({"max_tokens": None} | {name: 3}))
        if answer["usage"]["completion_tokens"] > 3:
            return False
        reason = answer["choices"][0]["finish_reason"]
        return right(reason == "length", f"finish_reason is {reason!r} at the bound")

    return holds


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
    """Tokens of a dialogue."""
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


# What may be refused


def nothing_shows(name: str, value: Any) -> Holds:
    """A field whose effect would show in no answer of a text model: taken, it is ignored."""

    def holds(peer: Peer, kind: str) -> bool:
        peer.ask(kind, **{name: value})
        return False

    return holds


def taken(name: str, value: Any) -> Holds:
    """A field that only informs the server: taking it is honouring it."""

    def holds(peer: Peer, kind: str) -> bool:
        return bool(peer.ask(kind, **{name: value}))

    return holds


def json_object(peer: Peer, kind: str) -> bool:
    """The reply is JSON."""
    try:
        json.loads(text(peer, kind, response_format={"type": "json_object"}, max_tokens=200))
    except json.JSONDecodeError:
        return False
    return True


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}


def tools(peer: Peer, kind: str) -> bool:
    """A tool that must be called is called."""
    answer = peer.ask(kind, tools=[TOOL], tool_choice="required", max_tokens=100)
    return bool(answer["choices"][0]["message"].get("tool_calls"))


def logit_bias(peer: Peer, kind: str) -> bool:
    """A biased token is all that is said."""
    return text(peer, kind, logit_bias={"5": 100}) != text(peer, kind)


def best_of(peer: Peer, kind: str) -> bool:
    """More is generated than is told."""
    told = peer.ask(kind, best_of=4, temperature=1.5)["usage"]["completion_tokens"]
    return told > peer.ask(kind)["usage"]["completion_tokens"]


def suffix(peer: Peer, kind: str) -> bool:
    """What follows the text is read."""
    plain = peer.ask(kind)["usage"]["prompt_tokens"]
    return peer.ask(kind, suffix=" and it lies on the Seine.")["usage"]["prompt_tokens"] > plain


# What must be refused


def status(peer: Peer, kind: str, expected: int, **fields: Any) -> Found:
    """A request that must be refused with a status, in OpenAI's shape."""
    response = peer.post(PATHS[kind], peer.body(kind, **fields))
    if response.status_code != expected:
        return Found("wrong", f"{response.status_code}: {response.text[:100]}")
    shape = response.json().get("error")
    if not (isinstance(shape, dict) and shape.get("message")):
        return Found("wrong", f"no OpenAI error: {response.text[:100]}")
    return Found("refused")


def overflow(peer: Peer, kind: str) -> Found:
    """A prompt beyond the context is 400, not an answer to something else."""
    long = "word " * 150_000
    if kind == "chat":
        return status(peer, kind, 400, messages=[{"role": "user", "content": long}])
    return status(peer, kind, 400, prompt=long)


def unknown_model(peer: Peer, kind: str) -> Found:
    """404."""
    return status(peer, kind, 404, model="surely-no-such-model")


def out_of_range(name: str, value: Any) -> Holds:
    """A value outside the field's range is 400."""
    return lambda peer, kind: status(peer, kind, 400, **{name: value})


BOTH: list[tuple[str, Holds, str]] = [
    ("temperature", temperature, ""),
    ("temperature", out_of_range("temperature", -1), "negative"),
    ("top_p", is_greedy("top_p", 1e-6), ""),
    ("top_p", out_of_range("top_p", 1.5), "over 1"),
    ("top_k", is_greedy("top_k", 1), ""),
    ("min_p", is_greedy("min_p", 1.0), ""),
    ("seed", seed, ""),
    ("repetition_penalty", changes("repetition_penalty", 3.0, 1.0), ""),
    ("penalise_prompt", penalise_prompt, ""),
    ("frequency_penalty", changes("frequency_penalty", 2.0), ""),
    ("presence_penalty", changes("presence_penalty", 2.0), ""),
    ("logit_bias", logit_bias, ""),
    ("n", n, ""),
    ("n", out_of_range("n", 0), "zero"),
    ("stop", stop, ""),
    ("stop", several_stops, "several"),
    ("max_tokens", bounds("max_tokens"), ""),
    ("max_tokens", out_of_range("max_tokens", -5), "negative"),
    ("logprobs", logprobs, ""),
    ("top_logprobs", top_logprobs, ""),
    ("stream", stream, ""),
    ("stream_options", include_usage, "include_usage"),
    ("return_token_ids", return_token_ids, ""),
    ("user", taken("user", "somebody"), ""),
    ("model", unknown_model, "unknown"),
    ("context", overflow, "too long"),
    ("surely_no_such_field", nothing_shows("surely_no_such_field", 1), ""),
]
CHAT: list[tuple[str, Holds, str]] = [
    ("max_completion_tokens", bounds("max_completion_tokens"), ""),
    ("messages", first_role("system"), "system"),
    ("messages", first_role("developer"), "developer"),
    ("messages", dialogue, "dialogue"),
    ("messages", content_parts, "parts"),
    ("messages", image, "image"),
    ("messages", out_of_range("messages", []), "none"),
    ("response_format", json_object, ""),
    ("tools", tools, ""),
    ("functions", nothing_shows("functions", [TOOL["function"]]), ""),
    ("modalities", nothing_shows("modalities", ["text", "audio"]), ""),
    ("audio", nothing_shows("audio", {"voice": "ash", "format": "wav"}), ""),
    ("prediction", nothing_shows("prediction", {"type": "content", "content": "Paris"}), ""),
    ("reasoning_effort", nothing_shows("reasoning_effort", "high"), ""),
    ("verbosity", nothing_shows("verbosity", "low"), ""),
    ("web_search_options", nothing_shows("web_search_options", {}), ""),
    ("service_tier", nothing_shows("service_tier", "priority"), ""),
    ("store", nothing_shows("store", True), ""),
    ("metadata", nothing_shows("metadata", {"a": "b"}), ""),
    ("prompt_cache_key", nothing_shows("prompt_cache_key", "a"), ""),
    ("safety_identifier", nothing_shows("safety_identifier", "a"), ""),
]
COMPLETIONS: list[tuple[str, Holds, str]] = [
    ("prompt", several_prompts, "several"),
    ("prompt", token_prompt, "ids"),
    ("prompt", token_prompts, "several of ids"),
    ("echo", echo, ""),
    ("best_of", best_of, ""),
    ("suffix", suffix, ""),
]
CHECKS = [
    *(Check("chat", *row) for row in BOTH + CHAT),
    *(Check("completions", *row) for row in BOTH + COMPLETIONS),
]


def main(url: str, model: str, key: str | None = None) -> None:
    """Print what a server makes of each field.

    Args:
        url: with the version, such as http://127.0.0.1:8000/v1.
        model: a name that the server lists.
        key: its API key.
    """
    peer, console = Peer(url, model, key), Console()
    table = Table("", "field", "verdict", "what came back", title=f"{model} at {url}")
    counts: dict[Verdict, int] = {"honoured": 0, "refused": 0, "ignored": 0, "wrong": 0}
    for check in CHECKS:
        found = check.run(peer)
        counts[found.verdict] += 1
        colour = COLOURS[found.verdict]
        name = f"{check.field} ({check.note})" if check.note else check.field
        verdict = f"[{colour}]{found.verdict}[/{colour}]"
        table.add_row(check.kind, name, verdict, found.detail[:90].replace("[", "\\["))
    console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(bool(counts["ignored"] or counts["wrong"]))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
