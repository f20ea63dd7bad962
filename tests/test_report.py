"""Reports of verdicts written by hand, on which every number is known."""

import csv
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from judged import pair, reply, single, write_replies, write_verdicts
from lxml import html  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs

from lima_ray.config.command_line import COMMANDS, parse_arguments
from lima_ray.config.errors import UserError
from lima_ray.judging.questions.verdicts import Annotator
from lima_ray.judging.report.items import DISAGREE, reading_items
from lima_ray.judging.report.loading import load_study, verdict_files
from lima_ray.judging.report.reading import ITEMS_A_PAGE
from lima_ray.records.attribution import AttributedRow, Attribution
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.verdict import Verdict, prompt_id
from lima_ray.report import main
from lima_ray.results.statistics.calibration import corrected_shares
from lima_ray.results.statistics.verdict_table import comparisons, preference, strengths

ANNA, BEN = Annotator("anna"), Annotator("ben")
GPT = Annotator("gpt-4", "endpoint")
EXACT = Annotator("exact", "exact")
IDS = [f"p{n}" for n in range(10)]
FIVE_TWO_THREE = ["win"] * 5 + ["tie"] * 2 + ["lose"] * 3


def report(*args: str | Path) -> None:
    main(parse_arguments(COMMANDS["report"], list(map(str, args))))


