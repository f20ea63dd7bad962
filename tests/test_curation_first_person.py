"""The first person: the writer's `I` and `my`, not numerals, letters and mines."""

import pytest

from lima_ray.curation.filters import no_first_person

WRITERS = [
    "I think so.",
    "So do I.",
    "As far as I'm concerned, no.",
    "You and I know it (I did).",
    "What I, however, prefer is another one.",
    "The part I like is the end.",
    "the type I use; the class I took",
    "Type I errors matter, and I say so.",
    "It is about Henry. I think he was king.",
    "With Charles I agree.",
    "In Part I I used flour.",
    "The song “I Remember”, and Henry I'm sure of.",
    "Than I. More of it.",
    "Ask my friend.",
    "Mine is better than the other mine.",
    "Tell me.",
    "I.", "Serial I/O, I hear, is slow.",
    "I/you may do it.",
    "If I and Volker go, it works.",
    "I - and only this one - know.",
    "Well... I do.",
]  # fmt: skip
OTHERS = [
    "A Type I error is a false positive; type I errors cost more.",
    "Type I and Type II errors; phase I, phase II.",
    "Serial I/O is slow.",
    "See Part I.",
    "World War I began in 1914. After World War I was over, others followed.",
    "Henry I was king of England, and Elizabeth I had no heir.",
    "Chapter I, Subchapter II.",
    "I.E. Burton ale, or i.e. Pilsner, R.I.P.",
    "In Ohm's law V = I R the current is I = V/R.",
    "Cu(I) and an I-beam, a type-I seesaw, I–IV–V.",
    'The letter I, the letter "I", two I\'s.',
    "I. Introduction\n  II. Rules\n",
    "I) one\nII) two",
    "Volumes I and II, books I to III.",
    "A coal mine, the mine shaft and a minefield.",
    "An index i, AI, MySQL, the myth of Time.",
    "Factor I deficiency; Apollo I.",
]


@pytest.mark.parametrize("text", WRITERS)
def test_a_writer_who_speaks_of_themselves_is_found(text: str) -> None:
    result = no_first_person(text)
    assert result is not True and result[1].startswith("...")


@pytest.mark.parametrize("text", OTHERS)
def test_numerals_letters_and_mines_are_nobodys_speech(text: str) -> None:
    assert no_first_person(text) is True
