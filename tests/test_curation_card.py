"""The card of a dataset: what it counts, and pages that show others' text and nothing else."""

import base64
import hashlib
import json
import re
import struct
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from lxml import html  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs
from markdown_it import MarkdownIt

from lima_ray.config.loading import read_yaml
from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card import figures
from lima_ray.curation.card.facts import collect_facts
from lima_ray.curation.card.lengths import describe
from lima_ray.curation.card.page import write_card
from lima_ray.curation.funnel import Funnel
from lima_ray.curation.recipe import Curation
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.results.page import pictures

NASTY = 'Why <script>alert("x")</script> | or\n\n## this `code` *bold* [link](http://x.org) $1$?'
FENCES = "````\n<img src=http://x.org/a.png>\n````\nand \x1b]0;title\x07 more"
CREDITED: dict[str, Any] = {"created": "2014-01-21", "licence": "CC BY-SA 3.0"}
STEM = [
    Candidate("physics/1", ("why is it so", "one two three four"), "stackexchange", "physics"),
    Candidate(
        "physics/2",
        (NASTY, FENCES, "and then", "then five words stand here"),
        "stackexchange",
        "physics",
        **CREDITED,
    ),
    Candidate(
        "maths|$x$/3",
        ("short", "a reply " * 700),
        "stackexchange",
        "maths|$x$ of a rather long name, longer than an axis has room for",
        created="2022-11-30T10:00:00",
        licence="CC BY-SA 4.0",
    ),
]
HOW = [Candidate("howto/1", ("How to sit", "Sit down."), "wikihow", licence="CC BY-NC-SA 3.0")]
CHOSEN = {"stem": STEM, "how": HOW, "authored": []}
CURATION = Curation(
    name="few",
    seed=7,
    sources={
        "stem": {"kind": "stackexchange", "path": "se", "sites": "stem", "rows": 5},
        "how": {"kind": "wikihow", "path": "wikihow.csv"},
        "authored": {"kind": "examples", "path": "own.jsonl"},
    },  # pyright: ignore[reportArgumentType]  # sections as a recipe file has them
)
FUNNELS = [
    Funnel("stem", 100, {"answer_score": 90, "first_person": 0, "not_drawn": 7}, 3, {"odd": 2}),
    Funnel("how", 1, {}, 1, {}, ("how.csv from byte 9: cut off <b>",)),
    Funnel("authored", 0, {"answer_score": 0}, 0, {}),
]
MADE = {"versions": {"lima_ray": "0.1.0"}, "inputs": {"se/<x>.7z": {"bytes": 5}}, "edited": []}


def write_rows(chosen: dict[str, list[Candidate]], folder: Path) -> Path:
    file = folder / "train.jsonl"
    write_examples([row.to_example() for rows in chosen.values() for row in rows], file)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dataset with its card."""
    out = tmp_path_factory.mktemp("few")
    write_card(CURATION, FUNNELS, CHOSEN, write_rows(CHOSEN, out), out, made=MADE)
    return out


@pytest.fixture(scope="module")
def card(folder: Path) -> dict[str, Any]:
    """What data_card.json holds."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "data_card.json").read_text(), parse_constant=refuse)


def test_counts_are_those_of_the_rows_as_they_are_read_again(
    card: dict[str, Any], folder: Path
) -> None:
    rows = read_examples(str(folder / "train.jsonl"))
    turns = [turn for row in rows for turn in row.turns]
    assert card["rows"] == {
        "count": 4,
        "dialogues": 1,
        "prompts_alone": 0,
        "words": sum(len(turn.split()) for turn in turns),
        "characters": sum(len(turn) for turn in turns),
    }
    replies = [len(turn.split()) for row in rows for turn in row.turns[1::2]]
    found = card["lengths"]["replies"]["words"]
    assert found["count"] == len(replies) == 5
    assert found["mean"] == pytest.approx(mean(replies), abs=0.05)
    assert (found["median"], found["longest"]) == (median(replies), 1400)
    histogram = found["histogram"]
    edges = histogram["edges"]
    for (start, end), count in zip(pairwise(edges), histogram["counts"], strict=True):
        assert count == sum(start <= length < end for length in replies)
    assert sum(histogram["counts"]) == 5


