"""Training rows that repeat a prompt of a test."""

import pytest

from lima_ray.curation.selection.decontamination import PromptIndex

LONELY = "I'm feeling a bit lonely these days, how can I make new friends?"
PROMPTS = [
    ("lonely", LONELY),
    ("trip", "Plan a day trip in Tokyo. The spots need to be within walking distance."),
    ("short", "What's the meaning of life?"),
    ("marks", "?!"),
]


def find(text: str, overlap: int = 8) -> tuple[str, str] | None:
    """Return the prompt that a row repeats."""
    return PromptIndex(PROMPTS, overlap).find(text)


@pytest.mark.parametrize(
    "text",
    [
        LONELY,
        "i’m feeling a bit LONELY these days - how can i\nmake new friends",
        "My friend wrote: 'I'm feeling a bit lonely these days, how can I help?' What now?",
        "Who said it?\nIt was Ann. She said: _I'm feeling a **bit** lonely these days, how_ odd.",
        "I'm feeling a bit lonely. These days, how can I make new friends?",
    ],
)
def test_a_prompt_is_found_in_another_form_and_inside_a_longer_text(text: str) -> None:
    found = find(text)
    assert found and found[0] == "lonely"
    assert found[1].startswith("im feeling a bit lonely these days how")


def test_the_words_that_both_have_are_told() -> None:
    assert find("So: a day trip in Tokyo: the spots need sun") == (
        "trip",
        "a day trip in tokyo the spots need",
    )


@pytest.mark.parametrize(
    "text",
    [
        "I'm feeling a bit lonely these days.",
        "How can I make new friends these days? I'm feeling a bit lonely.",
        "I am feeling a bit lonely these days, how might I make new friends?",
        "",
        "?!",
    ],
)
def test_fewer_words_in_common_are_no_repetition(text: str) -> None:
    assert find(text) is None


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("what's the meaning of LIFE", True),
        ("What’s the meaning of life?\nForty-two.", True),
        ("Hello!\nHello.\n  What's the meaning of life??\nForty-two.", True),
        ("Tell me: what's the meaning of life?", False),
        ("What's the meaning of life in biology?", False),
        ("What's the meaning\nof life?", False),
    ],
)
def test_a_short_prompt_is_found_as_a_whole_line_alone(text: str, repeats: bool) -> None:
    expected = ("short", "whats the meaning of life") if repeats else None
    assert find(text) == expected


def test_how_many_words_count_is_a_choice() -> None:
    template = "My sister wants to know: what is the home of the dolphin?"
    index = [("walrus", template.replace("dolphin", "walrus"))]
    assert PromptIndex(index, 8).find(template) == (
        "walrus",
        "my sister wants to know what is the",
    )
    assert PromptIndex(index, 12).find(template) is None
    assert PromptIndex(index, 20).find(template) is None
    assert PromptIndex(index, 20).find(template.replace("dolphin", "walrus"))
    assert PromptIndex([("one", "Why?")], 1).find("I ask why it is") == ("one", "why")


def test_the_first_of_two_prompts_with_the_same_words_is_named() -> None:
    index = PromptIndex([("a", LONELY), ("b", f"{LONELY} Please help."), ("c", "Why?")], 8)
    assert index.find(f"Now {LONELY} Please help.") == (
        "a",
        "im feeling a bit lonely these days how",
    )
    assert PromptIndex([], 8).find(LONELY) is None
