"""Report a study: its table, pictures, finding, and its best point as a recipe to train.

    python -m tune.report runs/sweeps/NAME

A sweep does this at its end. All is read from the sweep's files, so it can be done again, and while
the sweep still runs. Written beside them: report.md, its pictures, and best.yaml.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("sweep_report"))

import sys
from pathlib import Path
from textwrap import fill

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lima_ray.config.errors import UserError
from lima_ray.config.storage.changing_files import push
from lima_ray.config.storage.working_copy import reference
from lima_ray.results.page.markdown import markdown_page
from lima_ray.results.units import counted
from tune.arguments import ReportCommand as Command
from tune.reports import figure, page, tables
from tune.reports.finding import finding
from tune.reports.wording import dev_unit, unit_of
from tune.results import Study
from tune.space import Point

WIDTH = 100
"""Characters that a table of one or two axes needs."""
HEADING = 15
"""Characters of a heading's line in a terminal."""
NARROW = 8
"""Of one over a number or two."""
REPORT, BEST = "report.md", "best.yaml"


def table(study: Study) -> Table:
    """Make a terminal's table of a study's points, or of epochs where it compares those."""
    by_epoch = tables.epoch_rows(study) if study.sweep.every_epoch else []
    rows = by_epoch or tables.point_rows(study)
    done = sum(outcome.status == "done" for outcome in study.outcomes)
    total = len(study.points) * len(study.sweep.seeds)
    found = finding(study)
    sentences = [tables.notes(study)] + ([f"{found.answer}: {found.sentence}"] if found else [])
    sentences += tables.best(study, BEST)
    shown = Table(
        title=Text(f"{study.sweep.name}: {done} of {counted(total, 'training')} done"),
        caption=Text("\n".join(sentences)),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = [name for name in (rows or [{}])[0] if by_epoch or name not in left_out(study)]
    for name in columns:
        interval = f"\n{tables.INTERVAL}" if tables.INTERVAL in name else ""
        wide = NARROW if name in (tables.dev_heading(study), tables.CHOSEN) else HEADING
        heading = fill(name.replace(f" {tables.INTERVAL}", ""), wide) + interval
        shown.add_column(Text(heading), no_wrap=name in (tables.AUDITS, tables.P), overflow="fold")
    first = None if by_epoch else study.best()
    for number, row in enumerate(rows):
        bold = first is not None and study.points[number] == first
        cells = (Text(narrow(name, row[name])) for name in columns)
        shown.add_row(*cells, style="bold" if bold else "")
    return shown


def left_out(study: Study) -> tuple[str, ...]:
    """Return the columns that 100 characters have no room for."""
    return (tables.STOP, tables.AUDITS) if len(study.sweep.axes) > 1 else (tables.STOP,)


def narrow(name: str, cell: str) -> str:
    """Write a cell for a terminal; numbers that belong together stay in one piece."""
    return cell.replace(", ", ",") if tables.INTERVAL in name or name == tables.CHOSEN else cell


def show(study: Study) -> None:
    """Print the table; a log, which has no width of its own, is taken to have room for it."""
    width = None if sys.stdout.isatty() else WIDTH
    Console(highlight=False, width=width).print(table(study))


def write(study: Study) -> Path:
    """Write a study's pictures, its best point as a recipe, and the report, to its directory."""
    pictures = figure.draw(study)
    if point := study.best():
        (study.path / BEST).write_text(best_recipe(study, point), encoding="utf-8")
    report = study.path / REPORT
    blocks = page.study_blocks(study, pictures, BEST)
    report.write_text(markdown_page(blocks, study.path), encoding="utf-8")
    push(report, study.path / BEST, *study.path.glob("*.png"))
    return report


def best_recipe(study: Study, point: Point) -> str:
    """Write a point as a recipe file: what differs from the defaults, and where it comes from."""
    sweep, unit, dev = study.sweep, unit_of(study), dev_unit(study)
    recipe = study.recipe.override(
        point.values | {"seed": sweep.seeds[0], "name": f"{sweep.name}-best"}
    )
    fields = recipe.model_dump(mode="json", exclude_defaults=True)
    level = unit.level(study.estimate(point)) + unit.sign
    return (
        f"# The best of {counted(len(study.points), 'point')} of the sweep {sweep.name} on the dev "
        f"prompts: {point.name} (dev {dev.noun} {dev.with_sign(study.dev_value(point))}, "
        f"{100 * study.dev_stopped(point):.0f} % stop).\n"
        f"# {unit.name.capitalize()} on the measuring prompts, over "
        f"{counted(len(study.done(point)), 'seed')}: {level}.\n"
        f"{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}"
    )


def main(command: Command) -> None:
    if not (command.path / "sweep.yaml").is_file():
        raise UserError(
            f"{reference(command.path)} is no sweep: it holds no sweep.yaml; sweeps stand in "
            "runs/sweeps"
        )
    study = Study.load(command.path)
    show(study)
    print(f"report       {reference(write(study))}")