def test_the_table_stands_beside_the_papers(card: dict[str, Any]) -> None:
    table = {row["source"]: row for row in card["table_1"]}
    stem = table["Stack Exchange (STEM)"]
    prompts = [len(turn.split()) for row in STEM for turn in row.turns[0::2]]
    assert stem["prompt"] == pytest.approx(mean(prompts), abs=0.05)
    assert stem["paper"] == {"rows": 200, "prompt_tokens": 117, "reply_tokens": 523}
    assert (table["wikiHow"]["rows"], table["wikiHow"]["reply"]) == (1, 2)
    assert (table["authored, group A"]["rows"], table["authored, group A"]["reply"]) == (0, None)
    papers = [row["paper"]["rows"] for name, row in table.items() if name != "all"]
    assert sum(papers) == table["all"]["paper"]["rows"] == 1000
    assert table["all"]["rows"] == 4


def test_a_tokenizer_counts_each_text_once_where_there_is_one(tmp_path: Path) -> None:
    file, asked = write_rows(CHOSEN, tmp_path), list[str]()

    def count(text: str) -> int:
        asked.append(text)
        return 2 * len(text)

    facts = collect_facts(CURATION, FUNNELS, CHOSEN, file, {}, count)
    assert facts["table_1_unit"] == "tokens"
    assert facts["rows"]["tokens"] == 2 * facts["rows"]["characters"]
    assert facts["table_1"][2]["reply"] == 2 * len("Sit down.")
    assert len(asked) == len(set(asked))


def test_funnels_dates_and_licences_of_each_source(card: dict[str, Any]) -> None:
    stem = card["sources"]["stem"]
    assert [(step["dropped"], step["left"]) for step in stem["funnel"]["steps"]] == [
        (90, 10),
        (0, 10),
        (7, 3),
    ]
    assert (stem["wanted"], stem["chosen"], stem["notes"]) == (5, 3, {"odd": 2})
    assert stem["groups"] == {"physics": 2, STEM[2].group: 1}
    assert (stem["dates"]["later"], stem["dates"]["without_date"]) == (1, 1)
    assert (card["dates"]["later_share"], card["dates"]["without_date_share"]) == (0.25, 0.5)
    assert (card["dates"]["first"], card["dates"]["last"]) == ("2014-01-21", "2022-11-30")
    assert card["licences"]["rows"] == {
        "": 1,
        "CC BY-SA 3.0": 1,
        "CC BY-SA 4.0": 1,
        "CC BY-NC-SA 3.0": 1,
    }
    assert card["licences"]["whole"] is None
    assert card["sources"]["how"]["damage"] == ["how.csv from byte 9: cut off <b>"]
    assert card["sources"]["authored"]["lengths"]["replies"]["words"]["mean"] is None


