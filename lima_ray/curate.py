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
    data/NAME/ATTRIBUTION.md   author, address and licence of each
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("curate"))

from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation import dataset
from lima_ray.curation.arguments import CurateCommand
from lima_ray.curation.card.page import write_card
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.census import census
from lima_ray.curation.sources.registry import make_reader
from lima_ray.data.examples import write_examples
from lima_ray.records.files import acquire_lock, explain_write_errors, read_json


def main(command: CurateCommand) -> None:
    """`python -m lima_ray.curate RECIPE`."""
    if command.census:
        print(census(command.census))
        return
    assert command.curation
    curation, out = command.curation, Path(command.curation.out)
    with explain_write_errors(out, "--out"):
        held = acquire_lock(out / "lock", f"{out} is being made by another process; wait for it")
    try:
        check_same_choices(curation, out, command.overwrite)
        curate(curation, out, command)
    finally:
        held.release()


def check_same_choices(curation: Curation, out: Path, overwrite: bool) -> None:
    """Refuse to replace a dataset that other choices made.

    Raises:
        UserError: there is one, and it is not to be overwritten.
    """
    card = read_json(out / CARD)
    if card and card.get("recipe_digest") != curation.digest() and not overwrite:
        raise UserError(
            f"{out} holds a dataset that other choices made; give another --out, or replace it by "
            "--overwrite"
        )


def curate(curation: Curation, out: Path, command: CurateCommand) -> None:
    """Read the dumps, choose rows, and write the dataset or open the page where people choose."""
    parts = run_stages(curation, out / "work", command.workers, command.damaged)
    pools = dataset.gather(curation, parts)
    dataset.check_unique_ids(pools)
    decisions = resolve(read_decisions(out / "review"))
    refused = frozenset(id for id, outcome in decisions.items() if outcome.verdict == "drop")
    grades = grade(curation, pools, out)
    chosen = {p.name: dataset.choose(curation, p, refused, grades) for p in pools}
    if command.review:
        review(curation, pools, chosen, grades, out, command)
        return
    filters = {name: make_reader(s, curation).filters for name, s in curation.sources.items()}
    funnels = dataset.funnels_of(pools, filters, chosen, refused)
    short = dataset.check_enough(curation, funnels, chosen)
    if short and command.too_few == "stop":
        raise UserError(
            "too few rows:\n  " + "\n  ".join(short) + "\nGive more dumps, ask for fewer by "
            "--sources.NAME.rows, or take what there is by --too_few take"
        )
    turns = {id: o.turns for id, o in decisions.items() if o.turns}
    rows = {p.name: dataset.edited(p.read(chosen[p.name]), turns) for p in pools}
    with explain_write_errors(out, "--out"):
        file = out / f"{curation.split}.jsonl"
        write_examples([c.to_example() for those in rows.values() for c in those], file)
        dataset.write_dropped(pools, out / "dropped.parquet")
        write_card(curation, funnels, rows, file, out, made={"short": short})
    print_summary(funnels, file, out)


def grade(curation: Curation, pools: list[dataset.SourcePool], out: Path) -> dict[str, float]:
    """Return a model's grades of the candidates of sources that choose by them."""
    asked = [p for p in pools if p.section.choose == "graded"]
    if not asked:
        return {}
    candidates = [c for p in asked for c in p.read([row.id for row in p.rows])]
    return grade_candidates(
        candidates, curation.endpoint, curation.endpoint_model, out / "grades.jsonl"
    )


def review(
    curation: Curation,
    pools: list[dataset.SourcePool],
    chosen: dict[str, list[str]],
    grades: dict[str, float],
    out: Path,
    command: CurateCommand,
) -> None:
    """Open the page on which people decide about the chosen rows and as many that follow them."""
    queue = []
    for pool in pools:
        ranked = dataset.choose(curation, pool, grades=grades, times=dataset.RESERVE)
        picked = set(chosen[pool.name])
        ordered = chosen[pool.name] + [id for id in ranked if id not in picked]
        for rank, candidate in enumerate(pool.read(ordered), start=1):
            queue.append(ReviewItem(candidate, pool.name, candidate.id in picked, rank))
    wanted = {name: len(ids) for name, ids in chosen.items()}
    serve_review(
        queue,
        out / "review",
        host=command.host,
        port=command.port,
        login_file=command.login_file,
        open_browser=command.open,
    )
    print(f"decisions stand in {out / 'review'}; the same command without --review takes them in")


def print_summary(funnels: list[Funnel], file: Path, out: Path) -> None:
    """Print each source's funnel, and where the dataset stands."""
    table = Table("source", "seen", "left after each filter", "chosen", box=None)
    for funnel in funnels:
        steps = ", ".join(f"{name} {left:,}" for name, count, left in funnel.steps() if count)
        table.add_row(funnel.source, f"{funnel.seen:,}", steps, f"{funnel.chosen:,}")
    Console(highlight=False).print(table)
    total = sum(funnel.chosen for funnel in funnels)
    print(f"{total:,} rows in {file}\n{out / 'card.html'} shows what they are")
