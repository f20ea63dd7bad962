"""Strengths of systems from pairwise verdicts: Bradley-Terry, with ties and covariates.

    games = Comparisons(["a", "a"], ["b", "c"], [1, 0.5], prompts, {"shown first": [1, -1]})
    table = bradley_terry(games)
    table.strengths, table.win_probability("a", "b"), table.covariates["shown first"].value

Ties follow Davidson (1970), or count as half a win and half a loss (Arena-Rank). A covariate is
added to the difference of strengths: the order (1 where the first system is shown first, -1 where
second), the difference in length, or either of one judge alone (`per_judge`). Strengths are
natural logarithms with mean 0: P(a beats b) / P(b beats a) = exp(a - b).

Shapes: N comparisons, S systems, C prompts, R resamples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lima_ray.config.errors import UserError, join_names
from lima_ray.results.intervals import CONFIDENCE, NAN, QUANTILE
from lima_ray.results.statistics import ordered_logit
from lima_ray.results.statistics.clustered import check_values

RESAMPLE_RIDGE = 1e-3
"""A resample in which a system never wins has no finite strengths; this keeps them far but finite,
and moves others by less than rounding shows."""
LEAST_CURVATURE = 1e-9
"""Of the log likelihood, of columns of length 1; one win in a million comparisons has more."""
ELO_SCALE, ELO_MEAN = 400 / np.log(10), 1000.0


@dataclass(frozen=True)
class Coefficient:
    """A value with its standard error and 95 % interval by the sandwich; NaN of one prompt."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Strengths:
    """What `bradley_terry` finds; in order of `systems`, the strongest first."""

    systems: tuple[str, ...]
    strengths: dict[str, Coefficient]
    covariates: dict[str, Coefficient]
    ties: dict[str, Coefficient]
    """Davidson's logarithm of nu, of all verdicts or of each judge; who calls none has none."""
    covariance_SS: np.ndarray
    n: int
    n_prompts: int

    def difference(self, first: str, second: str) -> Coefficient:
        """Return how much stronger the first is; the ratio of its wins is exp of it."""
        a, b = self.systems.index(first), self.systems.index(second)
        contrast = np.zeros(len(self.systems))
        contrast[a], contrast[b] = 1, -1
        variance = float(contrast @ self.covariance_SS @ contrast)
        value = self.strengths[first].value - self.strengths[second].value
        return _coefficient(value, variance if a != b else 0.0)

    def win_probability(self, first: str, second: str) -> float:
        """Return P(first beats second) / P(either beats the other), covariates at 0."""
        return float(1 / (1 + np.exp(-self.difference(first, second).value)))

    def elo(self, system: str) -> float:
        """Return the strength on the scale of chess: 400 points are odds of 10, the mean 1000."""
        return float(ELO_MEAN + ELO_SCALE * self.strengths[system].value)