def test_the_recipe_in_the_card_makes_the_dataset_again(
    card: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(card["recipe"]))
    again = Curation.model_validate(read_yaml(str(file), tmp_path, "curation recipe")[1])
    assert again == CURATION
    assert again.digest() == CURATION.digest() == card["recipe_digest"]
    assert again.sources["how"].temperature == float("inf")
    content = (folder / "train.jsonl").read_bytes()
    assert card["rows_file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["seed"] == 7


def test_the_page_shows_texts_of_others_and_loads_nothing(folder: Path) -> None:
    page = (folder / "card.html").read_text()
    tree = html.fromstring(page)
    assert not tree.xpath("//script | //link | //iframe | //b | //*[@onerror or @onload]")
    sources = tree.xpath("//@src | //@srcset")
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    shown = [pre.text_content() for pre in tree.xpath("//pre")]
    assert NASTY in shown
    assert "````\n<img src=http://x.org/a.png>\n````\nand \\x1b]0;title\\x07 more" in shown
    assert "\x1b" not in page
    assert "cut off <b>" in tree.text_content()


def test_the_markdown_page_shows_the_same(folder: Path) -> None:
    text = (folder / "card.md").read_text()
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tree = html.fromstring(rendered)
    assert not tree.xpath("//script | //a[contains(@href, 'x.org')] | //h2[contains(., 'this')]")
    assert NASTY in [pre.text_content().rstrip("\n") for pre in tree.xpath("//pre")]
    pictures = tree.xpath("//img/@src | //source/@srcset")
    assert len(pictures) == 8  # the funnels of two sources, lengths and groups, each in two themes
    assert all((folder / picture).is_file() for picture in pictures)
    # A bar in a cell would make a column more.
    for table in tree.xpath("//table"):
        assert len({len(row.xpath("./th | ./td")) for row in table.xpath(".//tr")}) == 1
    cells = [cell.text_content() for cell in tree.xpath("//td")]
    assert STEM[2].group in cells


def test_pictures_are_of_both_themes_and_a_phones_width(folder: Path) -> None:
    for name in ("funnel-1", "funnel-2", "lengths", "groups"):
        light, dark = (folder / "figures" / f"{name}{end}.png" for end in ("", "-dark"))
        size = struct.unpack(">II", light.read_bytes()[16:24])
        assert size[0] == round(pictures.WIDTH_IN * pictures.DPI)
        assert light.read_bytes() != dark.read_bytes()
        uri = base64.b64encode(light.read_bytes()).decode()
        assert uri in (folder / "card.html").read_text()
    assert not (folder / "figures" / "funnel-3.png").exists()


def test_sources_without_rows_have_no_panel_of_lengths(card: dict[str, Any]) -> None:
    drawn = figures.draw_lengths(card["sources"], "words", pictures.LIGHT)
    assert len(drawn.axes) == 2 * 2
    sources = figures.group_panels(card["sources"])[0]
    assert list(zip(sources.labels, sources.counts, strict=True)) == [
        ("stem", 3),
        ("how", 1),
        ("authored", 0),
    ]


def test_many_groups_are_the_largest_and_one_line_for_the_others() -> None:
    groups = {f"site{n}": 40 - n for n in range(30)}
    source = {"groups": groups, "chosen": sum(groups.values())}
    panel = figures.group_panels({"stem": source})[1]
    assert panel.labels[:2] == ["site0", "site1"]
    assert panel.labels[-1] == "18 others, in all"
    assert sum(panel.counts) == sum(groups.values())


def test_a_dataset_without_rows_has_a_card(tmp_path: Path) -> None:
    chosen: dict[str, list[Candidate]] = {name: [] for name in CHOSEN}
    funnels = [Funnel(name, 0, {}, 0, {}) for name in CHOSEN]
    facts = write_card(CURATION, funnels, chosen, write_rows(chosen, tmp_path), tmp_path, made={})
    assert facts["rows"]["count"] == 0
    assert facts["dates"]["later_share"] is None
    tree = html.fromstring((tmp_path / "card.html").read_text())
    assert not tree.xpath("//img")
    assert tree.text_content().count("No row was read.") == 3


def test_prompts_alone_are_no_training_data(tmp_path: Path) -> None:
    prompts = {"authored": [Candidate(f"a/{n}", (f"Why {n}?",), "authors") for n in (1, 2)]}
    curation = Curation(name="p", sources={"authored": CURATION.sources["authored"]})
    file = write_rows(prompts, tmp_path)
    funnels = [Funnel("authored", 2, {}, 2, {})]
    facts = write_card(curation, funnels, prompts, file, tmp_path, made={})
    assert facts["rows"]["prompts_alone"] == 2
    page = (tmp_path / "card.md").read_text()
    assert f"--data.test {file}" in page
    assert "--data.train" not in page


def test_facts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    file = write_rows(CHOSEN, tmp_path)
    with pytest.raises(ValueError, match="funnels of"):
        collect_facts(CURATION, FUNNELS[:2], CHOSEN, file, {})
    with pytest.raises(ValueError, match="how: 0 rows; its funnel ends with 1"):
        collect_facts(CURATION, FUNNELS, CHOSEN | {"how": []}, file, {})
    with pytest.raises(ValueError, match="which the recipe does not have"):
        collect_facts(CURATION, FUNNELS, CHOSEN | {"else": HOW}, file, {})
    file.write_bytes(file.read_bytes() * 2)
    with pytest.raises(ValueError, match="has 8 rows; 4 are chosen"):
        collect_facts(CURATION, FUNNELS, CHOSEN, file, {})


def test_lengths_beyond_the_last_bin_are_counted_in_it() -> None:
    found = describe([0, 1, 10_000_000])
    assert sum(found["histogram"]["counts"]) == 3
    assert found["longest"] == 10_000_000
    assert found["histogram"]["counts"][:2] == [1, 1]


def test_the_three_rows_are_a_short_a_middle_and_a_long_one(tmp_path: Path) -> None:
    rows = [Candidate(f"a/{n:03}", ("Why?", "x" * n), "authors") for n in range(1, 202)]
    curation = Curation(name="p", sources={"authored": CURATION.sources["authored"]})
    file = write_rows({"authored": rows}, tmp_path)
    funnels = [Funnel("authored", 201, {}, 201, {})]
    write_card(curation, funnels, {"authored": rows}, file, tmp_path, made={})
    shown = re.findall(r"### (a/\d+),", (tmp_path / "card.md").read_text())
    assert shown == ["a/011", "a/101", "a/191"]
