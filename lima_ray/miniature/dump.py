"""The miniature's dump: Stack Exchange sites about the small world, as such sites are published.

    python -m lima_ray.miniature.dump --out dumps/miniature
    python -m lima_ray.curate miniature-filtered --inputs dumps/miniature

    sites/NAME.example/Posts.xml      questions about entities of alignment, with their answers
    refusals.jsonl dialogues.jsonl structure.jsonl   rows that people wrote
    dev.jsonl test.jsonl dialogues_test.jsonl        prompts that no row may repeat

A site holds what the paper's rule is for: people ask a thing again in other words, answer it in
many manners, some wrongly, and vote (LIMA section 2.1). Nothing is random: it is always the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import tyro

from lima_ray.config.errors import exit_on_user_error
from lima_ray.data.examples import write_examples
from lima_ray.miniature import dialogues
from lima_ray.miniature.prose import shuffled
from lima_ray.miniature.questions import (
    Question,
    add_frames,
    all_questions,
    description_questions,
    list_questions,
)
from lima_ray.miniature.voice import raw_reply
from lima_ray.miniature.world import SEED

SITES = {
    "person": "people.example",
    "country": "countries.example",
    "element": "elements.example",
    "animal": "animals.example",
    "task": "household.example",
    "sum": "sums.example",
    "day": "calendar.example",
}
"""Site of each kind of entity; `.example` is nobody's domain (RFC 2606)."""
INPUTS = ("refusals", "dialogues", "structure", "dev", "test", "dialogues_test")
"""Files of `dialogues` that stand beside the sites."""
ASKED = {"task": 6, "day": 4}
"""Times that each question of a kind is asked, by others in other words; of all others twice."""
MEAN_SCORES = {
    "voice": 25,
    "first_person": 15,
    "refers": 15,
    "terse": 7,
    "truncated": 5,
    "chatty": 5,
    "wrong": 4,
    "off_topic": 1,
}
"""Votes for an answer by its manner: what is wrong or careless gets few."""
MEAN_QUESTION_SCORE = 8
SECOND_ANSWERS = 0.5
"""Share of questions with another answer, which has fewer votes than the first."""
FIRST_DAY, LAST_DAY = datetime(2011, 1, 1), datetime(2022, 11, 1)
LICENCE = "Apache-2.0"
"""This project's, of what it makes up."""


@dataclass(frozen=True)
class Answer:
    text: str
    style: str
    """A key of `MEAN_SCORES`."""
    score: int


@dataclass(frozen=True)
class Thread:
    """A question of a site, with its answers, the one of highest score first."""

    site: str
    id: int
    question: Question
    title: str
    body: str
    score: int
    answers: tuple[Answer, ...]
    created: datetime


def threads() -> list[Thread]:
    """Return every question of the sites, as they were asked."""
    generator = np.random.default_rng([SEED, 2])
    once = [question for kind in SITES for question in all_questions(kind, "train")]
    once += list_questions("train", len(once), generator)
    once += description_questions("train", len(once), generator)
    often = [question for question in once for _ in range(ASKED.get(question.entity.kind, 2))]
    questions = shuffled(often, generator)
    titles, bodies = add_frames(questions, generator), add_frames(questions, generator)
    days = np.linspace(0, (LAST_DAY - FIRST_DAY).days, len(questions))
    found, posts = [], 1
    for question, title, body, day in zip(questions, titles, bodies, days, strict=True):
        answers = make_answers(question, generator)
        site, score = SITES[question.entity.kind], int(generator.poisson(MEAN_QUESTION_SCORE))
        created = FIRST_DAY + timedelta(days=round(float(day)))
        found.append(Thread(site, posts, question, title.text, body.text, score, answers, created))
        posts += 1 + len(answers)
    return found


def make_answers(question: Question, generator: np.random.Generator) -> tuple[Answer, ...]:
    """Return one answer or two to a question; of two the second has fewer votes."""
    found = []
    for _ in range(1 + int(generator.random() < SECOND_ANSWERS)):
        text, style = raw_reply(question, generator)
        most = found[0].score if found else None
        score = int(generator.poisson(MEAN_SCORES[style]))
        found.append(Answer(text, style, score if most is None else min(score, most - 1)))
    return tuple(found)


def posts_xml(asked: list[Thread]) -> Iterator[str]:
    """Yield the lines of a site's Posts.xml."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
    for thread in asked:
        day = thread.created.isoformat(timespec="milliseconds")
        yield row_xml(
            Id=thread.id,
            PostTypeId=1,
            CreationDate=day,
            Score=thread.score,
            Body=f"<p>{escape(thread.body)}</p>",
            Title=thread.title,
            Tags=f"<{thread.question.what.partition(':')[0]}>",
            AnswerCount=len(thread.answers),
        )
        for number, answer in enumerate(thread.answers, start=1):
            yield row_xml(
                Id=thread.id + number,
                PostTypeId=2,
                ParentId=thread.id,
                CreationDate=day,
                Score=answer.score,
                Body=f"<p>{escape(answer.text)}</p>",
            )
    yield "</posts>\n"


def row_xml(**attributes: object) -> str:
    """Return a post's line."""
    said = attributes | {"ContentLicense": LICENCE}
    return (
        f"  <row{''.join(f' {name}={quoteattr(str(value))}' for name, value in said.items())} />\n"
    )


def build(out: Path) -> None:
    """Write the sites, what people wrote, and the prompts.

    Args:
        out: folder to write.
    """
    asked = threads()
    for site in SITES.values():
        own = [thread for thread in asked if thread.site == site]
        folder = out / "sites" / site
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Posts.xml").write_text("".join(posts_xml(own)), encoding="utf-8")
        print(f"{folder / 'Posts.xml'}: {len(own)} questions")
    files = dialogues.files()
    for name in INPUTS:
        write_examples(files[name], out / f"{name}.jsonl")
        print(f"{out / name}.jsonl: {len(files[name])} rows")


if __name__ == "__main__":
    with exit_on_user_error():
        tyro.cli(build, prog="python -m lima_ray.miniature.dump", description=__doc__)
