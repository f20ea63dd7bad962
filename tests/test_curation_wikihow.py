"""Articles of wikiHow, in each form in which they are published."""

import csv
from pathlib import Path
from typing import Any

import pytest
from curation_runs import SourceRun

from lima_ray.config.errors import UserError
from lima_ray.curation.sources import wikihow_text as text

SEP = ("overview", "headline", "text", "sectionLabel", "title")
LONG = "Take the next thing that is at hand and do with it what the picture in your mind shows. "


def write(file: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])


def run(folder: Path, **section: Any) -> SourceRun:
    section.setdefault("min_chars", 20)
    return SourceRun(folder, kind="wikihow", path=".", **section)


def test_paragraphs_become_an_article_with_sections_and_steps(tmp_path: Path) -> None:
    about = "This article was co-authored by Jo. This article will  teach you to fold. It is easy."
    rows = [
        (about, "Fold it ;", "Press it flat.\n\n\nUse a thumb.\nOr a ruler ;", "A Boat", "X"),
        (about, "Turn it over!", "Then look.", "A Boat", "X"),
        (about, "Fly it", " Throw it ; then run.", "A Plane ", "X"),
        (about, "Read", "A book.", "Sources and Citations", "X"),
        (about, "See", "Another page.", "Related wikiHows", "X"),
    ]
    write(tmp_path / "d" / "wikihowSep.csv", SEP, [(*r[:4], "How to Fold Paper") for r in rows])
    (candidate,) = run(tmp_path / "d").candidates
    assert candidate.turns[0] == "How to Fold Paper?"
    assert candidate.turns[1] == (
        "The following answer will teach you to fold. It is easy.\n\n"
        "## A Boat\n\n"
        "1. Fold it. Press it flat.\n   * Use a thumb.\n   * Or a ruler\n"
        "2. Turn it over! Then look.\n\n"
        "## A Plane\n\n"
        "1. Fly it. Throw it; then run."
    )
    assert candidate.id == "wikihow/Fold-Paper"
    assert candidate.url == "https://www.wikihow.com/Fold-Paper"
    assert candidate.licence == "CC BY-NC-SA 3.0"


def test_rows_of_an_article_need_not_stand_together(tmp_path: Path) -> None:
    rows = [("", f"Step {n}", LONG, "Steps", f"How to Do {n % 2}") for n in (1, 2, 3, 4, 1)]
    write(tmp_path / "d" / "sep.csv", SEP, rows)
    done = run(tmp_path / "d")
    assert sorted(c.turns[1].count("\n") + 1 for c in done.candidates) == [2, 2]
    assert done.funnel.notes == {"repeated rows": 1}
    assert "##" not in done.candidates[0].turns[1]


def test_parts_of_wikihow_all_are_joined_in_order(tmp_path: Path) -> None:
    header = ("Text", "HEADLINE", "title")
    rows = [
        ("Second., Third.", "\nDo two.,\nDo three.", "How to Be an Organized Artist2"),
        ("Look at it.", "\nDraw.", "How to Make Art"),
        (
            "One.;\n, Also one\n\n\nMore\n\n, Last.",
            "\r\nA,\r\nB.,\r\nC",
            "How to Be an Organized Artist1",
        ),
        ("A. B.", "\nHeading one.,\nHeading two.", "How to Miss a Paragraph"),
        ("Alone.", "\nHeading.", "How to Come Late2"),
        ("Play.", "\nStart.", "How to Use a PS3"),
    ]
    write(tmp_path / "d" / "wikihowAll.csv", header, rows)
    done = run(tmp_path / "d", min_chars=1)
    found = {c.id: c.turns[1] for c in done.candidates}
    assert found == {
        "wikihow/Be-an-Organized-Artist": (
            "## Part 1\n\n1. A. One.\n2. B. Also one\n   * More\n3. C. Last.\n\n"
            "## Part 2\n\n1. Do two. Second.\n2. Do three. Third."
        ),
        "wikihow/Make-Art": "1. Draw. Look at it.",
        "wikihow/Use-a-PS3": "1. Start. Play.",
    }
    assert done.dropped == {
        "wikihow/Miss-a-Paragraph": "incomplete",
        "wikihow/Come-Late": "incomplete",
    }
    done.check_funnel()


def test_pages_lose_what_the_site_adds(tmp_path: Path) -> None:
    picture = r'{"smallUrl":"https:\/\/x","licensing":"<div><p>Fair Use<\/a><br>\n<\/p><\/div>"}'
    rows = [
        ("Roll it.", f"Roll it. Push.[1] X Research source https://a.b/c Then pull.{picture}"),
        ("Wait", "Wait.[2] X Trustworthy Source Clinic A site Go to source An hour."),
        ("Ask", "Ask Jo.[3] X Expert Source Jo, MDDoctor Expert Interview. 2 May 2020. Go on."),
        ("Vote", "Reader Poll: We asked 9 wikiHow readers, and 8 agreed. [Take Poll] Decide."),
        ("Look", "Go to https://a.b for more. The steps in this article help."),
    ]
    title = "3 Simple Ways to Remove Lint: 14 Steps (with Pictures) - wikiHow"
    header = ("paragraph", "title", "heading")
    write(tmp_path / "d" / "pages.csv", header, [(p, title, h) for h, p in rows])
    (candidate,) = run(tmp_path / "d").candidates
    assert candidate.turns == (
        "How to Remove Lint?",
        "1. Roll it. Push. Then pull.\n2. Wait. An hour.\n3. Ask Jo. Go on.\n4. Vote. Decide.\n"
        "5. Look. The steps in this answer help.",
    )


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("How to Be a Queen: 15 Steps (with Pictures) - wikiHow", "How to Be a Queen"),
        ("4 Easy Ways to Style Hair - wikiHow", "How to Style Hair"),
        ("Simple Ways to Clean Wood: 10 Steps (with Pictures)", "How to Clean Wood"),
        ("How to Teach a Kid to Skate in 14 Easy and Safe Steps", "How to Teach a Kid to Skate"),
        ("Expert Advice on How to Get Strong - wikiHow", "How to Get Strong"),
        ("Angel Number 333: Meaning in Love", "Angel Number 333"),
        ("HOW TO  Win &amp; Lose", "How to Win & Lose"),
    ],
)
def test_page_titles(title: str, clean: str) -> None:
    assert text.clean_title(title, page=True) == clean