@dataclass(frozen=True)
class Comparisons:
    """What systems are compared by, and how ties count; N of each."""

    first: Sequence[str]
    """A system of each comparison, and `second` the other."""
    second: Sequence[str]
    points: Sequence[float]
    """1 where the first wins, 0.5 for a tie, 0 where it loses."""
    prompts: Sequence[Hashable]
    covariates: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By name, a value of each comparison, signed for the first system."""
    ties: Literal["davidson", "half"] = "davidson"
    judges: Sequence[str] | None = None
    """Who judges each; each judge then has its own readiness to call a tie."""


@dataclass(frozen=True)
class Problem:
    """Comparisons as a fit takes them."""

    systems: tuple[str, ...]
    names: tuple[str, ...]
    """Of covariates."""
    judges: tuple[str, ...]
    design: ordered_logit.Design
    to_strengths_SP: np.ndarray
    prompt_N: np.ndarray


def bradley_terry(comparisons: Comparisons, ridge: float = 0.0) -> Strengths:
    """Return strengths with sandwich intervals, clustered by prompt.

    Args:
        comparisons: of two systems or more.
        ridge: half of it times the square of each coefficient is added to the objective.

    Raises:
        UserError: coefficients are not finite: some systems never win or never lose against the
            rest, a covariate alone decides, or a judge calls everything a tie; or a covariate
            cannot be told from strengths, such as the order where each pair is shown in one.
    """
    data = _problem(comparisons)
    if not ridge:
        refuse_unbounded(data.systems, comparisons)
        refuse_confounded(data)
    n = len(comparisons.points)
    ridge_Q = np.full(data.design.columns, ridge)
    found_Q = ordered_logit.fit(data.design, np.ones(n), ridge_Q)
    if not ridge:
        refuse_separated(data, found_Q)
    covariance_QQ = ordered_logit.covariance(data.design, found_Q, data.prompt_N, ridge_Q)
    all_AQ = _expansion(data)
    values_A, covariance_AA = all_AQ @ found_Q, all_AQ @ covariance_QQ @ all_AQ.T
    found = [_coefficient(v, c) for v, c in zip(values_A, np.diag(covariance_AA), strict=True)]
    n_systems, n_names = len(data.systems), len(data.names)
    order = np.argsort(-values_A[:n_systems], kind="stable")
    return Strengths(
        systems=tuple(data.systems[s] for s in order),
        strengths={data.systems[s]: found[s] for s in order},
        covariates=dict(zip(data.names, found[n_systems:], strict=False)),
        ties=dict(zip(data.judges, found[n_systems + n_names :], strict=True)),
        covariance_SS=covariance_AA[np.ix_(order, order)],
        n=n,
        n_prompts=int(data.prompt_N.max()) + 1,
    )


def bootstrap_strengths(
    comparisons: Comparisons, resamples: int = 500
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each strength, prompts drawn again with all their verdicts.

    Orders and samples of a prompt stay together: drawing verdicts alone makes it too narrow.
    """
    data = _problem(comparisons)
    n_prompts = int(data.prompt_N.max()) + 1
    if n_prompts < 2:
        return dict.fromkeys(data.systems, (NAN, NAN))
    refuse_confounded(data)
    design, group_N = _grouped(data.design)
    ridge_Q = np.full(design.columns, RESAMPLE_RIDGE)
    chances = np.full(n_prompts, 1 / n_prompts)
    draws_RC = np.random.default_rng(0).multinomial(n_prompts, chances, size=resamples)
    strengths_RS = np.empty((resamples, len(data.systems)))
    n_difference = data.to_strengths_SP.shape[1]
    for number, draw_C in enumerate(draws_RC):
        weights = np.bincount(group_N, weights=draw_C[data.prompt_N].astype(float))
        found_Q = ordered_logit.fit(design, weights, ridge_Q)
        strengths_RS[number] = data.to_strengths_SP @ found_Q[:n_difference]
    tail = (1 - CONFIDENCE) / 2
    low_S, high_S = np.quantile(strengths_RS, [tail, 1 - tail], axis=0)
    return {s: (float(low_S[i]), float(high_S[i])) for i, s in enumerate(data.systems)}


def per_judge(name: str, values: Sequence[float], judges: Sequence[str]) -> dict[str, list[float]]:
    """Return one covariate for each judge: the value where that judge judges, elsewhere 0."""
    return {
        f"{name}, {judge}": [v if j == judge else 0.0 for v, j in zip(values, judges, strict=True)]
        for judge in dict.fromkeys(judges)
    }


