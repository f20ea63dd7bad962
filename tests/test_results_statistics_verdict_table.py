"""From verdicts to figures: what was not read stays apart, and bad verdicts are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Status, Verdict
from lima_ray.results.statistics import absolute, verdict_table
from lima_ray.results.statistics.agreement_table import agreement_table
from lima_ray.results.statistics.preference import compare_paired


def pair(
    prompt: str,
    verdict: str | None,
    models: tuple[str, str] = ("lima", "bard"),
    order: tuple[int, int] = (0, 1),
    annotator: str = "gpt",
    status: Status = "read",
) -> Verdict:
    return Verdict(prompt, "pairwise", annotator, verdict, status, models, order)


def test_a_verdict_counts_for_the_same_system_however_it_was_shown() -> None:
    verdicts = [
        pair("p1", "A"),
        pair("p1", "B", order=(1, 0)),
        pair("p2", "B", models=("bard", "lima")),
        pair("p2", "A", models=("bard", "lima"), order=(1, 0)),
    ]
    found = verdict_table.comparisons(verdicts)
    assert {one.preferred for one in found} == {"lima"}
    assert verdict_table.preference(found, "lima", "bard").win.value == 1
    assert verdict_table.preference(found, "bard", "lima").lose.value == 1
    assert verdict_table.orders(found).consistency.value == 1
    assert verdict_table.slots(found).margin.mean == 0


def test_what_was_not_read_is_no_tie() -> None:
    verdicts = [
        pair("p1", "neither"),
        pair("p2", None, status="unreadable"),
        pair("p3", None, status="unanswered"),
        pair("p4", "A"),
    ]
    found = verdict_table.preference(verdict_table.comparisons(verdicts), "lima", "bard")
    assert (found.tie.value, found.tie.n_read) == (0.5, 2)
    assert (found.tie.n_unreadable, found.tie.n_unanswered) == (1, 1)
    assert (found.win.all_lost, found.win.all_won) == (0.25, 0.75)


def test_a_reply_wins_where_both_orders_prefer_it_and_ties_where_they_disagree() -> None:
    said = {
        "won": ("A", "B"),
        "lost": ("B", "A"),
        "tied": ("neither", "neither"),
        "first": ("A", "A"),
        "half": ("A", "neither"),
        "unread": ("A", None),
    }
    verdicts = [
        pair(prompt, one, order=order, status="read" if one else "unreadable")
        for prompt, both in said.items()
        for one, order in zip(both, ((0, 1), (1, 0)), strict=True)
    ]
    points = verdict_table.points_in_both_orders(verdicts)
    assert {str(pair[0]): value for pair, value in points.items()} == {
        "won": 1,
        "lost": 0,
        "tied": 0.5,
        "first": 0.5,
        "half": 0.5,
    }


def test_other_kinds_of_verdict_are_no_comparisons() -> None:
    assert verdict_table.comparisons([Verdict("p", "grade", "gpt", 3, models=("lima",))]) == []


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (pair("p", "C"), "is 'C'; it is one of A, B, neither"),
        (pair("p", "A", models=("lima", "lima")), "compares models"),
        (replace(pair("p", "A"), models=("lima",)), "compares models"),
        (replace(pair("p", "A"), order=()), r"order \[\]"),
        (replace(pair("p", None), status="read"), "is None"),
    ],
)
def test_bad_verdicts_are_refused(verdict: Verdict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        verdict_table.comparisons([verdict])


def test_a_verdict_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="in the same order twice"):
        verdict_table.comparisons([pair("p", "A"), pair("p", "B")])
    with pytest.raises(UserError, match="in the same order twice"):
        verdict_table.comparisons(
            [pair("p", "A"), pair("p", "A", models=("bard", "lima"), order=(1, 0))]
        )
    found = verdict_table.comparisons([pair("p", "A"), pair("p", "A", annotator="ann")])
    assert len(found) == 2
    with pytest.raises(UserError, match="never compared"):
        verdict_table.preference(found, "lima", "claude")


def test_prompts_that_a_system_lacks_are_named() -> None:
    found = verdict_table.comparisons(
        [pair("p1", "A"), pair("p2", "A"), pair("p1", "B", models=("lima", "claude"))]
    )
    assert verdict_table.lacking_prompts(found) == {"claude": ["p2"]}


def study(seed: int = 0) -> list[Verdict]:
    """Three systems judged by a person in one order, and by a judge that likes A in both."""
    generator = np.random.default_rng(seed)
    strength = {"lima": 0.8, "bard": 0.0, "alpaca": -0.8}
    verdicts = []
    for number in range(120):
        for models in (("lima", "bard"), ("bard", "alpaca"), ("lima", "alpaca")):
            gap = strength[models[0]] - strength[models[1]]
            for annotator, bias in (("gpt", 1.0), ("ann", 0.0)):
                for order in ((0, 1), (1, 0)) if annotator == "gpt" else ((0, 1),):
                    odds = gap * (1 if order == (0, 1) else -1) + bias
                    draw = generator.random()
                    chance = 0.8 / (1 + math.exp(-odds))
                    said = "A" if draw < chance else "B" if draw < 0.8 else "neither"
                    verdicts.append(pair(f"p{number}", said, models, order, annotator))
    return verdicts


def test_strengths_order_bias_and_agreement_come_from_the_same_verdicts() -> None:
    found = verdict_table.comparisons(study())
    table = verdict_table.strengths(found, by_judge=True)
    assert table.systems == ("lima", "bard", "alpaca")
    assert table.covariates["shown first, gpt"].low > 0.5
    assert set(table.ties) == {"gpt", "ann"}
    gpt = [one for one in found if one.annotator == "gpt"]
    assert verdict_table.slots(gpt).margin.p < 0.001
    orders = verdict_table.orders(gpt)
    assert 0.2 < orders.consistency.value < 0.8
    people = {one.pair: one.preferred or "" for one in found if one.annotator == "ann"}
    right = verdict_table.orders(gpt, people).consistent_and_right
    assert right and right.value < orders.consistency.value
    with pytest.raises(UserError, match="judge by judge"):
        verdict_table.orders(found)
    labels = verdict_table.annotations(found, {"ann": "people"})
    rows = {row.groups: row for row in agreement_table(labels, tie=verdict_table.TIE)}
    mixed = next(row for groups, row in rows.items() if set(groups) == {"gpt", "people"})
    assert mixed.n_items == 360 and 0.4 < mixed.tie_discounted.value < 0.8


def test_two_systems_are_compared_through_a_third_prompt_by_prompt() -> None:
    found = verdict_table.comparisons(study())
    lima, alpaca = (verdict_table.points_by_prompt(found, s, "bard") for s in ("lima", "alpaca"))
    difference = compare_paired(lima, alpaca)
    assert difference.low > 0.1 and difference.n_prompts == 120


def test_votes_of_their_own_keys_are_no_duplicates() -> None:
    votes = [replace(pair("p", "A"), key=key) for key in ("vote 1", "vote 2")]
    assert len(verdict_table.comparisons(votes)) == 2


def test_lengths_of_every_pair_are_needed() -> None:
    found = verdict_table.comparisons(study())
    generator = np.random.default_rng(1)
    lengths = {one.pair: float(generator.normal()) for one in found}
    table = verdict_table.strengths(found, lengths=lengths)
    assert table.covariates["length"].low < 0 < table.covariates["length"].high
    lengths.pop(found[0].pair)
    with pytest.raises(UserError, match="has no lengths"):
        verdict_table.strengths(found, lengths=lengths)


def audit(
    prompt: str, verdict: str | None, status: Status = "read", model: str = "lima"
) -> Verdict:
    return Verdict(prompt, "audit", "ann", verdict, status, (model,))


def graded(
    prompt: str, grade: float | None, model: str = "lima", sample: int | None = None
) -> Verdict:
    status: Status = "unreadable" if grade is None else "read"
    return Verdict(prompt, "grade", "gpt", grade, status, (model,), grade=grade, sample=sample)


def test_an_audit_has_shares_and_bounds_of_each_system() -> None:
    verdicts = [
        audit("p1", "excellent"),
        audit("p2", "pass"),
        audit("p3", "fail"),
        audit("p4", None, "unanswered"),
        audit("p1", "fail", model="bard"),
        audit("p2", "fail", model="bard"),
    ]
    found = absolute.rates(verdicts, "audit")
    assert found["lima"]["excellent"].value == pytest.approx(1 / 3)
    assert found["lima"]["excellent"].all_lost == 0.25
    assert found["lima"]["fail"].n_unanswered == 1
    assert found["bard"]["fail"].value == 1 and found["bard"]["fail"].n_unanswered == 0
    with pytest.raises(UserError, match="'good'; it is one of excellent, pass, fail"):
        absolute.rates([audit("p1", "good")], "audit")


def test_grades_have_a_mean_and_bounds_and_pair_by_prompt() -> None:
    verdicts = [
        graded("p1", 4, sample=0),
        graded("p1", 5, sample=1),
        graded("p2", 3),
        graded("p3", None),
        graded("p1", 3, model="bard"),
        graded("p2", 3, model="bard"),
    ]
    found = absolute.grades(verdicts)
    assert found["lima"].mean.mean == 4
    assert (found["lima"].mean.n, found["lima"].mean.n_prompts) == (3, 2)
    assert (found["lima"].all_lowest, found["lima"].all_highest) == (13 / 4, 18 / 4)
    assert (found["lima"].n_unreadable, found["bard"].n_unreadable) == (1, 0)
    by_prompt = absolute.values_by_prompt(verdicts)
    difference = compare_paired(by_prompt["lima"], by_prompt["bard"])
    assert (difference.mean, difference.n_prompts) == (0.75, 2)


@pytest.mark.parametrize("grade", [0, 7, math.nan])
def test_grades_outside_the_scale_are_refused(grade: float) -> None:
    with pytest.raises(UserError, match="a number from 1 to 6"):
        absolute.grades([graded("p1", grade)])


def test_two_verdicts_on_one_reply_are_refused() -> None:
    with pytest.raises(UserError, match="two verdicts of kind grade"):
        absolute.grades([graded("p1", 3), graded("p1", 4)])
    with pytest.raises(UserError, match="it judges one"):
        absolute.grades([replace(graded("p1", 3), models=("lima", "bard"))])
