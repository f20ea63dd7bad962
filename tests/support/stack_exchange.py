"""Dumps of Stack Exchange sites as they are published, made for tests."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from xml.sax.saxutils import escape

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
END = "</posts>"
WORDS = (
    *("water", "beer", "yeast", "the", "of", "a", "glass", "is", "foam", "hop", "malt", "warm"),
    *("&", "<b>hot</b>", "ünïcode", "“so”", "𝄞"),
)
DATES = (*["2015-01-01T01:02:03.004"] * 4, "2022-11-30T00:00:00.000")
TRAPS = ("I think so", "my own", "as mentioned there", "@brewer said", "i.e. so", "an I.e. more")


def row(**attributes: object) -> str:
    """Return a row's line; an attribute of `None` is absent."""
    said = "".join(
        f' {name}="{quoted(value)}"' for name, value in attributes.items() if value is not None
    )
    return f"  <row{said} />"


def quoted(value: object) -> str:
    """Return an attribute as the dumps write it, its line ends as references."""
    return escape(str(value), {'"': "&quot;", "\n": "&#xA;", "\r": "&#xD;", "\t": "&#x9;"})


def question(id: int, **more: object) -> str:
    """Return a question's row."""
    base = {"Id": id, "PostTypeId": 1, "CreationDate": "2014-01-21T20:26:05.383", "Score": 5}
    base |= {"ViewCount": 9, "Body": f"<p>Why is beer {id} flat?</p>", "OwnerUserId": 7}
    base |= {"Title": f"Flat beer {id}", "Tags": "<foam><hop>", "AnswerCount": 1}
    return row(**base | {"ContentLicense": "CC BY-SA 3.0"} | more)


def answer(id: int, parent: int, **more: object) -> str:
    """Return an answer's row, which the paper's rule keeps."""
    base = {"Id": id, "PostTypeId": 2, "ParentId": parent, "Score": 12}
    base |= {"CreationDate": "2014-01-22T08:00:00.000", "OwnerUserId": 8}
    base |= {"Body": "<p>" + "The yeast makes the foam. " * 60 + "</p>"}
    return row(**base | {"ContentLicense": "CC BY-SA 3.0"} | more)


def dump(rows: Sequence[str], head: str = HEAD, end: str = END, newline: str = "\n") -> bytes:
    """Return a Posts.xml."""
    return (head + "".join(f"{line}\n" for line in rows) + end).replace("\n", newline).encode()


def shuffled(draw: random.Random, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return attributes in any order."""
    names = list(attributes)
    draw.shuffle(names)
    return {name: attributes[name] for name in names}


USUAL = ("Id", "PostTypeId", "ParentId", "CreationDate", "Score")


def in_usual_order(attributes: Mapping[str, object]) -> dict[str, object]:
    """Return attributes as the dumps begin."""
    first = {name: attributes[name] for name in USUAL if name in attributes}
    return first | dict(attributes)


def random_body(draw: random.Random, chars: int) -> str:
    """Return HTML of about so many characters, which may hold what a filter looks for."""
    words = [draw.choice(WORDS) for _ in range(max(1, chars // 5))]
    if draw.random() < 0.5:
        words.insert(draw.randrange(len(words)), draw.choice(TRAPS))
    if draw.random() < 0.2:
        words.append('<pre class="lang-py"><code>I = my("x") if a &lt; b</code></pre>\r\n')
    if draw.random() < 0.2:
        words.append(' PostTypeId="2" Score="99" Id="1" <row AnswerCount="0"')
    return "<p>" + " ".join(words) + "</p>\n"


def random_rows(draw: random.Random, questions: int, usual: bool = False) -> list[str]:
    """Return questions and answers in any order, of any scores, with attributes in any order.

    Args:
        draw: of all that is random.
        questions: how many.
        usual: attributes in the order of the dumps.
    """
    rows, next_id = [], 1
    order = in_usual_order if usual else partial(shuffled, draw)
    for _ in range(questions):
        parent, count = next_id, draw.choice([0, 1, 1, 2, 3])
        body, absent = random_body(draw, 200), draw.random() < 0.1
        base = {"Id": parent, "PostTypeId": 1, "Score": draw.randint(-5, 40), "Title": body[:30]}
        base |= {"Body": body, "AnswerCount": None if absent else count, "Tags": "|a|b|"}
        base |= {"CreationDate": "2013-05-01T00:00:00.000", "OwnerDisplayName": 'a "b" c'}
        rows.append(row(**order(base)))
        for id in range(parent + 1, parent + 1 + count):
            base = {"Id": id, "PostTypeId": 2, "ParentId": parent, "Score": draw.randint(-3, 25)}
            base |= {"Body": random_body(draw, draw.choice([300, 1500, 2500, 2500, 3000, 5000]))}
            base |= {"CreationDate": draw.choice(DATES)}
            base |= {"OwnerUserId": draw.choice([None, 5, -2, -1])}
            rows.append(row(**order(base)))
        next_id = parent + 1 + count
        if draw.random() < 0.1:
            rows.append(
                row(Id=900_000 + parent, PostTypeId=draw.randint(3, 7), Score=99, Body=body)
            )
    draw.shuffle(rows)
    return rows
