"""The fit under Bradley-Terry and the length slope: win, tie or lose from a weighted difference.

A comparison with difference d = D b has Davidson's (1970) probabilities: win exp(d / 2), tie
exp(t), lose exp(-d / 2), each over their sum. Without ties it is the logistic regression of wins
on D; with `halves` a tie is half a win and half a loss. The negative log likelihood, with its
ridge, is convex, and Newton's method with halved steps finds its one minimum.

Shapes: N comparisons, P coefficients of the difference, T of the tie; Q = P + T.
"""

from dataclasses import dataclass

import numpy as np

MAX_STEPS = 200
TOLERANCE = 1e-11
"""Newton's decrement, relative to the weight of all comparisons."""


@dataclass(frozen=True)
class Design:
    """What is known of each comparison."""

    difference_NP: np.ndarray
    tie_NT: np.ndarray
    """No columns where ties are halves or there is none; a row of zeros cannot end in a tie."""
    points_N: np.ndarray
    """1 a win, 0.5 a tie, 0 a loss."""

    @property
    def columns(self) -> int:
        return self.difference_NP.shape[1] + self.tie_NT.shape[1]


def fit(design: Design, weights_N: np.ndarray, ridge_Q: np.ndarray) -> np.ndarray:
    """Return the coefficients (Q) at the minimum; without a ridge it must exist."""
    found_Q = np.zeros(design.columns)
    value = objective(design, found_Q, weights_N, ridge_Q)
    for _ in range(MAX_STEPS):
        gradient_Q = scores(design, found_Q).T @ weights_N - ridge_Q * found_Q
        hessian_QQ = information(design, found_Q, weights_N) + np.diag(ridge_Q)
        step_Q = np.linalg.lstsq(hessian_QQ, gradient_Q, rcond=None)[0]
        decrement = float(gradient_Q @ step_Q)
        if decrement < TOLERANCE**2 * weights_N.sum():
            break
        size = 1.0
        tried = objective(design, found_Q + step_Q, weights_N, ridge_Q)
        # Near the minimum the objective's own rounding hides what a step gains.
        while tried > value - 1e-4 * size * decrement and decrement > 1e-9 and size > 1e-6:
            size /= 2
            tried = objective(design, found_Q + size * step_Q, weights_N, ridge_Q)
        found_Q, value = found_Q + size * step_Q, tried
    return found_Q


def probabilities(design: Design, found_Q: np.ndarray) -> np.ndarray:
    """Return the probability of win, tie and lose of each comparison, (N, 3)."""
    return np.exp(_log_probabilities(design, found_Q))


def objective(
    design: Design, found_Q: np.ndarray, weights_N: np.ndarray, ridge_Q: np.ndarray
) -> float:
    """Return the negative log likelihood, and half the ridge."""
    logs_N3 = _log_probabilities(design, found_Q)
    won_N = design.points_N
    if design.tie_NT.shape[1]:
        which_N = np.select([won_N == 1, won_N == 0.5], [0, 1], 2)
        logs_N = np.take_along_axis(logs_N3, which_N[:, None], 1)[:, 0]
    else:
        logs_N = won_N * logs_N3[:, 0] + (1 - won_N) * logs_N3[:, 2]
    return float(-(weights_N @ logs_N) + (ridge_Q * found_Q**2).sum() / 2)


def scores(design: Design, found_Q: np.ndarray) -> np.ndarray:
    """Return each comparison's gradient of the log likelihood, (N, Q)."""
    won_N3 = probabilities(design, found_Q)
    difference_N = design.points_N - 0.5 - (won_N3[:, 0] - won_N3[:, 2]) / 2
    tied_N = (design.points_N == 0.5) - won_N3[:, 1]
    return np.hstack(
        [design.difference_NP * difference_N[:, None], design.tie_NT * tied_N[:, None]]
    )


def information(design: Design, found_Q: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """Return the Hessian of the negative log likelihood, (Q, Q)."""
    win_N, tie_N, lose_N = probabilities(design, found_Q).T
    gap_N = win_N - lose_N
    d, t = design.difference_NP, design.tie_NT
    within = (d.T * (weights_N * (win_N + lose_N - gap_N**2) / 4)) @ d
    across = (d.T * (-weights_N * gap_N * tie_N / 2)) @ t
    ties = (t.T * (weights_N * tie_N * (1 - tie_N))) @ t
    return np.block([[within, across], [across.T, ties]])


def covariance(
    design: Design, found_Q: np.ndarray, clusters_N: np.ndarray, ridge_Q: np.ndarray
) -> np.ndarray:
    """Return the sandwich H^-1 G H^-1, (Q, Q), G of the scores summed by cluster, C / (C - 1).

    NaN with fewer than two clusters.
    """
    n_clusters = int(clusters_N.max()) + 1
    if n_clusters < 2:
        return np.full((design.columns, design.columns), np.nan)
    scores_CQ = np.zeros((n_clusters, design.columns))
    np.add.at(scores_CQ, clusters_N, scores(design, found_Q))
    inverse_QQ = np.linalg.pinv(
        information(design, found_Q, np.ones(len(clusters_N))) + np.diag(ridge_Q)
    )
    meat_QQ = scores_CQ.T @ scores_CQ * n_clusters / (n_clusters - 1)
    return inverse_QQ @ meat_QQ @ inverse_QQ


def _log_probabilities(design: Design, found_Q: np.ndarray) -> np.ndarray:
    n_difference = design.difference_NP.shape[1]
    half_N = design.difference_NP @ found_Q[:n_difference] / 2
    tie_N = np.where(design.tie_NT.any(1), design.tie_NT @ found_Q[n_difference:], -np.inf)
    utilities_N3 = np.stack([half_N, tie_N, -half_N], 1)
    return utilities_N3 - np.logaddexp.reduce(utilities_N3, 1)[:, None]
