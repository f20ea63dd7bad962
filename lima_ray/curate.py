"""Choose a thousand examples from raw dumps: filter, remove repeats and leaks, draw, write a card.

    python -m lima_ray.curate lima-1000 --inputs dumps
    python -m lima_ray.curate lima-1000 --inputs dumps --sources.wikihow.rows 100 --review
    python -m lima_ray.curate --census dumps/cooking.stackexchange.com.7z

A recipe names dumps (Stack Exchange, wikiHow, Reddit, Super-NaturalInstructions, rows of your own),
the rule for each, and how many rows of it (LIMA section 2). Dumps are read in pieces over the Ray
cluster, in constant memory; the result is the same row for row for any number of workers. Every row
that is dropped keeps its reason. The same command goes on where a killed one stopped.

    data/NAME/train.jsonl      the rows, for data.train of a recipe
    data/NAME/card.html        where they are from, what each filter took, how long they are
    data/NAME/ATTRIBUTION.md   author, address and licence of each row
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("curate"))

import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.paths import stored_path
from lima_ray.config.storage.changing_files import Uploads, check_writable, pull
from lima_ray.config.storage.working_copy import location, reference
from lima_ray.config.terminal import printable
from lima_ray.curation import dataset
from lima_ray.curation.arguments import CurateCommand
from lima_ray.curation.card.authors import read_author_names
from lima_ray.curation.card.page import CARD, write_card
from lima_ray.curation.dataset import SourcePool
from lima_ray.curation.funnel import Funnel
from lima_ray.curation.pipeline import remove_unused, run_stages
from lima_ray.curation.recipe import Curation, Selector
from lima_ray.curation.review.decisions import (
    Decision,
    Outcome,
    read_decisions,
    resolve,
    reviewers_of,
)
from lima_ray.curation.review.queue import ReviewItem
from lima_ray.curation.review.server import PAGE, serve_review
from lima_ray.curation.selection.embedding import load_embedder
from lima_ray.curation.selection.selectors import render_overlap, select_rows
from lima_ray.curation.sources.census import take_census
from lima_ray.curation.sources.registry import make_reader
from lima_ray.data.examples import write_examples
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.candidates import grade_candidates
from lima_ray.records.files import acquire_lock, explain_write_errors, read_json
from lima_ray.results.units import format_bytes
from lima_ray.web.annotation.server import check_closed

LOCK, WORK = "lock", "work"
"""Held by one process at a time; and the folder of what the passes over the dumps found."""
LIBRARIES = ("lima_ray", "ray", "lxml", "html-to-markdown", "rensa", "wordllama")
"""Whose versions the card names: they decide about rows."""


def main(command: CurateCommand) -> None:
    """`python -m lima_ray.curate RECIPE`."""
    if command.census:
        print(printable(take_census(command.census)))
        return
    assert command.curation
    curation, out = command.curation, stored_path(command.curation.out)
    check_writable(out)
    with explain_write_errors(out, "--out"):
        busy = f"{curation.out} is in use by another process: end its review page, or wait for it"
        held = acquire_lock(out / LOCK, busy, everywhere=True)
    try:
        pull(out)
        if not command.overlaps:  # which writes no dataset
            check_same_choices(curation, out, command.overwrite)
        with Uploads(out):
            curate(curation, out, command)
    finally:
        remove_if_empty(out)
        held.release()


def work_folder(out: Path) -> Path:
    """Return the folder of what the passes find; of a bucket's dataset it stays on this disk."""
    return out.with_name(f".{out.name}.{WORK}") if location(out) else out / WORK


def remove_if_empty(out: Path) -> None:
    """Remove the folder of a dataset where a run failed before it made anything."""
    if [file.name for file in out.glob("*")] == [LOCK]:
        with suppress(OSError):
            (out / LOCK).unlink()
            out.rmdir()


def check_same_choices(curation: Curation, out: Path, overwrite: bool) -> None:
    """Refuse to replace a dataset that other choices made, or that was not made here.

    Raises:
        UserError: there is one, and it is not to be overwritten.
    """
    card, file = read_json(out / CARD), out / f"{curation.split}.jsonl"
    if file.exists() and not card and not work_folder(out).is_dir() and not overwrite:
        raise UserError(
            f"{out} holds {file.name}, which this command did not make; give another --out, or "
            "replace it by --overwrite"
        )
    if card and card.get("recipe_digest") != curation.digest() and not overwrite:
        raise UserError(
            f"{out} holds a dataset that other choices made; give another --out, or replace it by "
            "--overwrite"
        )


def curate(curation: Curation, out: Path, command: CurateCommand) -> None:
    """Read the dumps, choose rows, and write the dataset or open the page where people choose."""
    decisions = check_review(command, out)
    embedder = load_embedder(curation.embedder)
    prompts = dataset.index_prompts(curation)
    work = work_folder(out)
    parts = run_stages(curation, work, command.workers, command.damaged)
    pools = dataset.gather(curation, parts, prompts, embedder)
    dataset.check_unique_ids(pools)
    grades = grade(curation, pools, out)
    if command.overlaps:
        print("Rows that each two selectors share, and their Jaccard similarity:\n")
        for pool in pools:
            print_overlaps(curation, pool, grades)
    elif command.review:
        review(curation, pools, grades, out, command)
    else:
        outcomes = resolve(decisions, command.lead)
        write_dataset(curation, pools, grades, outcomes, out, command)
        if size := remove_unused(work, parts):
            print(f"removed {format_bytes(size)} of {work} that other choices or dumps made")


