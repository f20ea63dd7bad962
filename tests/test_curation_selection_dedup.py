"""Duplicates, beside a plain comparison of all pairs."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from lima_ray.curation.recipe import load_curation
from lima_ray.curation.selection.dedup import PERMUTATIONS, Deduplicator, split_words, word_ngrams


def jaccard(one: set[str], other: set[str]) -> float:
    """Return the exact similarity of two sets."""
    return len(one & other) / len(one | other) if one | other else 0


def generated(seed: int, originals: int, copies: int) -> list[str]:
    """Return texts of 10 to 5,000 words, and copies with some words exchanged."""
    draw = random.Random(seed)
    words = [f"word{number}" for number in range(3000)]
    texts = []
    for number in range(originals):
        length = round(10 * 500 ** (number / (originals - 1)))
        original = draw.choices(words, k=length)
        texts.append(original)
        for _ in range(copies):
            share = draw.uniform(0, 0.25)
            texts.append([draw.choice(words) if draw.random() < share else w for w in original])
    draw.shuffle(texts)
    return [" ".join(text) for text in texts]


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(threshold: float) -> None:
    texts = generated(seed=3, originals=16, copies=5)
    sets = [set(word_ngrams(text.split(), 5)) for text in texts]
    # Hoeffding: an estimate of 128 hashes is off by more than this once in 10 ** 4 pairs. The index
    # misses at most one pair in 100 at the threshold, and far fewer above it.
    margin = math.sqrt(math.log(2e4) / (2 * PERMUTATIONS))
    deduplicator, kept, found, missed = Deduplicator(threshold), list[int](), 0, 0
    for number, text in enumerate(texts):
        earlier = deduplicator.earlier(str(number), text)
        similar = {k: jaccard(sets[number], sets[k]) for k in kept}
        if earlier is None:
            missed += max(similar.values(), default=0) >= threshold + margin
            kept.append(number)
        else:
            kind, id = earlier
            assert kind == ("duplicate" if texts[int(id)] == text else "near_duplicate")
            assert similar[int(id)] >= threshold - margin
            found += 1
    assert found and len(kept) > 16 and missed <= 1


def test_equal_texts_are_found_whatever_their_case_and_white_space() -> None:
    deduplicator = Deduplicator(1)
    assert deduplicator.earlier("a", "Why so?\nBecause  it is") is None
    assert deduplicator.earlier("b", "why so? because it IS\n") == ("duplicate", "a")
    assert deduplicator.earlier("c", "Why so? Because it is.") is None
    assert deduplicator.earlier("d", "why so? because it is.") == ("duplicate", "c")


def test_a_threshold_of_one_keeps_what_is_nearly_equal() -> None:
    long = " ".join(map(str, range(500)))
    for threshold, found in ((1, None), (0.9, ("near_duplicate", "a"))):
        deduplicator = Deduplicator(threshold)
        assert deduplicator.earlier("a", long) is None
        assert deduplicator.earlier("b", f"{long} more") == found


def test_few_words_are_compared_as_a_whole_alone() -> None:
    deduplicator = Deduplicator(0.1)
    assert deduplicator.earlier("a", "one two three four") is None
    assert deduplicator.earlier("b", "one two three") is None
    assert deduplicator.earlier("c", "One two three") == ("duplicate", "b")
    assert deduplicator.earlier("d", "") is None
    assert deduplicator.earlier("e", "  \n") == ("duplicate", "d")
    assert deduplicator.earlier("f", "one two three four five") is None
    assert deduplicator.earlier("g", "one, two: three (four) five!") == ("near_duplicate", "f")


def test_a_repetition_is_not_remembered_and_the_most_similar_row_is_named() -> None:
    words = [str(number) for number in range(100)]
    half = [*words[:50], *(f"x{word}" for word in words[50:])]
    most = [*words[:90], *(f"y{word}" for word in words[90:])]
    deduplicator = Deduplicator(0.2)
    for id, text in (("half", half), ("far", ["z", *words[::-1]])):
        assert deduplicator.earlier(id, " ".join(text)) is None
    assert deduplicator.earlier("most", " ".join(most)) == ("near_duplicate", "half")
    # Nearer to `most`, which was not kept.
    assert deduplicator.earlier("all", " ".join(words)) == ("near_duplicate", "half")
    strict = Deduplicator(0.5)
    for id, text in (("half", half), ("most", most)):
        assert strict.earlier(id, " ".join(text)) is None
    assert strict.earlier("all", " ".join(words)) == ("near_duplicate", "most")


def test_broken_characters_are_compared_too() -> None:
    deduplicator = Deduplicator(0.7)
    text = "\ud800 is half a character, as broken JSON has it"
    assert deduplicator.earlier("a", text) is None
    assert deduplicator.earlier("b", f" {text}") == ("duplicate", "a")


def test_another_process_finds_the_same() -> None:
    said = (
        "from test_curation_selection_dedup import Deduplicator, generated\n"
        "one = Deduplicator(0.7)\n"
        "print([one.earlier(str(n), t) for n, t in enumerate(generated(5, 20, 4))])"
    )
    here = Deduplicator(0.7)
    found = [here.earlier(str(n), t) for n, t in enumerate(generated(5, 20, 4))]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests')\n{said}"]
    root = Path(__file__).parents[1]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert there.strip() == str(found) and any(found)


def test_words_have_no_case_punctuation_or_accent_form() -> None:
    assert split_words("**Don't** `use_it`, cafe\u0301’s _ﬁne_\n") == split_words(
        "dont use it caf\u00e9s fine"
    )


def test_a_similarity_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the threshold is 0"):
        Deduplicator(0)
    recipe = tmp_path / "all.yaml"
    recipe.write_text("sources: {a: {kind: wikihow, path: a.csv}}\nnear_duplicates: 0\n")
    with pytest.raises(UserError, match="near_duplicates"):
        load_curation(str(recipe))
