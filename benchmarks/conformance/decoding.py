"""Checks of the fields that say how a reply is drawn, and where it ends."""

from typing import Any

from benchmarks.conformance.peer import Body, Found, Holds, Peer, right, text, text_of

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
    return stop(peer, kind, several=True)


def bounds(name: str) -> Holds:
    def holds(peer: Peer, kind: str) -> bool | Found:
        answer = peer.ask(kind, **({"max_tokens": None} | {name: 3}))
        if answer["usage"]["completion_tokens"] > 3:
            return False
        reason = answer["choices"][0]["finish_reason"]
        return right(reason == "length", f"finish_reason is {reason!r} at the bound")

    return holds