def check_review(command: CurateCommand, out: Path) -> list[Decision]:
    """Return what people decided; what is wrong with it or the page is said before work starts.

    Raises:
        UserError: a page that is open to all, decisions that are none, or a lead who made none.
    """
    if command.review:
        check_closed(command.host, command.login_file, PAGE)
    decisions = read_decisions(out / "review")
    names = sorted({decision.reviewer for decision in decisions})
    if command.lead and not command.review and command.lead not in names:
        said = f"those who did are {', '.join(names)}" if names else "nobody did"
        raise UserError(f"--lead {command.lead} has decided nothing; {said}")
    return decisions


def grade(curation: Curation, pools: list[SourcePool], out: Path) -> dict[str, float]:
    """Return a model's grades of the candidates of sources that choose by them."""
    asked = [pool for pool in pools if pool.section.choose == "graded"]
    if not asked:
        return {}
    candidates = [c for pool in asked for c in pool.read([row.id for row in pool.rows])]
    judge = EndpointJudge(model=curation.endpoint_model, url=curation.endpoint)
    return grade_candidates(candidates, judge, out / "grades.jsonl")


def print_overlaps(curation: Curation, pool: SourcePool, grades: dict[str, float]) -> None:
    """Print how many rows each two selectors share, of as many rows as a source is asked for."""
    count = pool.section.rows or len(pool.rows)
    names: list[Selector] = [n for n in get_args(Selector) if n != "graded" or grades]
    choices = {}
    for name in names:
        generator = np.random.default_rng(curation.seed)
        choices[name] = select_rows(
            pool.rows, count, name, generator, pool.texts, grades, pool.embedder
        )
    print(f"{pool.name}: {count:,} of {len(pool.rows):,} candidates\n\n{render_overlap(choices)}\n")


def review(
    curation: Curation,
    pools: list[SourcePool],
    grades: dict[str, float],
    out: Path,
    command: CurateCommand,
) -> None:
    """Open the page on which people decide about the chosen rows and as many that follow them."""
    queue, wanted = [], {}
    for pool in pools:
        chosen = dataset.choose(curation, pool, grades=grades)
        # What is chosen once all of these are dropped: what takes the place of one is among it.
        spare = dataset.choose(curation, pool, frozenset(chosen), grades)
        picked = set(chosen)
        wanted[pool.name] = len(chosen)
        for rank, candidate in enumerate(pool.read(chosen + spare), start=1):
            queue.append(ReviewItem(candidate, pool.name, candidate.id in picked, rank))
    serve_review(
        queue,
        out / "review",
        host=command.host,
        port=command.port,
        login_file=command.login_file,
        open_browser=command.open,
        rows=wanted,
        lead=command.lead,
        title=curation.name,
    )
    print(
        f"decisions stand in {reference(out / 'review')}; the same command without --review takes "
        "them in"
    )


def write_dataset(
    curation: Curation,
    pools: list[SourcePool],
    grades: dict[str, float],
    decisions: dict[str, Outcome],
    out: Path,
    command: CurateCommand,
) -> None:
    """Write the rows, the reasons of all others, and the card.

    Raises:
        UserError: too few rows, unless what there is is to be taken.
    """
    refused = {id: said.describe() for id, said in decisions.items() if said.verdict == "drop"}
    divided = {id: said.describe() for id, said in decisions.items() if said.verdict == "undecided"}
    if divided:
        shown = join_names([f"{id} ({said})" for id, said in divided.items()], SHOWN_ERRORS)
        print(f"reviewers are equally divided, so these stay; --lead NAME decides: {shown}")
    taken = frozenset(refused)
    chosen = {pool.name: dataset.choose(curation, pool, taken, grades) for pool in pools}
    filters = {name: make_reader(s, curation).filters for name, s in curation.sources.items()}
    funnels = dataset.funnels_of(pools, filters, chosen, refused)
    short = dataset.check_enough(curation, funnels, chosen)
    if short and command.too_few == "stop":
        raise UserError(
            "too few rows:\n  " + "\n  ".join(short) + "\nGive more dumps, ask for fewer by "
            "--sources.NAME.rows, or take what there is by --too_few take"
        )
    if not any(chosen.values()):
        raise UserError("no rows at all:\n  " + "\n  ".join(short))
    turns = {id: outcome.turns for id, outcome in decisions.items() if outcome.turns}
    rows = {pool.name: dataset.edited(pool.read(chosen[pool.name]), turns) for pool in pools}
    file = out / f"{curation.split}.jsonl"
    made: dict[str, Any] = {"versions": {name: version(name) for name in LIBRARIES}}
    made["versions"]["python"] = platform.python_version()
    made["edited"] = [c.id for those in rows.values() for c in those if c.id in turns]
    made |= {"too_few": short} if short else {}
    made |= {"reviewers": reviewers_of(decisions)} if decisions else {}
    made |= {"equally_divided": divided} if divided else {}
    with explain_write_errors(out, "--out"):
        # The largest first: on a disk that fills up, the rows and their card stay as they were.
        dataset.write_dropped(pools, out / "dropped.parquet")
        write_examples([c.to_example() for those in rows.values() for c in those], file)
        names = read_author_names(curation, rows, keep_damaged=command.damaged == "keep")
        write_card(curation, funnels, rows, file, out, made=made, names=names)
    print_summary(funnels, file, out)


def print_summary(funnels: list[Funnel], file: Path, out: Path) -> None:
    """Print each source's funnel, and where the dataset stands."""
    table = Table("source", "seen", "left after each filter", "chosen", box=None)
    for funnel in funnels:
        steps = ", ".join(f"{name} {left:,}" for name, count, left in funnel.steps() if count)
        table.add_row(funnel.source, f"{funnel.seen:,}", steps, f"{funnel.chosen:,}")
    Console(highlight=False).print(table)
    total = sum(funnel.chosen for funnel in funnels)
    card = reference(out / "card.html")
    print(f"{total:,} rows in {reference(file)}\n{card} shows what they are")
