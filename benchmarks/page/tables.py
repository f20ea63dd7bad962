"""Results as Markdown: tables, what others do better, and where figures come from."""

from collections.abc import Iterable

from benchmarks.page.result import OURS, Figure, Result


def tables(result: Result) -> str:
    """Return all figures: contenders side by side; what has one contender, in a table by axis."""
    whats = list(dict.fromkeys(one.what for one in result.figures))
    alone: dict[str, list[str]] = {}
    blocks = []
    for what in whats:
        figures = [one for one in result.figures if one.what == what]
        if len({one.who for one in figures}) > 1:
            blocks.append(beside(what, figures))
        else:
            alone.setdefault(figures[0].axis, []).append(what)
    for group in alone.values():
        blocks.append(columns([one for one in result.figures if one.what in group]))
    return "\n\n".join(blocks)


def beside(what: str, figures: list[Figure]) -> str:
    """Return a table of one quantity: a row for each case, a column for each contender."""
    names = list(dict.fromkeys(one.who for one in figures))
    unit = figures[0].unit
    lines = [head([f"{what}, {unit}", *names])]
    for case in dict.fromkeys(one.case for one in figures):
        found = {one.who: one for one in figures if one.case == case}
        best = best_of(list(found.values()))
        cells = [spread(found[n], found[n] is best) if n in found else "" for n in names]
        lines.append(row([case, *cells]))
    return "\n".join(lines)


def columns(figures: list[Figure]) -> str:
    """Return a table of several quantities of one contender: a row for each case."""
    whats = list(dict.fromkeys(one.what for one in figures))
    units = {one.what: one.unit for one in figures}
    lines = [head([figures[0].axis, *(f"{what}, {units[what]}".strip(", ") for what in whats)])]
    for case in dict.fromkeys(one.case for one in figures):
        found = {one.what: one for one in figures if one.case == case}
        lines.append(row([case, *(spread(found[w]) if w in found else "" for w in whats)]))
    return "\n".join(lines)


def head(cells: list[str]) -> str:
    return row(cells) + "\n|" + "---|" * len(cells)


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def spread(figure: Figure, best: bool = False) -> str:
    """Return the median with the lowest and highest sample; bold where it is the best."""
    middle = number(figure.median)
    said = f"**{middle}**" if best else middle
    ends = number(figure.low), number(figure.high)
    return said if ends[0] == ends[1] else f"{said} [{ends[0]}, {ends[1]}]"


def number(value: float) -> str:
    """Write a number with three digits or more."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def best_of(figures: list[Figure]) -> Figure | None:
    """Return the best of figures that are compared; none where nothing is, or one is alone."""
    if len(figures) < 2 or not figures[0].better:
        return None
    choose = max if figures[0].better == "higher" else min
    return choose(figures, key=lambda one: one.median)


def where_others_lead(results: Iterable[Result]) -> str:
    """List every case in which a peer's median is better than ours."""
    every = list(results)
    lines = [line for result in every for line in lines_of(result)]
    compared = any(one.better and one.who != OURS for result in every for one in result.figures)
    none = "In none of the cases below." if compared else "Nothing has been compared yet."
    return "\n".join(lines) or none


def lines_of(result: Result) -> Iterable[str]:
    cases = dict.fromkeys((one.what, one.case) for one in result.figures if one.better)
    for what, case in cases:
        found = [one for one in result.figures if (one.what, one.case) == (what, case)]
        ours = next((one for one in found if one.who == OURS), None)
        best = best_of(found)
        if not (ours and best) or best.median == ours.median or best is ours:
            continue
        ratio = best.median / ours.median
        times = ratio if best.better == "higher" else 1 / ratio
        overlap = best.low <= ours.high and ours.low <= best.high and len(best.samples) > 1
        said = "; their ranges overlap" if overlap else ""
        yield (
            f"- {what}, {case}: {best.who} {number(best.median)} {best.unit}, "
            f"{OURS} {number(ours.median)}: {times:.2f} times as good{said}"
        )


def origin(result: Result) -> str:
    """Return the command, and where and when it ran."""
    code = f", code of {result.commit}" if result.commit else ""
    took = f", {result.seconds / 60:.0f} min" if result.seconds >= 90 else ""
    return f"`{result.command}`; {result.date}{took}{code}; {result.machine.describe()}."


def notes(result: Result) -> str:
    return "\n".join(f"- {note}" for note in result.notes)
