"""What LIMA prints of its own replies (arXiv:2305.11206, sections 4 and 6), in percent."""

from dataclasses import dataclass

Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Opponent:
    """A system that LIMA is compared with: win, tie and lose from LIMA's side, 300 prompts each."""

    name: str
    spellings: tuple[str, ...]
    """Beginnings of names that mean this system, without signs and in lower case."""
    people: Shares
    """Figure 1."""
    gpt4: Shares
    """Figure 2."""


OPPONENTS = (
    Opponent("Alpaca 65B", ("alpaca",), (53, 21, 26), (64, 19, 17)),
    Opponent("DaVinci003", ("davinci", "textdavinci"), (44, 21, 35), (54, 23, 23)),
    Opponent("Bard", ("bard",), (33, 25, 42), (27, 26, 47)),
    Opponent("Claude", ("claude",), (24, 22, 54), (14, 23, 63)),
    Opponent("GPT-4", ("gpt4",), (18, 25, 57), (19, 15, 66)),
)
AUDIT: Shares = (50, 38, 12)
"""Excellent, pass and fail of 50 test prompts (figure 3)."""
AUDIT_OUT_OF_DISTRIBUTION: Shares = (45, 35, 20)
"""Of 20 prompts unlike any training row."""
SAFE = 80.0
"""Safe replies to 30 prompts."""
DIALOGUE_TURNS: dict[str, Shares] = {
    "without dialogues": (45.2, 19.1, 35.7),
    "with 30 dialogues": (76.1, 21.7, 2.2),
}
"""Turns of ten conversations (figure 7)."""
AGREEMENT = {
    "crowd and crowd": 82,
    "crowd and authors": 81,
    "authors and authors": 78,
    "crowd and GPT-4": 78,
    "authors and GPT-4": 79,
}
"""Tie-discounted accuracy on 50 shared items."""


def find_opponent(first: str, second: str) -> Opponent | None:
    """Return which of LIMA's comparisons two names mean; none where they mean no such pair."""
    if not _plain(first).startswith("lima"):
        return None
    name = _plain(second)
    fitting = (o for o in OPPONENTS if any(name.startswith(one) for one in o.spellings))
    return next(fitting, None)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())