def test_an_articles_own_title_keeps_its_colon() -> None:
    assert text.clean_title("How to Play Halo: Reach") == "How to Play Halo: Reach"


def test_every_dropped_article_has_its_reason(tmp_path: Path) -> None:
    articles = {
        "Angel Numbers": LONG,
        "How to Say Nothing": " ;",
        "How to Be Short": "So.",
        "How to Be Long": LONG * 20,
        "How to Lose Marks": f"{LONG} You dont see it, and it isnt there.",
        "How to Keep Tags": f"{LONG} See <i>this</i>.",
        "How to Do Well": LONG,
        "How to  Do well ": LONG,
    }
    rows = [("", "Begin", body, "Steps", title) for title, body in articles.items()]
    write(tmp_path / "d" / "a.csv", SEP, [*rows, ("", "x", "y", "", " ")])
    write(tmp_path / "d" / "b.csv", SEP, [("", "Begin", LONG, "", "How to Do Well")])
    done = run(tmp_path / "d", max_chars=1000)
    assert [c.turns[0] for c in done.candidates] == ["How to Do Well?"]
    assert done.dropped == {
        "wikihow/Angel-Numbers": "title",
        "wikihow/Say-Nothing": "empty",
        "wikihow/Be-Short": "length",
        "wikihow/Be-Long": "length",
        "wikihow/Lose-Marks": "lost_apostrophes",
        "wikihow/Keep-Tags": "markup",
        "wikihow/Do-Well": "duplicate_title",
    }
    assert done.funnel.notes == {"rows without a title": 1, "repeated rows": 1}
    done.check_funnel()


def test_categories_by_title_or_address(tmp_path: Path) -> None:
    rows = [("", "Begin", LONG, "", f"How to {name}") for name in ("Swim Fast", "Cook", "Sleep")]
    write(tmp_path / "d" / "sep.csv", SEP, rows)
    listed = [("https://www.wikihow.com/Swim-Fast", "Sports  and Fitness"), ("how to cook", "Food")]
    write(tmp_path / "d" / "cat.csv", ("title", "category"), [*listed, ("Cook", "Other")])
    done = run(tmp_path / "d", categories="cat.csv")
    assert {c.id: c.group for c in done.candidates} == {
        "wikihow/Swim-Fast": "Sports and Fitness",
        "wikihow/Cook": "Food",
    }
    assert done.dropped == {"wikihow/Sleep": "no_category"}


def test_an_address_quotes_what_would_end_it(tmp_path: Path) -> None:
    rows = [("", "Begin", LONG, "", "How to Get 50% in C# (and Café)? Now")]
    write(tmp_path / "d" / "sep.csv", SEP, rows)
    (candidate,) = run(tmp_path / "d").candidates
    name = "Get-50%25-in-C%23-(and-Caf%C3%A9)%3F-Now"
    assert candidate.url == f"https://www.wikihow.com/{name}"
    write(tmp_path / "d" / "cat.csv", ("title", "category"), [(candidate.url, "Food")])
    assert run(tmp_path / "d", categories="cat.csv").candidates[0].group == "Food"


def test_a_list_of_categories_is_refused_before_articles_are_read(tmp_path: Path) -> None:
    write(tmp_path / "d" / "sep.csv", SEP, [("", "Begin", LONG, "", "How to Swim")])
    with pytest.raises(UserError, match="no such file; `categories`"):
        run(tmp_path / "d", categories="none.csv")
    assert not list((tmp_path / "d-work").glob("*/*"))


def test_a_list_of_categories_with_other_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d" / "sep.csv", SEP, [("", "Begin", LONG, "", "How to Swim")])
    write(tmp_path / "d" / "cat.csv", ("url", "topic"), [])
    with pytest.raises(UserError, match="it needs title,category"):
        run(tmp_path / "d", categories="cat.csv")


def test_a_folder_without_articles_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d" / "x.csv", ("title", "result"), [])
    with pytest.raises(UserError, match=r"holds no table of wikiHow.*x\.csv are title,result"):
        run(tmp_path / "d")


def test_a_cut_off_table_keeps_the_articles_before(tmp_path: Path) -> None:
    file = tmp_path / "d" / "sep.csv"
    write(file, SEP, [("", "Begin", LONG, "", f"How to Do {n}") for n in range(3)])
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"1 piece of the dumps cannot be read"):
        run(tmp_path / "d")
    done = run(tmp_path / "d", damaged="keep")
    assert len(done.candidates) == 2 and len(done.funnel.damage) == 1
