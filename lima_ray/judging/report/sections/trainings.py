"""Runs and sweeps beside the verdicts: quality against perplexity, and the pictures of studies."""

import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from lima_ray.config.errors import UserError
from lima_ray.judging.report.sections.section import Section
from lima_ray.judging.report.tables import Cell
from lima_ray.records.quality import Quality, read_qualities
from lima_ray.records.run import Run
from lima_ray.results.metric_unit import JUDGED, in_unit
from lima_ray.results.page.blocks import Block, Details, Heading, Picture, Preformatted, Table, text
from lima_ray.results.page.pictures import EDGE_IN, WIDTH_IN, Colours, draw_picture, place

PANEL_IN, LABEL_IN, LEFT_IN = 1.3, 0.5, 0.55
"""Height of a panel, of what stands below it, and width of what stands left of it."""
EPOCH_COLUMNS = (
    *("metric", "value", "low", "high", "stopped", "perplexity"),
    *("replies", "invalid", "judge"),
)


def run_section(paths: Sequence[Path], folder: Path) -> Section | None:
    """Return the epochs of runs by quality and perplexity (LIMA appendix B); none without runs."""
    if not paths:
        return None
    blocks: list[Block] = [
        Heading("Quality against perplexity"),
        text(
            "Each epoch's replies to the dev prompts as they were judged, and the perplexity of "
            "held-out replies, which does not track quality (LIMA appendix B)."
        ),
    ]
    cells: list[dict[str, Cell]] = []
    for number, path in enumerate(paths):
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"--run {path} is no run: it holds no recipe.yaml")
        run = Run(path)
        found = read_qualities(run, run.recipe().select.judge_name)
        qualities = [found[epoch] for epoch in sorted(found)]
        blocks.append(Heading(path.name, 3))
        if not qualities:
            blocks.append(text("No epoch of this run was judged."))
            continue
        chosen = run.lineage(run.export_dir).get("epoch")
        picture = draw_picture(
            partial(draw_epochs, qualities, chosen),
            f"Quality and perplexity of the epochs of {path.name}",
            folder,
            f"epochs-{number + 1}",
        )
        blocks += [picture, _table(qualities, chosen)]
        cells += [_cells(path.name, one, chosen) for one in qualities]
    return Section(blocks, {"epochs": cells} if cells else {})


def draw_epochs(qualities: Sequence[Quality], chosen: int | None, colours: Colours) -> Figure:
    """Draw what replies are worth, with its interval, and perplexity below; mark the export."""
    epochs = [one.epoch for one in qualities]
    perplexities = [one.perplexity for one in qualities]
    panels = 1 if None in perplexities else 2
    height = panels * (PANEL_IN + LABEL_IN) + EDGE_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    for panel in range(panels):
        top = EDGE_IN + panel * (PANEL_IN + LABEL_IN)
        axes = place(figure, LEFT_IN, top, WIDTH_IN - LEFT_IN - EDGE_IN, PANEL_IN)
        if panel == 0:
            unit = JUDGED[qualities[0].metric]
            low, value, high = in_unit(qualities, unit)
            axes.fill_between(epochs, low, high, color=colours.bar, alpha=0.25, linewidth=0)
            axes.plot(epochs, value, "o-", color=colours.bar)
            axes.set(ylabel=unit.heading, ylim=unit.axis_limits)
        else:
            values = [value if value is not None else math.nan for value in perplexities]
            axes.plot(epochs, values, "s--", color=colours.result)
            axes.set(ylabel="perplexity")
        if chosen is not None:
            axes.axvline(chosen, color=colours.soft, linestyle=":", linewidth=1)
        axes.set(xticks=epochs, xlabel="epoch" if panel == panels - 1 else "")
    return figure


def sweep_section(paths: Sequence[Path], folder: Path) -> Section | None:
    """Return the pictures and reports of sweeps; none without sweeps."""
    if not paths:
        return None
    blocks: list[Block] = [
        Heading("Ablations"),
        text("Studies over data and settings, as their own reports show them."),
    ]
    for number, path in enumerate(paths, start=1):
        sweep = _read_sweep(path)
        blocks.append(Heading(str(sweep.get("name", path.name)), 3))
        if claim := sweep.get("claim"):
            blocks.append(text(f"The claim: {claim}"))
        pictures = sorted(path.glob("figure*.png"))
        for file in pictures:
            copy = folder / f"sweep-{number}-{file.name}"
            shutil.copyfile(file, copy)
            blocks.append(Picture(f"The sweep {path.name}", copy))
        report = path / "report.md"
        if report.is_file():
            told = report.read_text(encoding="utf-8")
            blocks.append(Details("Its report", [Preformatted(told)]))
        if not pictures and not report.is_file():
            blocks.append(text("It has no report yet; python -m tune.report makes one."))
    return Section(blocks)


def _read_sweep(path: Path) -> dict[str, object]:
    file = path / "sweep.yaml"
    if not file.is_file():
        raise UserError(f"--sweep {path} is no sweep: it holds no sweep.yaml")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    sweep = tree.get("sweep", tree) if isinstance(tree, dict) else None
    if not isinstance(sweep, dict):
        raise UserError(f"{file} holds no sweep")
    return sweep


def _table(qualities: Sequence[Quality], chosen: int | None) -> Table:
    lines, unit = [], JUDGED[qualities[0].metric]
    for one in qualities:
        perplexity = "-" if one.perplexity is None else f"{one.perplexity:.3f}"
        low, high = unit.number(one.low), unit.number(one.high)
        interval = "" if math.isnan(one.low) else f" [{low}, {high}]"
        exported = "exported" if one.epoch == chosen else ""
        lines.append(
            [
                str(one.epoch),
                exported,
                unit.number(one.value) + interval,
                f"{100 * one.stopped:.0f}",
                perplexity,
                f"{one.replies:,}",
                f"{one.invalid:,}",
            ]
        )
    headings = ["epoch", "", unit.heading, "stop, %", "perplexity", "replies", "not read"]
    return Table(headings, lines, text_columns=2)


def _cells(run: str, one: Quality, chosen: int | None) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"run": run, "epoch": one.epoch, "exported": one.epoch == chosen}
    for name in EPOCH_COLUMNS:
        cells[name] = getattr(one, name)
    return cells