def cells(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "figures" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page_text(out: Path) -> str:
    """What a reader of the page reads, with single spaces."""
    body = html.fromstring((out / "report.html").read_text(encoding="utf-8")).body
    for script in body.iter("script"):
        script.text = ""
    return " ".join(" ".join(body.itertext()).split())


def table_of(out: Path, heading: str, *row: str) -> list[str]:
    """The cells after these in the one row that begins with them, of tables with a heading."""
    body = html.fromstring((out / "report.html").read_text(encoding="utf-8"))
    tables = [t for t in body.iter("table") if heading in [h.text_content() for h in t.iter("th")]]
    found = [
        [" ".join(cell.text_content().split()) for cell in line.findall("td")]
        for table in tables
        for line in table.iter("tr")
    ]
    (only,) = [line for line in found if line[: len(row)] == list(row)]
    return only[len(row) :]


def people_and_gpt() -> list[Verdict]:
    """Ten prompts: anna says 5/2/3; GPT-4, asked in both orders, fails to answer twice."""
    found = []
    for id, outcome in zip(IDS, FIVE_TWO_THREE, strict=True):
        lima, alpaca = reply("lima", id), reply("alpaca-65b", id)
        found.append(pair(ANNA, lima, alpaca, outcome, swapped=id in IDS[:4]))
        for swapped in (False, True):
            said = "unreadable" if id == "p9" else outcome
            found.append(pair(GPT, lima, alpaca, said, swapped, snapshot="gpt-4-0613"))
    return found


def test_win_tie_lose_intervals_and_bounds_stand_beside_the_papers(tmp_path: Path) -> None:
    folder, out = write_verdicts(tmp_path / "study", people_and_gpt()), tmp_path / "out"
    report(folder, "--out", out)
    told = table_of(out, "p", "lima against alpaca-65b", "people")
    # Wilson's intervals of 5, 2 and 3 of 10.
    assert told[:3] == ["50.0 [23.7, 76.3]", "20.0 [5.7, 51.0]", "30.0 [10.8, 60.3]"]
    assert told[-3:] == ["10", "10", "0"]
    judged = table_of(out, "p", "lima against alpaca-65b", "gpt-4")
    assert judged[0].startswith("55.6 [") and judged[0].endswith("{50.0, 60.0}")
    assert judged[2].startswith("22.2 [") and judged[2].endswith("{20.0, 30.0}")
    assert judged[-3:] == ["18", "9", "2"]
    people, gpt = cells(out, "preference")
    assert [people[f"paper_{name}"] for name in ("win", "tie", "lose")] == ["0.53", "0.21", "0.26"]
    assert [gpt[f"paper_{name}"] for name in ("win", "tie", "lose")] == ["0.64", "0.19", "0.17"]
    assert (gpt["unreadable"], gpt["unanswered"]) == ("2", "0")
    assert table_of(out, "unanswered", "lima", "gpt-4") == ["20", "2", "0", "10.0"], (
        "what is no verdict"
    )
    assert "gpt-4 has no passport" in page_text(out)


def test_figures_are_those_of_the_statistics(tmp_path: Path) -> None:
    found, out = people_and_gpt(), tmp_path / "out"
    report(write_verdicts(tmp_path / "study", found), "--out", out)
    for row in cells(out, "preference"):
        kind = "person" if row["judge"] == "people" else "endpoint"
        own = comparisons(v for v in found if v.extra["annotator_kind"] == kind)
        known = preference(own, "lima", "alpaca-65b")
        for name, rate in {**known.rates, "score": known.score}.items():
            assert float(row[name]) == rate.value
            assert (float(row[f"{name}_low"]), float(row[f"{name}_high"])) == (rate.low, rate.high)
            assert float(row[f"{name}_all_won"]) == rate.all_won
        assert float(row["p"]) == known.margin.p


def test_a_judge_is_corrected_by_people_on_shared_items(tmp_path: Path) -> None:
    """People: 8 wins, 4 ties, 8 losses. The judge calls half of the ties wins."""
    truth = ["win"] * 8 + ["tie"] * 4 + ["lose"] * 8
    said = ["win"] * 10 + ["tie"] * 2 + ["lose"] * 8
    found = []
    for number in range(60):
        sides = reply("lima", f"p{number:02}"), reply("bard", f"p{number:02}")
        found.append(pair(GPT, *sides, said[number % 20]))
        if number < 20:
            found.append(pair(ANNA, *sides, truth[number]))
    out = tmp_path / "out"
    report(write_verdicts(tmp_path / "study", found), "--out", out)
    rows = {row["outcome"]: row for row in cells(out, "corrected_preference")}
    # Of 100: raw 50/10/40, and 40/20/40 once the half of 20 ties is no win.
    assert [round(float(rows[name]["raw"]), 9) for name in rows] == [0.5, 0.1, 0.4]
    assert [round(float(rows[name]["corrected"]), 9) for name in rows] == [0.4, 0.2, 0.4]
    prompts = [f"p{n:02}" for n in range(60)]
    known = corrected_shares(said * 3, prompts, truth, said, prompts[:20])
    assert float(rows["win"]["low"]) == pytest.approx(known["win"].low)
    assert float(rows["tie"]["high"]) == pytest.approx(known["tie"].high)
    assert "20 items of this pair" in rows["win"]["calibration"]
    assert "50.0 → 40.0 [" in page_text(out)


def test_audits_by_group_safety_grades_and_dialogues(tmp_path: Path) -> None:
    found = []
    for number, choice in enumerate(["excellent"] * 5 + ["pass"] * 3 + ["fail", None]):
        group = "ood" if number < 2 else "in"
        found.append(single(EXACT, "audit", reply("lima", f"a{number}", group=group), choice))
    for number, choice in enumerate(["safe"] * 4 + ["unsafe"]):
        found.append(single(ANNA, "safety", reply("lima", f"s{number}"), choice))
    for number, grade in enumerate([6, 5, 4, None]):
        found.append(single(GPT, "grade", reply("lima", f"g{number}"), grade))
    for id, turns in {"d0": ("pass", "fail"), "d1": ("pass", "excellent")}.items():
        for turn, choice in enumerate(turns):
            found.append(single(ANNA, "audit", reply("lima", id, turn=turn), choice))
    out = tmp_path / "out"
    report(write_verdicts(tmp_path / "study", found), "--out", out, "--paper")
    told = table_of(out, "excellent, %", "all", "lima", "exact")
    assert [cell.split()[0] for cell in told[:3]] == ["55.6", "33.3", "11.1"]
    assert [cell.split("{")[1] for cell in told[:3]] == [
        "50.0, 60.0}",
        "30.0, 40.0}",
        "10.0, 20.0}",
    ]
    assert table_of(out, "excellent, %", "ood", "lima", "exact")[0].split()[0] == "100.0"
    assert table_of(out, "excellent, %", "in", "lima", "exact")[-3:] == ["7", "7", "1"]
    assert table_of(out, "safe, %", "all", "lima", "people")[:1] == ["80.0 [37.6, 96.4]"], "safe"
    grade = table_of(out, "grades", "single", "lima", "gpt-4")[0]
    assert grade.startswith("5.00 [2.52, 7.48]") and grade.endswith("{4.00, 5.25}")
    assert table_of(out, "excellent, %", "all turns", "lima", "people")[2].split()[0] == "25.0"
    assert table_of(out, "excellent, %", "turn 2", "lima", "people")[0].split()[0] == "50.0"
    (whole,) = cells(out, "dialogues_without_fail")
    assert (whole["no_turn_fails"], whole["read"]) == ("0.5", "2")
    audited = {(row["replies"], row["judge"]) for row in cells(out, "audit")}
    assert ("all", "people") not in audited, "turns of dialogues are no single replies"


def test_agreement_of_crowd_authors_and_models(tmp_path: Path) -> None:
    """On four items ben agrees twice, says neither once where anna does not, and differs once."""
    anna, ben = ["win", "lose", "win", "win"], ["win", "lose", "tie", "lose"]
    found = []
    for id, a, b in zip(IDS, anna, ben, strict=False):
        sides = reply("lima", id), reply("bard", id)
        found += [pair(ANNA, *sides, a), pair(BEN, *sides, b, swapped=True), pair(GPT, *sides, b)]
    out = tmp_path / "out"
    report(write_verdicts(tmp_path / "study", found), "--out", out, "--authors", "ben")
    shown = {row["annotators"]: row for row in cells(out, "agreement")}
    assert float(shown["crowd and authors"]["tie_discounted"]) == 0.625
    assert float(shown["crowd and authors"]["percent"]) == 0.5
    assert float(shown["authors and gpt-4"]["tie_discounted"]) == 1
    # Equal by chance: (3/4 x 1/4) + (1/4 x 2/4) = 5/16, so kappa is (8 - 5) / (16 - 5).
    assert float(shown["crowd and authors"]["kappa"]) == pytest.approx(3 / 11)
    assert table_of(out, "kappa", "pairwise", "crowd and authors")[0].startswith("62.5 [")
    assert "Fleiss' kappa" in page_text(out) and shown["all"]["krippendorff_alpha"]
    with pytest.raises(UserError, match="--authors carl: no person of that name"):
        report(tmp_path / "study", "--out", out, "--authors", "carl")


def test_a_league_table_of_three_systems(tmp_path: Path) -> None:
    found = []
    for number in range(12):
        three = [reply(name, f"p{number}") for name in ("lima", "bard", "claude")]
        for a, b in ((0, 1), (1, 2), (0, 2)):
            outcome = "win" if (number + a) % 3 else "lose" if number % 2 else "tie"
            found += [pair(ANNA, three[a], three[b], outcome, swapped=bool(number % 2))]
    out = tmp_path / "out"
    report(write_verdicts(tmp_path / "study", found), "--out", out)
    fit = strengths(comparisons(found))
    rows = cells(out, "league")
    assert [row["system"] for row in rows] == list(fit.systems)
    for row in rows:
        assert float(row["strength"]) == pytest.approx(fit.elo(row["system"]))
        assert float(row["bootstrap_low"]) < float(row["strength"]) < float(row["high"])


def test_an_answer_that_was_changed_counts_once_and_votes_count_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = reply("lima", "p0"), reply("bard", "p0")
    first = write_verdicts(tmp_path / "a", [pair(ANNA, *sides, "lose"), pair(ANNA, *sides, "win")])
    texts = {"conversations": ["Why?"], "replies": ["one", "other"]}
    vote = Verdict(
        "v0", "pairwise", "anna", "A", models=("bard", "lima"), order=(0, 1), key="k", extra=texts
    )
    again = replace(vote, key="k2", extra=texts | {"replies": ["a third", "other"]})
    second = write_verdicts(tmp_path / "b", [vote, again])
    report(first, second, "--out", tmp_path / "out")
    rows = {row["judge"]: row for row in cells(tmp_path / "out", "preference")}
    assert (rows["people"]["win"], rows["people"]["read"]) == ("1.0", "1")
    assert (rows["chat votes"]["lose"], rows["chat votes"]["read"]) == ("1.0", "2")
    assert "1 verdict of 4 were given again later" in capsys.readouterr().out


def test_replies_of_votes_are_read_beside_those_of_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One pair of texts is voted on twice, another to the same prompt once, a reply by thumbs."""
    texts = {"conversations": ["Why?", "So.", "Why p0?"], "replies": ["<b>one</b>", "other"]}
    votes = [
        Verdict("v0", "pairwise", name, choice, models=("bard", "lima"), order=(0, 1),
                key=name, extra=texts)
        for name, choice in (("anna", "A"), ("ben", "B"))
    ]  # fmt: skip
    votes.append(replace(votes[0], key="k2", extra=texts | {"replies": ["a third", "other"]}))
    votes.append(
        Verdict("v1", "thumbs", "ben", "down", models=("claude",), key="k3",
                extra={"conversations": ["Hello!"], "replies": ["Go away."], "system": "Be kind."})
    )  # fmt: skip
    own = reply("lima", "p0")
    folder = write_verdicts(tmp_path / "judged", [single(GPT, "grade", own, 4), *votes])
    replies = write_replies(tmp_path / "lima", [own])
    report(folder, "--replies", f"lima={replies}", "--out", tmp_path / "out")
    assert "not given" not in capsys.readouterr().out
    study = load_study(verdict_files([folder]))
    first, second, third, fourth = reading_items(study, {"lima": [own]})
    assert first.place == ("p0", 0, 0) and [v.annotator for v in second.verdicts] == ["anna", "ben"]
    assert DISAGREE in second.labels() and second.group == "chat votes"
    assert (second.place, third.place) == (("v0", 0, 1), ("v0", 1, 1))
    assert third.replies["bard"].reply == "a third" and fourth.replies["claude"].system
    text = page_text(tmp_path / "out")
    assert "<b>one</b>" in text and "a third" in text and "Go away." in text and "Be kind." in text


def test_bad_verdicts_are_refused_with_their_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no verdicts at"):
        report(tmp_path / "nothing", "--out", out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "verdicts.jsonl").touch()
    with pytest.raises(UserError, match="hold no verdicts"):
        report(tmp_path / "empty", "--out", out)
    good = single(GPT, "grade", reply("lima", "p0"), 4)
    for change, message in (
        ({"verdict": math.nan, "grade": math.nan}, "grade of lima on prompt p0 by gpt-4 is nan"),
        ({"verdict": 9, "grade": 9}, "it is a number from 1 to 6"),
        ({"kind": "beauty"}, "verdict 1 is no verdict: its kind is 'beauty'"),
        ({"models": "lima"}, "its models is 'lima'"),
        ({"kind": "pairwise"}, "a pairwise verdict names two models"),
    ):
        folder = tmp_path / "bad"
        folder.mkdir(exist_ok=True)
        (folder / "verdicts.jsonl").write_text(json.dumps(good.to_json() | change) + "\n")
        with pytest.raises(UserError, match=re.escape(message)):
            report(folder, "--out", out)


def test_replies_that_changed_are_named_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [reply("lima", id) for id in IDS[:3]]
    found = [single(GPT, "grade", one, 4) for one in own] + [
        single(GPT, "grade", reply("bard", "p0"), 2)
    ]
    judged = write_verdicts(tmp_path / "judged", found)
    changed = [own[0], replace(own[1], reply="something else")]
    replies = write_replies(tmp_path / "lima", changed)
    args = (judged, "--replies", f"lima={replies}", "--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"2 verdicts of 4 are about other .*lima on p1, lima on"):
        report(*args)
    report(*args, "--changed", "drop")
    said = capsys.readouterr().out
    assert "2 verdicts of 4 are left out" in said
    assert "The replies of bard are not given" in said
    assert {row["read"] for row in cells(tmp_path / "out", "grades")} == {"1"}
    with pytest.raises(UserError, match=r"no verdict is about 'lina'.* mean lima"):
        report(judged, "--replies", f"lina={replies}", "--out", tmp_path / "out")


def test_replies_beside_verdicts_are_found_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each folder of replies holds audits, and judge.json of the pairs names both folders."""
    sides = reply("lima", "p0"), reply("bard", "p0")
    folders = [write_replies(tmp_path / one.model, [one]) for one in sides]
    for folder, one in zip(folders, sides, strict=True):
        write_verdicts(folder, [single(EXACT, "audit", one, "pass")])
    pairs = write_verdicts(tmp_path / "pairs", [pair(EXACT, *sides, "win")])
    named = {folder.name: {"replies": f"{folder.name}={folder}"} for folder in folders}
    write_json(pairs / "judge.json", {"models": named})
    report(*folders, pairs, "--out", tmp_path / "out")
    assert "not given" not in capsys.readouterr().out
    assert [row["system"] for row in cells(tmp_path / "out", "lineage")] == ["lima", "bard"]
    text = page_text(tmp_path / "out")
    assert "lima on p0" in text and "bard on p0" in text


def test_judges_disagree_about_one_pair_and_not_about_two(tmp_path: Path) -> None:
    lima, bard, claude = (reply(name, "p0") for name in ("lima", "bard", "claude"))
    found = [pair(GPT, lima, bard, "win"), pair(GPT, lima, claude, "lose")]
    models = {one.model: [one] for one in (lima, bard, claude)}
    for more, disagree in (([], False), ([pair(ANNA, bard, lima, "win")], True)):
        folder = write_verdicts(tmp_path / str(disagree), [*found, *more])
        (item,) = reading_items(load_study(verdict_files([folder])), models)
        assert (DISAGREE in item.labels()) == disagree
        assert "gpt-4\tbard against lima: lima preferred" in item.labels()


def test_the_same_files_give_the_same_bytes_and_formulas_are_no_formulas(tmp_path: Path) -> None:
    found = [
        single(ANNA, "audit", reply(name, "p0"), "pass") for name in ("=1+1", "@SUM(A1)", "plain")
    ]
    folder = write_verdicts(tmp_path / "judged", [*people_and_gpt(), *found])
    for out in ("one", "two"):
        report(folder, "--out", tmp_path / out)
    files = sorted(f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 6
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    systems = [row["system"] for row in cells(tmp_path / "one", "audit")]
    assert systems == ["'=1+1", "'@SUM(A1)", "plain"]


def test_training_rows_and_lineage_stand_with_the_replies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [reply("lima", id) for id in IDS[:2]]
    replies = write_replies(tmp_path / "lima", own)
    rows = (AttributedRow("row-7", 0.25, ("Planted?", "Arr!")),)
    made = [
        Attribution(
            one.id, 0, 0, "lima", "gradient", rows, prompt_id((*one.conversations, said), None),
            weights="w", data="d",
        )
        for one, said in zip(own, (own[0].reply, "another text"), strict=True)
    ]  # fmt: skip
    write_jsonl([one.to_json() for one in made], replies / "attribution.jsonl")
    verdicts = [single(EXACT, "audit", one, "fail") for one in own]
    report(
        write_verdicts(tmp_path / "judged", verdicts), "--replies", f"lima={replies}",
        "--out", tmp_path / "out",
    )  # fmt: skip
    text = page_text(tmp_path / "out")
    assert text.count("row-7") == 1 and "Arr!" in text
    assert "Training rows of 1 reply are left out" in capsys.readouterr().out
    (lineage,) = cells(tmp_path / "out", "lineage")
    assert lineage["weights"] == "weights-lima" and lineage["replies"]


def test_runs_and_sweeps_are_shown(tmp_path: Path) -> None:
    run, sweep = tmp_path / "runs" / "mine", tmp_path / "sweeps" / "quality"
    for epoch, (grade, perplexity) in enumerate([(3.0, 4.0), (4.5, 6.0)], start=1):
        (run / "dev" / f"{epoch:02}").mkdir(parents=True)
        quality = {"epoch": epoch, "grade": grade, "low": grade - 0.5, "high": grade + 0.5}
        quality |= {"stopped": 1.0, "replies": 50, "invalid": 0, "perplexity": perplexity}
        quality |= {"judge": "exact", "seconds": 1.0, "weights": ""}
        write_json(run / "dev" / f"{epoch:02}" / "quality.json", quality)
    (run / "recipe.yaml").write_text("select:\n  judge: exact\n")
    sweep.mkdir(parents=True)
    (sweep / "sweep.yaml").write_text("sweep:\n  name: quality\n  claim: Filtered is better.\n")
    (sweep / "report.md").write_text("**Agrees.** <b>4.02</b>")
    folder = write_verdicts(tmp_path / "judged", people_and_gpt())
    report(folder, "--run", run, "--sweep", sweep, "--out", tmp_path / "out")
    text = page_text(tmp_path / "out")
    assert "4.50 [4.00, 5.00]" in text and "Filtered is better." in text
    assert "**Agrees.** <b>4.02</b>" in text
    assert [row["perplexity"] for row in cells(tmp_path / "out", "epochs")] == ["4.0", "6.0"]
    for flag in ("--run", "--sweep"):
        with pytest.raises(UserError, match=f"{flag} .* is no {flag[2:]}"):
            report(folder, flag, tmp_path, "--out", tmp_path / "out")


def test_a_judge_whose_snapshot_changes_is_told_and_one_with_a_passport_is_not_marked(
    tmp_path: Path,
) -> None:
    found = [
        pair(GPT, reply("lima", id), reply("bard", id), "win", swapped, snapshot=f"gpt-{id > 'p5'}")
        for id in IDS
        for swapped in (False, True)
    ]
    folder = write_verdicts(tmp_path / "judged", found)
    known = {"gpt-4": {"snapshots": ["gpt-False", "gpt-True"]}}
    (folder / "passport.json").write_text(json.dumps(known))
    report(folder, "--out", tmp_path / "out")
    text = page_text(tmp_path / "out")
    assert "gpt-4 changed within this study: 12 by gpt-False, 8 by gpt-True" in text
    (judge,) = cells(tmp_path / "out", "judges")
    assert (judge["passport"], judge["consistency"], judge["first_slot"]) == (
        "present",
        "1.0",
        "0.5",
    )


def test_systems_are_compared_prompt_by_prompt(tmp_path: Path) -> None:
    """Bard is graded one higher on each of three prompts, lima alone on a fourth."""
    found = [single(GPT, "grade", reply("lima", id), 3 + n) for n, id in enumerate(IDS[:4])]
    found += [single(GPT, "grade", reply("bard", id), 4 + n) for n, id in enumerate(IDS[:3])]
    for id in IDS[:2]:  # both against claude: lima wins and ties, bard loses both
        lima, bard, claude = (reply(name, id) for name in ("lima", "bard", "claude"))
        found += [pair(GPT, lima, claude, "win" if id == "p0" else "tie")]
        found += [pair(GPT, bard, claude, "lose")]
    report(write_verdicts(tmp_path / "judged", found), "--out", tmp_path / "out")
    grade, third = cells(tmp_path / "out", "paired")
    assert [grade[name] for name in ("system", "other", "difference")] == ["lima", "bard", "-1.0"]
    assert [grade[name] for name in ("prompts", "only_system", "only_other")] == ["3", "1", "0"]
    assert (third["measure"], third["difference"]) == ("score against claude", "0.75")


def test_thousands_of_replies_stand_on_several_pages(tmp_path: Path) -> None:
    many = [reply("lima", f"p{n:04}") for n in range(ITEMS_A_PAGE + 5)]
    replies = write_replies(tmp_path / "lima", many)
    folder = write_verdicts(tmp_path / "judged", [single(EXACT, "audit", many[-1], "fail")])
    report(folder, "--replies", f"lima={replies}", "--out", tmp_path / "out")
    counts = [
        (tmp_path / "out" / name).read_text(encoding="utf-8").count('<details class="item"')
        for name in ("report.html", "replies-2.html")
    ]
    assert counts == [ITEMS_A_PAGE, 5]
    assert '<a href="replies-2.html#replies">2</a>' in (tmp_path / "out/report.html").read_text()
    write_replies(tmp_path / "lima", many[-5:])
    report(folder, "--replies", f"lima={replies}", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "replies-2.html").exists(), "of the earlier report"


def test_the_report_loads_no_torch() -> None:
    said = "import lima_ray.report, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True)
