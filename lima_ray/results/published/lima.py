"""What LIMA prints of its training data and its replies (arXiv:2305.11206, sections 2, 4 and 6)."""

from dataclasses import dataclass

import numpy as np

Shares = tuple[float, float, float]
"""In percent."""


@dataclass(frozen=True)
class TrainingSource:
    """One source of the training data."""

    rows: int
    prompt_tokens: int
    """Mean."""
    reply_tokens: int
    """Mean."""


TABLE_1 = {
    "Stack Exchange (STEM)": TrainingSource(200, 117, 523),
    "Stack Exchange (other)": TrainingSource(200, 119, 530),
    "wikiHow": TrainingSource(200, 12, 1811),
    "Pushshift r/WritingPrompts": TrainingSource(150, 34, 274),
    "Super-NaturalInstructions": TrainingSource(50, 236, 92),
    "authored, group A": TrainingSource(200, 40, 334),
}
TRAINING_ROWS, TRAINING_TOKENS = 1000, 750_000
"""Of all sources; the tokens about."""


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


def draw_lengths() -> tuple[np.ndarray, np.ndarray]:
    """Draw tokens of the prompt and of the reply of each training row, with table 1's means."""
    generator = np.random.default_rng(0)
    sizes = [
        [int(generator.gamma(2.0, mean / 2)) + 1 for mean in (one.prompt_tokens, one.reply_tokens)]
        for one in TABLE_1.values()
        for _ in range(one.rows)
    ]
    prompts_R, replies_R = np.array(sizes).T
    return prompts_R, replies_R


def find_opponent(first: str, second: str) -> Opponent | None:
    """Return which of LIMA's comparisons two names mean; none where they mean no such pair."""
    if not _plain(first).startswith("lima"):
        return None
    name = _plain(second)
    fitting = (o for o in OPPONENTS if any(name.startswith(one) for one in o.spellings))
    return next(fitting, None)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())
