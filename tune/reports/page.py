"""A study's report: what was found, what failed, how it was measured."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lima_ray.config.storage.working_copy import reading_copy
from lima_ray.results.page.blocks import (
    Block,
    Code,
    Details,
    Heading,
    Inline,
    Items,
    Picture,
    Strong,
    rows_table,
    text,
)
from lima_ray.results.units import counted, format_duration
from tune.reports.finding import finding
from tune.reports.tables import Row, best, epoch_rows, filled, notes, point_rows
from tune.results import Outcome, Study

ERROR_LINES = 3
"""Of a failed training's message that a page quotes."""


def study_blocks(study: Study, pictures: Sequence[Path], best_file: str) -> Iterator[Block]:
    """Yield the page: its pictures, and the best point's recipe, stand beside it."""
    yield Heading(study.sweep.name, 1)
    if study.sweep.claim:
        yield text(f"The claim: {study.sweep.claim}")
    yield from result_blocks(study, pictures, best_file)


def result_blocks(study: Study, pictures: Sequence[Path], best_file: str) -> Iterator[Block]:
    """Yield what was found and how it was measured."""
    if found := finding(study):
        yield text(Strong(found.answer.capitalize()), f". {found.sentence}")
    yield from (Picture(study.sweep.name, file) for file in pictures)
    yield rows_table(point_rows(study))
    yield text(notes(study))
    if study.sweep.every_epoch:
        yield text("Each epoch's replies to the dev prompts:")
        yield rows_table(epoch_rows(study))
    yield from best_point(study, best_file)
    yield from failures(study)
    yield from unfinished(study)
    yield text(Strong("How it was measured"), ". ", *measuring(study))
    rows = filled([lineage(study, outcome) for outcome in study.outcomes])
    shown = [row | {"run": Code(row["run"])} for row in rows]
    yield Details("Trainings", [rows_table(shown)])


def best_point(study: Study, file: str) -> Iterator[Block]:
    """Yield which point to train."""
    if sentences := best(study, file):
        sentences.append("The measuring prompts took no part in this choice.")
        what, colon, rest = " ".join(sentences).partition(":")
        yield text(Strong(what), colon + rest)


def failures(study: Study) -> Iterator[Block]:
    """Yield the trainings that failed, with their errors."""
    failed = [outcome for outcome in study.outcomes if outcome.status == "failed"]
    if failed:
        yield text(Strong(f"{counted(len(failed), 'training')} failed"), ":")
        named = {o.id: f"{study.point_of(o).name}, seed {o.seed} (" for o in failed}
        yield Items([(named[o.id], Code(o.id), f"): {brief(o.error)}") for o in failed])


def brief(error: str) -> str:
    """Return the first lines of a message, or the last of a traceback."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    lines = lines[-1:] if "Traceback" in error else lines[:ERROR_LINES]
    return " ".join(lines) or "no message"


def unfinished(study: Study) -> Iterator[Block]:
    """Name points with seeds that have not ended, and how many a searcher has not proposed."""
    left = []
    for point in study.points:
        ended = {outcome.seed for outcome in study.of(point)}
        missing = [str(seed) for seed in study.sweep.seeds if seed not in ended]
        left += [f"{point.name} (seed {', '.join(missing)})"] if missing else []
    if study.sweep.search == "optuna" and len(study.points) < study.sweep.points:
        left.append(counted(study.sweep.points - len(study.points), "point") + " not drawn yet")
    if left:
        yield text(Strong("Not finished"), f": {'; '.join(left)}.")


def measuring(study: Study) -> Iterator[Inline]:
    """Yield sentences about recipe, epochs, prompts, sampling, judge and time."""
    sweep, recipe = study.sweep, study.recipe
    yield f"Recipe {sweep.recipe} on {recipe.model.base}"
    for number, (name, value) in enumerate(sweep.set.items()):
        yield from (", " if number else " with ", Code(name), f" {value}")
    yield f"; seed {', '.join(map(str, sweep.seeds))} of every point. "
    prompts = sweep.file(sweep.prompts)
    if sweep.metric == "perplexity":
        yield "Measured is the loss of the exported epoch on the replies of "
        yield f"{prompts or recipe.data.heldout}."
    else:
        yield " ".join(judging(study, prompts or str(recipe.data.test)))


def judging(study: Study, prompts: str) -> Iterator[str]:
    """Yield sentences about the replies that were judged."""
    sweep, recipe = study.sweep, study.recipe
    select, sampling = recipe.select, recipe.sampling
    last = min(select.last_epoch, recipe.optim.epochs)
    yield f"Of epochs {select.first_epoch} to {last} the one that replied best to"
    yield f"{recipe.data.dev} is measured: {counted(sweep.samples, 'sample')}"
    done = [outcome for outcome in study.outcomes if outcome.status == "done"]
    verdicts = [(o, v) for o in done for v in o.verdicts if sweep.group in ("", v.group)]
    of_group = f", group {sweep.group}" if sweep.group else ""
    yield f"for each of {counted(len({v.id for _, v in verdicts}), 'prompt')}"
    yield f"({prompts}{of_group}),"
    yield f"temperature {sampling.temperature}, top-p {sampling.top_p}, repetition penalty"
    reference = sweep.file(sweep.reference) or select.reference
    against = f" against {reference} in both orders" if reference else ""
    judge = select.endpoint_model if select.judge == "endpoint" else select.judge
    yield f"{sampling.repetition_penalty}, judged by {judge}{against}."
    if unread := Counter(study.point_of(o).name for o, v in verdicts if not v.was_read):
        counts = ", ".join(f"{count} of {name}" for name, count in unread.items())
        yield f"{counted(unread.total(), 'verdict')} could not be read and are left out: {counts}."
    seconds = sum({outcome.id: outcome.seconds for outcome in study.outcomes}.values())
    yield f"The trainings took {format_duration(seconds)}, added up."


def lineage(study: Study, outcome: Outcome) -> Row:
    """Return where a training stands and what it was made from, with its data card's hashes."""
    card = outcome.run.data_card() if outcome.run.data_card_file.exists() else {}
    return {
        "point": study.point_of(outcome).name,
        "seed": str(outcome.seed),
        "ended": outcome.status,
        "epoch": str(outcome.chosen.epoch) if outcome.chosen else "",
        "rows": str(card.get("data", {}).get("hash", "")),
        "base": str(card.get("base", {}).get("hash", "")),
        "run": os.path.relpath(outcome.run.path, reading_copy(study.path)),
    }
