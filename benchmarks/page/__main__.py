"""Make `docs/benchmarks.md` and its pictures from the results in `docs/benchmarks/*.json`.

    python -m benchmarks.page

The prose is `benchmarks/page/page.md`, in which a line `{{tables NAME}}`, `{{origin NAME}}`,
`{{notes NAME}}`, `{{picture NAME: QUANTITY}}` or `{{others}}` stands for what was measured. What
has not been measured is said to be missing.
"""

import re
from collections.abc import Callable
from pathlib import Path

import tyro

from benchmarks.page import pictures, tables
from benchmarks.page.drill import drill_result
from benchmarks.page.gpu import gpu_results
from benchmarks.page.result import RESULTS, ROOT, Result, read_result
from lima_ray.records.files import write_text

TEMPLATE = Path(__file__).with_name("page.md")
PAGE = ROOT / "docs" / "benchmarks.md"
NOTICE = "<!-- made by python -m benchmarks.page from benchmarks/page/page.md; edit that -->\n"


def main(out: Path = PAGE) -> None:
    """Make the page.

    Args:
        out: the page; its pictures go into `images/` beside it.
    """
    write_text(out, render(read_results(), out.parent / "images"))
    print(out)


def read_results() -> dict[str, Result]:
    """Return every result by its name, in the order of their files."""
    files = sorted(f for f in RESULTS.glob("*.json") if not f.name.startswith("gpu-"))
    results = [*map(read_result, files), *gpu_results(), drill_result()]
    return {one.name: one for one in results}


def render(results: dict[str, Result], images: Path) -> str:
    """Return the page; its pictures are drawn into a folder, and older ones of it removed."""
    for old in images.glob("benchmark-*.svg"):
        old.unlink()

    def fill(found: re.Match[str]) -> str:
        return directive(found[1], results, images)

    page = re.sub(r"^\{\{(.+)\}\}$", fill, TEMPLATE.read_text(), flags=re.MULTILINE)
    return NOTICE + re.sub(r"\n{3,}", "\n\n", page)


def directive(said: str, results: dict[str, Result], images: Path) -> str:
    """Return what stands for a directive; ValueError where it is none."""
    verb, _, rest = said.partition(" ")
    if verb == "others":
        return tables.where_others_lead(results.values())
    name, _, what = rest.partition(": ")
    makers: dict[str, Callable[[Result], str]] = {
        "tables": tables.tables,
        "origin": tables.origin,
        "notes": tables.notes,
        "picture": lambda result: picture(result, what, images),
    }
    if verb not in makers:
        raise ValueError(f"{TEMPLATE.name}: {{{{{said}}}}} is none of {', '.join(makers)}, others")
    if name not in results:
        return f"Not measured yet: `make bench` writes {name}.json." if verb == "tables" else ""
    return makers[verb](results[name])


def picture(result: Result, what: str, images: Path) -> str:
    """Draw one quantity and return the line that shows it; nothing where it was not measured."""
    figures = [one for one in result.figures if one.what == what]
    if not figures:
        return ""
    file = images / f"benchmark-{result.name}-{pictures.slug(what)}.svg"
    pictures.draw(figures, file)
    return f"![{what}, {figures[0].unit}](images/{file.name})"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.page", description=__doc__)
