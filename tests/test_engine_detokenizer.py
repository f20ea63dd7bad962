"""A reply's text in pieces: equal to the whole, never taken back, cut before a stop string."""

import random
from typing import Any

import pytest
from bases import BASES

from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.engine.detokenizer import Detokenizer


@pytest.fixture(scope="module", params=BASES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("tokenizer")
    BASES[request.param]().save_pretrained(path)
    return load_tokenizer(str(path))


def pieces(tokenizer: Any, tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Any]:
    """The pieces of a text, and the text's state at its end."""
    text = Detokenizer(tokenizer, stop)
    found = []
    for token in tokens:
        found.append(text.add(token))
        if text.stopped_by is not None:
            break
    return [*found, text.finish()], text


def test_pieces_join_to_the_decoded_text_of_any_tokens(tokenizer: Any) -> None:
    generator = random.Random(0)
    for _ in range(400):
        tokens = generator.choices(range(len(tokenizer)), k=generator.randrange(1, 40))
        parts, _ = pieces(tokenizer, tokens)
        assert "".join(parts) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_characters_of_several_tokens_come_whole(tokenizer: Any) -> None:
    said = "the cat 日本語 🦙 reads é, the sun"
    tokens = tokenizer(said, add_special_tokens=False).input_ids
    assert len(tokens) > len(said.split())
    parts, _ = pieces(tokenizer, tokens)
    assert "".join(parts) == tokenizer.decode(tokens, skip_special_tokens=True)
    assert not any("\ufffd" in part for part in parts)
    assert sum(map(bool, parts)) > 5


@pytest.mark.parametrize(
    ("stop", "expected", "by"),
    [
        (("sun",), "the cat reads, the ", "sun"),
        (("the sun writes", "the sun"), "the cat reads, ", "the sun"),
        (("xyz", "reads,"), "the cat ", "reads,"),
        (("writes!", "suns"), "the cat reads, the sun writes", None),
        (("writes?",), "the cat reads, the sun writes", None),
        (("t",), "", "t"),
    ],
)
def test_a_stop_string_ends_the_text_before_itself(
    tokenizer: Any, stop: tuple[str, ...], expected: str, by: str | None
) -> None:
    tokens = tokenizer("the cat reads, the sun writes", add_special_tokens=False).input_ids
    parts, text = pieces(tokenizer, tokens, stop)
    assert ("".join(parts), text.stopped_by) == (expected, by)
    assert text.add(tokens[0]) == "" or by is None


def test_stop_strings_are_found_wherever_tokens_end(tokenizer: Any) -> None:
    generator = random.Random(1)
    for _ in range(300):
        tokens = generator.choices(range(len(tokenizer)), k=30)
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        if len(whole) < 6:
            continue
        place = generator.randrange(len(whole) - 3)
        stop = whole[place : place + generator.randrange(1, 4)]
        parts, text = pieces(tokenizer, tokens, (stop, "never this"))
        assert "".join(parts) == whole[: whole.index(stop)]
        assert text.stopped_by == stop
