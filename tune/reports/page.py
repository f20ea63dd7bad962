"""A study's report in Markdown: what was found, what failed, how it was measured."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lima_ray.results.page import embed_figure, markdown_page, markdown_table
from lima_ray.results.units import counted, format_duration
from tune.reports.finding import finding
from tune.reports.tables import Row, best, epoch_rows, filled, notes, point_rows
from tune.results import Outcome, Study

ERROR_LINES = 3
"""Of a failed training's message that a page quotes."""


def study_page(study: Study, pictures: Sequence[Path], best_file: str) -> str:
    """Write the page, beside its pictures and the best point's recipe."""
    found, claim = finding(study), study.sweep.claim
    return markdown_page(
        f"# {study.sweep.name}",
        f"The claim: {claim}" if claim else "",
        f"**{found.answer.capitalize()}.** {found.sentence}" if found else "",
        *(embed_figure(study.sweep.name, file) for file in pictures),
        markdown_table(point_rows(study)),
        notes(study),
        "Each epoch's replies to the dev prompts:" if study.sweep.every_epoch else "",
        markdown_table(epoch_rows(study)) if study.sweep.every_epoch else "",
        "\n".join(best_point(study, best_file)),
        "\n".join(failures(study)),
        unfinished(study),
        f"**How it was measured.** {' '.join(measuring(study))}",
        "<details><summary>Trainings</summary>",
        markdown_table(filled([lineage(study, outcome) for outcome in study.outcomes])),
        "</details>",
    )


def best_point(study: Study, file: str) -> Iterator[str]:
    """Yield which point to train."""
    if sentences := best(study, f"`{file}`"):
        yield sentences[0].replace("Best on the dev prompts:", "**Best on the dev prompts:**")
        yield from sentences[1:]
        yield "The measuring prompts took no part in this choice."


def failures(study: Study) -> Iterator[str]:
    """Yield the trainings that failed, with their errors."""
    failed = [outcome for outcome in study.outcomes if outcome.status == "failed"]
    if failed:
        yield f"**{counted(len(failed), 'training')} failed:**\n"
    for outcome in failed:
        name = f"{study.point_of(outcome).name}, seed {outcome.seed}"
        yield f"- {name} (`{outcome.id}`): {brief(outcome.error)}"


def brief(error: str) -> str:
    """Return the first lines of a message, or the last of a traceback."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    lines = lines[-1:] if "Traceback" in error else lines[:ERROR_LINES]
    return " ".join(lines) or "no message"


def unfinished(study: Study) -> str:
    """Name points with seeds that have not ended, and how many a searcher has not proposed."""
    left = []
    for point in study.points:
        ended = {outcome.seed for outcome in study.of(point)}
        missing = [str(seed) for seed in study.sweep.seeds if seed not in ended]
        left += [f"{point.name} (seed {', '.join(missing)})"] if missing else []
    if study.sweep.search == "optuna" and len(study.points) < study.sweep.points:
        left.append(counted(study.sweep.points - len(study.points), "point") + " not drawn yet")
    return f"**Not finished:** {'; '.join(left)}." if left else ""


def measuring(study: Study) -> Iterator[str]:
    """Yield sentences about recipe, epochs, prompts, sampling, judge and time."""
    sweep, recipe = study.sweep, study.recipe
    select, sampling, seeds = recipe.select, recipe.sampling, ", ".join(map(str, sweep.seeds))
    fields = ", ".join(f"`{name}` {value}" for name, value in sweep.set.items())
    yield f"Recipe {sweep.recipe} on {recipe.model.base}{f' with {fields}' if fields else ''};"
    yield f"seed {seeds} of every point."
    if sweep.metric == "perplexity":
        yield "Measured is the loss of the exported epoch on the replies of"
        yield f"{sweep.file(sweep.prompts) or recipe.data.heldout}."
        return
    last = min(select.last_epoch, recipe.optim.epochs)
    yield f"Of epochs {select.first_epoch} to {last} the one that replied best to"
    yield f"{recipe.data.dev} is measured: {counted(sweep.samples, 'sample')}"
    done = [outcome for outcome in study.outcomes if outcome.status == "done"]
    verdicts = [(o, v) for o in done for v in o.verdicts if sweep.group in ("", v.group)]
    of_group = f", group {sweep.group}" if sweep.group else ""
    yield f"for each of {counted(len({v.id for _, v in verdicts}), 'prompt')}"
    yield f"({sweep.file(sweep.prompts) or recipe.data.test}{of_group}),"
    yield f"temperature {sampling.temperature}, top-p {sampling.top_p}, repetition penalty"
    yield f"{sampling.repetition_penalty}, judged by {select.judge_name}."
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
        "run": f"`{os.path.relpath(outcome.run.path, study.path)}`",
    }
