"""Dialogues: what asker and answerer say to each other below the top answer."""

from pathlib import Path
from typing import Any

import py7zr
import pytest
from stack_exchange import answer, dump, question, row

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate
from lima_ray.curation.funnel import Funnel, count_funnel
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.registry import make_reader
from lima_ray.curation.sources.stackexchange.dialogues import DialogueReader, clean_comment

BZIP2 = [{"id": py7zr.FILTER_BZIP2}]
ASKER, ANSWERER, THIRD = 7, 8, 9


def comment(id: int, post: int, user: int | None, text: str, minute: int) -> str:
    """Return a comment's row."""
    when = f"2014-02-01T10:{minute:02}:00.000"
    return row(Id=id, PostId=post, Score=0, Text=text, CreationDate=when, UserId=user)


def comments_xml(rows: list[str]) -> bytes:
    """Return a Comments.xml."""
    return dump(rows).replace(b"posts>", b"comments>")


def curate(work: Path, dumps: Path, damaged: Any = "stop") -> tuple[list[Candidate], Funnel]:
    """Return the dialogues of a dump and their funnel."""
    source = {"kind": "stackexchange_dialogues", "path": "."}
    curation = Curation.model_validate({"inputs": str(dumps), "sources": {"s": source}})
    parts = run_stages(curation, work, 0, damaged)["s"]
    found = [candidate for part in parts for candidate in part.candidates()]
    filters = make_reader(curation.sources["s"], curation).filters
    funnel = count_funnel("s", filters, parts, {}, len(found))
    assert funnel.seen == len(found) + sum(funnel.dropped.values())
    return found, funnel


POSTS = [
    question(1),
    answer(2, 1, Score=4),
    answer(3, 1, Score=3),
    question(4, OwnerUserId=8),
    answer(5, 4),
    question(6),
    answer(7, 6),
    question(8, OwnerUserId=None, OwnerDisplayName="gone"),
    answer(9, 8),
    question(10),
    answer(11, 10),
]
COMMENTS = [
    comment(19, 2, ASKER, "Thanks a lot, @brewer!", 50),
    comment(18, 2, ANSWERER, "after the thanks", 51),
    comment(17, 2, ANSWERER, "@flat: yes, see [the foam page](https://x.org/a_b).", 30),
    comment(16, 2, ASKER, "and in winter?", 21),
    comment(15, 2, ASKER, "@brewer - does `@malt` matter?", 20),
    comment(14, 2, ANSWERER, "said before anybody asked", 5),
    comment(13, 2, ASKER, "So warm beer is flat?", 40),
    comment(12, 2, ANSWERER, "It is.", 41),
    comment(20, 3, ASKER, "on another answer", 20),
    comment(21, 3, ANSWERER, "on another answer", 21),
    comment(22, 7, ASKER, "Why?", 20),
    comment(23, 7, THIRD, "Because.", 21),
    comment(24, 7, ANSWERER, "It is so.", 22),
    comment(25, 11, ASKER, "Thank you so much!", 20),
    comment(26, 11, ANSWERER, "You are welcome", 21),
]


def check(found: tuple[list[Candidate], Funnel]) -> None:
    """Check what is made of the posts and comments above."""
    [dialogue], funnel = found
    assert dialogue.id == "beer/1-dialogue"
    assert dialogue.source == "multi_turn"
    assert dialogue.turns[0] == "Why is beer 1 flat?"
    assert dialogue.turns[2:] == (
        "does `@malt` matter?\n\nand in winter?",
        "yes, see the foam page.",
        "So warm beer is flat?",
        "It is.",
    )
    assert dialogue.why.startswith("3 exchanges; question score 5, answer score 4")
    assert {k: n for k, n in funnel.dropped.items() if n} == {"people": 2, "exchanges": 2}


def test_comments_have_days_and_licences_of_their_own(tmp_path: Path) -> None:
    site = tmp_path / "dump" / "beer.stackexchange.com"
    site.mkdir(parents=True)
    said = [
        comment(n, 2, (ASKER, ANSWERER)[n % 2], f"It is foam number {n}, is it?", n)
        for n in range(10, 16)
    ]
    said[0] = said[0].replace(' Id="10"', "")
    said[2:] = [line.replace("2014-02-01", "2019-02-01") for line in said[2:]]
    said[4:] = [line.replace("2019-02-01", "2023-02-01") for line in said[4:]]
    (site / "Posts.xml").write_bytes(dump([question(1), answer(2, 1)]))
    (site / "Comments.xml").write_bytes(comments_xml(said))
    [dialogue], _ = curate(tmp_path / "work", tmp_path / "dump")
    assert len(dialogue.turns) == 6
    assert (dialogue.created, dialogue.licence) == ("2019-02-01", "CC BY-SA 3.0, CC BY-SA 4.0")


def test_comments_become_turns_in_order_of_time(tmp_path: Path) -> None:
    site = tmp_path / "dump" / "beer.stackexchange.com"
    site.mkdir(parents=True)
    (site / "posts.xml").write_bytes(dump(POSTS))
    (site / "comments.xml").write_bytes(comments_xml(COMMENTS))
    with pytest.MonkeyPatch.context() as patch:
        for size in (64 << 20, 700):
            patch.setattr(DialogueReader, "range_bytes", size)
            check(curate(tmp_path / str(size), tmp_path / "dump"))


@pytest.mark.parametrize("apart", [False, True])
def test_comments_of_archives(tmp_path: Path, apart: bool) -> None:
    tables = {"Badges.xml": b"<badges>\n</badges>\n", "Comments.xml": comments_xml(COMMENTS)}
    tables |= {"Posts.xml": dump(POSTS)}
    folder = tmp_path / "dump"
    folder.mkdir()
    for name, data in tables.items():
        file = f"beer.stackexchange.com-{name[:-4]}.7z" if apart else "beer.stackexchange.com.7z"
        mode = "a" if (folder / file).exists() else "w"
        with py7zr.SevenZipFile(folder / file, mode, filters=BZIP2) as packed:
            packed.writestr(data, name)
    check(curate(tmp_path / "work", folder))


def test_without_comments_there_are_no_dialogues(tmp_path: Path) -> None:
    site = tmp_path / "beer"
    site.mkdir()
    (site / "Posts.xml").write_bytes(dump(POSTS))
    with pytest.raises(UserError, match=r"no Comments\.xml beside"):
        curate(tmp_path / "work", site)
    (site / "Comments.xml").write_bytes(comments_xml(COMMENTS)[:-30])
    with pytest.raises(UserError, match="does not end with </comments>"):
        curate(tmp_path / "work", site)
    assert len(curate(tmp_path / "work", site, damaged="keep")[1].damage) == 1


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("@Bob, look", "look"),
        ("I asked @bob.smith: why?", "I asked why?"),
        ("@T.E.D. - it is", "it is"),
        ('see [this](http://a.b/c "title") and http://x.y/z .', "see this and."),
        ("mail a@b.org, use `@decorator`", "mail a@b.org, use `@decorator`"),
        ("a  b\n c", "a b c"),
    ],
)
def test_comments_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_comment(text) == cleaned
