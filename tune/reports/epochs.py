"""What every epoch of a point's trainings replied to the dev prompts, over seeds."""

from dataclasses import dataclass

import numpy as np

from lima_ray.records.verdict import read_verdicts
from lima_ray.results.intervals import Estimate, crossed_mean
from tune.results import METRICS, Outcome, Study, by_prompt
from tune.space import Point


@dataclass(frozen=True)
class Epoch:
    number: int
    """Counted from 1."""
    value: Estimate
    """Grade or win rate of the dev replies, over seeds and dev prompts."""
    values_S: np.ndarray
    """Mean of each seed."""
    stopped: float
    """Share of dev replies that EOT ended."""
    perplexity_S: np.ndarray
    """Of the held-out dialogues, by seed; NaN where the recipe names none."""


def epochs(study: Study, point: Point) -> list[Epoch]:
    """Return the epochs that every seed of a point has, in order; none where no seed is done."""
    done = study.done(point)
    by_seed = [{q.epoch: q for q in outcome.qualities} for outcome in done]
    common = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    found = []
    for number in common:
        qualities = [qualities[number] for qualities in by_seed]
        values_SP = np.array([dev_values_P(outcome, number) for outcome in done])
        found.append(
            Epoch(
                number=number,
                value=crossed_mean(values_SP),
                values_S=np.nanmean(values_SP, axis=1),
                stopped=float(np.mean([q.stopped for q in qualities])),
                perplexity_S=np.array([q.perplexity for q in qualities], dtype=float),
            )
        )
    return found


def dev_values_P(outcome: Outcome, epoch: int) -> np.ndarray:
    """Return the mean value (P) of an epoch's replies to each dev prompt, by id; NaN if unread."""
    verdicts = read_verdicts(outcome.run.dev_dir(epoch) / "verdicts.jsonl")
    return by_prompt(verdicts, METRICS[outcome.run.recipe().select.metric])
