"""Reddit's submissions and stories, in the files and types that its dumps have had."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from curation_runs import SourceRun

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.sources import reddit_text as text
from lima_ray.curation.sources.reddit_posts import lines_of, of_subreddit, read_post

DAY_2014, HOUR = 1_390_000_000, 3600
STORY = "The lamp went out, and the keeper climbed the stairs once more to see who had called. " * 9


def submission(
    id: str, title: str = "[WP] A keeper hears a voice in the lamp.", **more: Any
) -> Any:
    record = {"id": id, "title": title, "subreddit": "WritingPrompts", "score": 500, "author": "a"}
    record |= {"created_utc": DAY_2014, "retrieved_on": DAY_2014 + 99 * HOUR, "is_self": True}
    return record | {"over_18": False, "stickied": False, "selftext": ""} | more


def comment(id: str, on: str, score: Any = 200, body: str = STORY, **more: Any) -> Any:
    record = {"id": id, "link_id": f"t3_{on}", "parent_id": f"t3_{on}", "body": body, "author": "b"}
    record |= {"created_utc": DAY_2014, "retrieved_on": DAY_2014 + 99 * HOUR, "score": score}
    return record | {"subreddit": "WritingPrompts"} | more


def write(file: Path, records: list[Any], separators: tuple[str, str] = (",", ":")) -> Path:
    file.parent.mkdir(exist_ok=True)
    lines = "".join(
        r if isinstance(r, str) else f"{json.dumps(r, separators=separators)}\n" for r in records
    ).encode()
    file.write_bytes(zstd.compress(lines) if file.suffix == ".zst" else lines)
    return file


def run(folder: Path, **section: Any) -> SourceRun:
    section.setdefault("min_chars", 100)
    (folder / "RC_of_no_lines").touch()  # stories are comments, and some tests are of prompts alone
    done = SourceRun(folder, kind="reddit", path=".", **section)
    done.check_funnel()
    return done


def test_the_best_top_level_answer_is_the_story(tmp_path: Path) -> None:
    write(tmp_path / "d" / "WritingPrompts_submissions.zst", [submission("1kf52m")])
    answers = [
        comment("c1", "1kf52m", 300, f"Lower. {STORY}"),
        comment("c2", "1kf52m", 900, f"A reply. {STORY}", parent_id="t1_c1"),
        comment("c3", "1kf52m", 400, f"Best. {STORY}"),
        comment("c4", "1kf52m", 999, f"Rules. {STORY}", distinguished="moderator"),
        comment("c5", "1kf52m", 999, "[removed]"),
        comment("c6", "1kf52m", None),
        comment("c7", "zzzz"),
    ]
    write(tmp_path / "d" / "WritingPrompts_comments.zst", answers)
    (candidate,) = run(tmp_path / "d").candidates
    assert candidate.turns == ("A keeper hears a voice in the lamp.", f"Best. {STORY}".strip())
    assert (candidate.id, candidate.score) == ("WritingPrompts/1kf52m", 400)
    assert candidate.source == "writingprompts"
    assert candidate.url == "https://www.reddit.com/r/WritingPrompts/comments/1kf52m/_/c3/"
    assert candidate.authors == ("https://www.reddit.com/user/a", "https://www.reddit.com/user/b")
    assert candidate.created == "2014-01-17"


def test_the_best_story_decides_even_if_a_filter_drops_it(tmp_path: Path) -> None:
    write(tmp_path / "d" / "RS_2014-01.zst", [submission("s1")])
    write(
        tmp_path / "d" / "RC_2014-01.zst",
        [comment("c1", "s1", 900, "So short."), comment("c2", "s1")],
    )
    assert run(tmp_path / "d").dropped == {"WritingPrompts/s1": "story_length"}


def test_every_dropped_submission_has_its_reason(tmp_path: Path) -> None:
    records = [
        submission("removed", selftext="[removed]"),
        submission("later", _meta={"was_deleted_later": True, "retrieved_2nd_on": DAY_2014 + 1e6}),
        submission("bycat", removed_by_category="moderator"),
        submission("pinned", stickied=True),
        submission("special", distinguished="special"),
        submission("recent", created_utc=1_700_000_000, retrieved_on=1_800_000_000),
        submission("low", score=99),
        submission("null", score=None),
        submission("early", retrieved_on=DAY_2014 + 23 * HOUR),
        submission("image", "[IP] The picture of a lamp on a rock at sea"),
        submission("flair", link_flair_text="Image Prompt "),
        submission("adult", over_18=True),
        submission("nsfw", "[WP] A keeper hears a voice in the lamp (NSFW)"),
        submission("link", is_self=False),
        submission("short", "[WP] The lamp"),
        submission("site", "[WP] Write a story about this subreddit, a year from now"),
        submission("alone"),
    ]
    write(tmp_path / "d" / "RS_2014-01", records)
    done = run(tmp_path / "d")
    assert {id.split("/")[1]: reason for id, reason in done.dropped.items()} == {
        **dict.fromkeys(("removed", "later", "bycat"), "removed"),
        **dict.fromkeys(("pinned", "special"), "pinned"),
        **dict.fromkeys(("low", "null"), "score"),
        "recent": "too_recent",
        "early": "score_age",
        **dict.fromkeys(("image", "flair"), "tag"),
        **dict.fromkeys(("adult", "nsfw"), "over_18"),
        **dict.fromkeys(("short", "site"), "title"),
        "link": "link",
        "alone": "no_story",
    }
    kept = run(tmp_path / "d", over_18=True, written_before=None, min_age_h=0)
    opened = {id.split("/")[1] for id, reason in kept.dropped.items() if reason == "no_story"}
    assert opened == {"recent", "early", "adult", "nsfw", "alone"}


@pytest.mark.parametrize(
    "month",
    [
        {"created_utc": DAY_2014},
        {"created_utc": str(DAY_2014), "edited": True},
        {"created_utc": float(DAY_2014), "edited": 1.39e9},
        {"retrieved_on": None, "retrieved_utc": DAY_2014 + 90 * HOUR},
        {"retrieved_on": DAY_2014, "_meta": {"retrieved_2nd_on": DAY_2014 + 36 * HOUR}},
        {"retrieved_on": DAY_2014 + 1, "retrieved_utc": DAY_2014 + 36 * HOUR},
        {"name": "t3_s1", "score": "500", "distinguished": None, "author": "[deleted]"},
    ],
)
def test_types_that_drift_between_months_read_alike(tmp_path: Path, month: dict[str, Any]) -> None:
    write(tmp_path / "d" / "RS_x.zst", [submission("s1", **month)], separators=(", ", " : "))
    write(
        tmp_path / "d" / "RC_x.zst",
        [comment("c1", "s1", **{k: v for k, v in month.items() if k != "score"})],
    )
    (candidate,) = run(tmp_path / "d").candidates
    assert candidate.created == "2014-01-17" and candidate.turns[1].startswith("The lamp")


def test_a_score_read_at_an_unknown_time_is_kept_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "d" / "RS_x", [submission("s1", retrieved_on=None)])
    assert list(run(tmp_path / "d").funnel.notes.values()) == [1]


@pytest.mark.parametrize(
    "record", [[], {"id": "x"}, {"id": "-", "title": "T"}, {"title": "T"}, "x"]
)
def test_what_is_no_post(record: Any) -> None:
    assert read_post(record) is None


def test_absurd_numbers_are_none() -> None:
    post = read_post(submission("s1", created_utc="1e300", score="many", retrieved_on=True))
    assert post and (post.day, post.score, post.score_age_h) == ("", None, None)


@pytest.mark.parametrize("on", ["", "!!", "z" * 20])
def test_an_answer_to_no_submission_is_counted(tmp_path: Path, on: str) -> None:
    write(tmp_path / "d" / "RS_2014-01.zst", [submission("s1")])
    write(tmp_path / "d" / "RC_2014-01.zst", [comment("c1", on), comment("c2", "s1")])
    done = run(tmp_path / "d")
    assert len(done.candidates) == 1
    assert done.funnel.notes["records that are neither submission nor comment"] == 1


@pytest.mark.parametrize("created", [5e11, -5e11, 1e300, "nan"])
def test_a_day_out_of_range_is_not_known(created: Any) -> None:
    post = read_post(submission("s1", created_utc=created))
    assert post
    assert (post.day, post.score_age_h) == ("", None)


def test_a_listing_that_names_no_subreddit_says_so(tmp_path: Path) -> None:
    write(tmp_path / "d" / "RS_x.csv", ["title,id,score\n", "What is the best of all?,s1,500\n"])
    done = run(tmp_path / "d", take="titles")
    assert done.funnel.notes == {"posts without a subreddit or an address": 1}


def test_titles_of_questions_as_prompts(tmp_path: Path) -> None:
    titles = {
        "q1": "[Serious] What do you love about a lamp &amp; its light ?",
        "q2": "What little things on Reddit do you love most?",
        "q3": "My best story about a lamp. Here it is.",
    }
    ask = {"subreddit": "AskReddit"}
    records = [submission(id, title, **ask) for id, title in titles.items()]
    elsewhere = submission(
        "x1", "What is this here in the lamp?", crosspost_parent_list=records[:1]
    )
    write(tmp_path / "d" / "RS_x.zst", [*records, elsewhere, comment("c1", "q1", **ask)])
    write(tmp_path / "d" / "RC_x.zst", ["no zstd is read for titles"])
    (tmp_path / "d" / "RC_x.zst").write_bytes(b"damaged")
    done = run(tmp_path / "d", take="titles", subreddit="askreddit", source="ask")
    (candidate,) = done.candidates
    assert candidate.turns == ("What do you love about a lamp & its light ?",)
    assert (candidate.source, candidate.created) == ("ask", "2014-01-17")
    assert done.dropped == {"askreddit/q2": "title", "askreddit/q3": "title"}


def test_a_listing_as_csv_has_prompts_and_no_stories(tmp_path: Path) -> None:
    header = ("created_utc", "score", "id", "title", "permalink", "over_18", "is_self", "edited")
    rows = [
        ("1376577414.0", "635", "1kf52m", "[WP] A keeper hears a voice", "/r/WritingPrompts/c/1"),
        ("1376577414.0", "635", "1kf52n", "[WP] Another one hears a voice", "/r/AskReddit/c/1"),
    ]
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / "top.csv").open("w", newline="") as out:
        csv.writer(out).writerows([header, *((*row, "False", "True", "") for row in rows)])
    done = run(tmp_path / "d")
    assert done.funnel.seen == 1 and done.dropped == {"WritingPrompts/1kf52m": "no_story"}


def test_a_submission_in_two_files_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "d" / "RS_a.zst", [submission("s1"), submission("s1")])
    write(tmp_path / "d" / "WritingPrompts_submissions.zst", [submission("s1"), submission("s2")])
    write(tmp_path / "d" / "RC_a.zst", [comment("c1", "s1"), comment("c1", "s1")])
    done = run(tmp_path / "d")
    assert [c.id for c in done.candidates] == ["WritingPrompts/s1"]
    assert done.funnel.dropped["repeated"] == 2
    titles = [submission(id, "What does the keeper hear in the lamp?") for id in ("q1", "q1", "q2")]
    write(tmp_path / "q" / "RS_a.zst", titles)
    assert len(run(tmp_path / "q", take="titles").candidates) == 2


def test_bytes_are_tested_as_parsing_would() -> None:
    records = [
        '{"subreddit":"WritingPrompts","n":1}',
        '{"n":2,"subreddit" : "writingprompts"}',
        '{"subreddit":"WritingPromptsX","title":"\\"WritingPrompts\\""}',
        '{"title":"WritingPrompts","subreddit":"x"}',
        '{"subreddit_name":"WritingPrompts"}',
        '{"a":{"subreddit":"WritingPrompts"},"subreddit":"WritingPrompts","n":6}',
        '{"subreddit":\t"WritingPrompts","n":7}',
    ]
    found = [
        json.loads(line)["n"]
        for line in lines_of("\n".join(records).encode(), of_subreddit("writingprompts"))
    ]
    parsed = [json.loads(r) for r in records]
    wanted = [r["n"] for r in parsed if r.get("subreddit", "").lower() == "writingprompts"]
    assert found == wanted == [1, 2, 6, 7]


def test_a_cut_off_file_keeps_what_stands_before(tmp_path: Path) -> None:
    file = write(tmp_path / "d" / "RS_x.zst", [submission(f"s{n}") for n in range(50)])
    frame = file.read_bytes()
    file.write_bytes(frame + frame[: len(frame) // 2])
    with pytest.raises(UserError, match=r"RS_x\.zst is damaged or cut off at byte"):
        run(tmp_path / "d")
    assert run(tmp_path / "d", damaged="keep").funnel.seen >= 50


def test_a_file_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    file = write(tmp_path / "d" / "RS_x.zst", [submission("s1")])
    second = write(tmp_path / "d" / "other.zst", [submission("s2")]).read_bytes()
    skipped = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    file.write_bytes(skipped + file.read_bytes() + skipped + second)
    assert run(tmp_path / "d").funnel.seen == 2


def test_few_broken_lines_are_counted_and_many_are_damage(tmp_path: Path) -> None:
    broken = '{"subreddit":"WritingPrompts","title":"cut\n'
    write(tmp_path / "few" / "RS_x", [broken * 99, submission("s1")])
    assert run(tmp_path / "few").funnel.notes["lines that are no JSON"] == 99
    write(tmp_path / "many" / "RS_x", [submission("s1"), broken * 100])
    with pytest.raises(UserError, match="100 of 101 lines are no JSON"):
        run(tmp_path / "many")
    assert run(tmp_path / "many", damaged="keep").funnel.seen == 1


def test_other_packings_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "RC_2015-01.bz2").write_bytes(b"BZh9")
    with pytest.raises(UserError, match=r"repack it as \.zst"):
        run(tmp_path / "d")


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("[WP] A lamp &amp;amp; a rock", "A lamp & a rock"),
        ("A lamp. [wp]", "A lamp."),
        ("(WP)You were kidnapped", "You were kidnapped"),
        ("WP 4 beings [Reddit Gold]", "4 beings"),
        ("Writing Prompt:  The  lamp", "The lamp"),
        ("[WP] The [lamp] keeper", "The [lamp] keeper"),
    ],
)
def test_titles(title: str, clean: str) -> None:
    assert text.clean_title(title) == clean


def test_notes_around_a_story_go_and_the_story_stays() -> None:
    body = (
        "Sorry for any grammar mistakes, on mobile!\n\n***\n\nThe  lamp &gt; the [rock](http://x).\n"
        "&amp;#x200B;\n\n    He said\xa0\\- no.\n\n &nbsp;\n\n---\n\n"
        "If you liked this, see /r/keeper for more.\n\n**EDIT:** thanks for the gold, stranger!\n"
    )
    assert text.clean_story(body) == "The lamp > the rock.\n\nHe said - no."


def test_stories_that_are_no_story_whole() -> None:
    assert text.no_site("He went.\n\nEdit: a word\n\nHe came.") is not True
    assert text.is_complete("He went.\n\n**Part 2**\n\nHe came.") is not True
    assert text.is_complete("He went. (1/3)") is not True
    assert text.is_complete("He took part in it, the best part of all.") is True
    assert text.no_site("You ate it, and thanked me for reading the edited map.") is True


@pytest.mark.parametrize(
    ("name", "missing"), [("RS_2014-01", "comments"), ("RC_2014-01", "submissions")]
)
def test_stories_without_comments_or_prompts_are_told_before_anything_is_read(
    tmp_path: Path, name: str, missing: str
) -> None:
    write(tmp_path / "d" / name, ["no JSON\n"])
    with pytest.raises(UserError, match=f"no file of {missing}, and a story is"):
        SourceRun(tmp_path / "d", kind="reddit", path=".")
    assert not (tmp_path / "d-work").exists()
