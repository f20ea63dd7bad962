"""The documents: generated pages are current, and links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from lima_ray.config.command_line import COMMANDS
from lima_ray.config.loading import load_recipe as load_recipe
from tune import space

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").glob("*.md")],
    key=lambda path: path.as_posix(),
)
README_WORDS = 900


def test_reference_pages_are_what_the_sources_say() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "reference.py"))["pages"]()
    folder = ROOT / "docs" / "reference"
    assert sorted(path.name for path in folder.iterdir()) == sorted(pages)
    for name, text in pages.items():
        told = (folder / name).read_text(encoding="utf-8")
        assert told == text, f"docs/reference/{name} is old: python docs/reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    text = without_code(page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    for link in (first or second for first, second in links):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in anchors(target), f"{page.name} links to {link}"


def test_recipe_and_sweep_that_the_documents_show_are_valid(tmp_path: Path) -> None:
    shown = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown |= dict(re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```", text, re.M | re.S))
    for name, text in shown.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    made = load_recipe(str(tmp_path / "my_recipe.yaml"))
    assert (made.select.judge, made.cluster.workers) == ("endpoint", 7)
    sweep = space.load(str(tmp_path / "my_sweep.yaml"))
    space.check_names(sweep)
    space.base_recipe(sweep)
    assert len(space.points(sweep)) * len(sweep.seeds) == 12


def test_readme_is_short_and_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert re.search(rf"^{name}\b.*  \w", text, re.M), f"README.md does not list {name}"
    words = len(text.split())
    assert words <= README_WORDS, f"README.md has {words} words; what is more belongs in docs/"


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