def refuse_unbounded(systems: Sequence[str], comparisons: Comparisons) -> None:
    """Refuse where no finite strengths exist (Ford 1957): a group that never beats the others.

    A tie counts for both.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = {system: s for s, system in enumerate(systems)}
    edges = {
        edge
        for a, b, y in zip(comparisons.first, comparisons.second, comparisons.points, strict=True)
        for edge, beats in (((place[a], place[b]), y > 0), ((place[b], place[a]), y < 1))
        if beats
    }
    rows, columns = zip(*edges, strict=True)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(systems),) * 2)
    count, group_S = connected_components(graph, directed=True, connection="strong")
    if count > 1:
        groups: list[list[str]] = [[] for _ in range(count)]
        for system, number in zip(systems, group_S, strict=True):
            groups[number].append(system)
        names = join_names(["{" + ", ".join(group) + "}" for group in groups])
        raise UserError(
            f"systems have no finite strengths: among the groups {names} one never wins, never "
            "loses, or is never compared with another; compare more, or give a ridge such as 0.5"
        )


def refuse_confounded(data: Problem) -> None:
    """Refuse covariates that are strengths in other words: half of each would be made up."""
    columns = data.design.difference_NP.shape[1]
    if data.names and np.linalg.matrix_rank(data.design.difference_NP) < columns:
        raise UserError(
            f"{join_names(list(data.names))} cannot be told from the strengths of systems, as the "
            "order cannot where each pair is shown in one order; leave it out, or compare in both"
        )


def refuse_separated(data: Problem, found_Q: np.ndarray) -> None:
    """Refuse where covariates alone decide: the likelihood grows without end, and is flat there."""
    design = data.design
    scale_Q = np.linalg.norm(np.hstack([design.difference_NP, design.tie_NT]), axis=0)
    curvature_QQ = ordered_logit.information(design, found_Q, np.ones(len(design.points_N)))
    if np.linalg.eigvalsh(curvature_QQ / np.outer(scale_Q, scale_Q))[0] < LEAST_CURVATURE:
        raise UserError(
            f"the coefficients of {join_names(list(data.names))} are not finite: they alone "
            "decide, as the order does for a judge who always takes one side; leave them out, or "
            "give a ridge such as 0.5"
        )


def _problem(comparisons: Comparisons) -> Problem:
    first, second, prompts = comparisons.first, comparisons.second, comparisons.prompts
    points_N, prompt_N = check_values(comparisons.points, prompts)
    if not len(points_N):
        raise UserError("there is no verdict that was read, so systems have no strengths")
    if not np.isin(points_N, (0, 0.5, 1)).all():
        raise ValueError("points are 1 for a win, 0.5 for a tie, 0 for a loss")
    if same := [a for a, b in zip(first, second, strict=True) if a == b]:
        raise ValueError(f"{same[0]!r} is compared with itself")
    systems = tuple(sorted({*first, *second}))
    place = {system: s for s, system in enumerate(systems)}
    signs_NS = np.zeros((len(points_N), len(systems)))
    rows = np.arange(len(points_N))
    signs_NS[rows, [place[a] for a in first]] = 1
    signs_NS[rows, [place[b] for b in second]] = -1
    # Strengths sum to 0: an orthonormal basis of what is left.
    basis_SP = np.linalg.svd(np.ones((1, len(systems))))[2][1:].T
    covariates = comparisons.covariates
    columns = [check_values(values, prompts)[0][:, None] for values in covariates.values()]
    names, tie_NT = _tie_columns(comparisons, points_N)
    design = ordered_logit.Design(np.hstack([signs_NS @ basis_SP, *columns]), tie_NT, points_N)
    return Problem(systems, tuple(covariates), names, design, basis_SP, prompt_N)


def _tie_columns(
    comparisons: Comparisons, points_N: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return who calls ties, and for each comparison which of them judges it, (N, T)."""
    if comparisons.ties == "half" or not (points_N == 0.5).any():
        return (), np.zeros((len(points_N), 0))
    judges = comparisons.judges
    who = list(judges) if judges is not None else ["all"] * len(points_N)
    tied = {j for j, y in zip(who, points_N, strict=True) if y == 0.5}
    decided = {j for j, y in zip(who, points_N, strict=True) if y != 0.5}
    if always := tied - decided:
        whose = f"verdict of {join_names(sorted(always))}" if judges else "verdict"
        raise UserError(
            f"every {whose} is a tie, so Davidson's tie parameter is not finite; count ties as "
            "halves, or leave these verdicts out"
        )
    names = tuple(judge for judge in dict.fromkeys(who) if judge in tied)
    return names, np.array([[float(j == name) for name in names] for j in who])


def _expansion(data: Problem) -> np.ndarray:
    """Return the matrix from the fit's coefficients to strengths, covariates and ties."""
    n_systems, n_basis = data.to_strengths_SP.shape
    others = data.design.columns - n_basis
    matrix = np.zeros((n_systems + others, data.design.columns))
    matrix[:n_systems, :n_basis] = data.to_strengths_SP
    matrix[n_systems:, n_basis:] = np.eye(others)
    return matrix


def _grouped(design: ordered_logit.Design) -> tuple[ordered_logit.Design, np.ndarray]:
    """Return the design of distinct comparisons, and which of them each one is."""
    n_difference = design.difference_NP.shape[1]
    table = np.column_stack([design.difference_NP, design.tie_NT, design.points_N])
    distinct, group_N = np.unique(table, axis=0, return_inverse=True)
    parts = distinct[:, :n_difference], distinct[:, n_difference:-1], distinct[:, -1]
    return ordered_logit.Design(*parts), group_N.ravel()


def _coefficient(value: float, variance: float) -> Coefficient:
    error = float(np.sqrt(max(variance, 0.0))) if not np.isnan(variance) else NAN
    half = QUANTILE * error
    return Coefficient(float(value), error, float(value - half), float(value + half))
