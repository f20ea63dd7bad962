"""Report what people and models say of replies: one page, every figure, the replies to read.

    python -m lima_ray.report judged/lima studies/first
    python -m lima_ray.report judged/lima --replies lima=replies/lima alpaca=alpaca.csv --out report
    python -m lima_ray.report judged/dev --run runs/NAME --sweep runs/sweeps/NAME

VERDICTS are directories with a verdicts.jsonl, or such files: of `lima_ray.judge`, of a study of
people, of the exact judge, of votes in the chat. All count together, each judge apart. The page
needs nothing else and no network; the same files give the same page.

    OUT/report.html, report.md    win, tie and lose; audit, grades, safety, dialogues; agreement
                                  of all annotators, the judges, a league table, lineage, replies
    OUT/figures/                  each figure as CSV and as picture
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("report"))

from collections.abc import Iterator, Sequence
from pathlib import Path

from lima_ray import __version__
from lima_ray.config.paths import output_path
from lima_ray.config.terminal import printable
from lima_ray.judging.report.arguments import ReportCommand
from lima_ray.judging.report.items import reading_items
from lima_ray.judging.report.loading import StudyVerdicts, drop_changed, load_study, verdict_files
from lima_ray.judging.report.reading import (
    SCRIPT,
    STYLE,
    page_name,
    reading_pages,
)
from lima_ray.judging.report.sections.absolute import audit_section, safety_section, thumbs_section
from lima_ray.judging.report.sections.agreement import agreement_section
from lima_ray.judging.report.sections.dialogues import dialogue_section
from lima_ray.judging.report.sections.grades import grade_section
from lima_ray.judging.report.sections.judges import judge_section, unread_section
from lima_ray.judging.report.sections.league import league_section
from lima_ray.judging.report.sections.lineage import find_origin, lineage_section
from lima_ray.judging.report.sections.paired import paired_section
from lima_ray.judging.report.sections.preferences import preference_section
from lima_ray.judging.report.sections.section import Section
from lima_ray.judging.report.sections.trainings import run_section, sweep_section
from lima_ray.judging.report.sources import (
    check_systems,
    contents_of,
    find_references,
    read_sources,
)
from lima_ray.judging.report.tables import write_csv
from lima_ray.judging.report.training_rows import read_training_rows
from lima_ray.records.files import explain_write_errors, write_text
from lima_ray.results.page.blocks import (
    Block,
    Columns,
    Details,
    Heading,
    Items,
    Link,
    Paragraph,
    Picture,
    Table,
    text,
)
from lima_ray.results.page.html import html_page
from lima_ray.results.page.markdown import markdown_page
from lima_ray.results.units import align, counted

TITLE = "Report"
FIGURES = "figures"
READING = "Replies side by side"
MOST_SHORT = 16
"""Lines of figures before all others that no reader has to open."""


def main(command: ReportCommand) -> None:
    files = verdict_files(command.verdicts)
    models, sources = read_sources(command.replies or find_references(files))
    study = load_study(files, list(models), command.authors)
    study.notes.extend(check_systems(models, study))
    study = drop_changed(study, contents_of(models), command.changed)
    rows, outdated = read_training_rows([(s.system, s.folder) for s in sources], models)
    if outdated:
        study.notes.append(
            f"Training rows of {counted(outdated, 'reply', 'replies')} are left out:"
            " they were found for another text."
        )
    out = output_path(command.out)
    with explain_write_errors(out, "--out"):
        folder = out / FIGURES
        folder.mkdir(parents=True, exist_ok=True)
        sections = make_sections(command, study, folder)
        origins = [find_origin(source.system, source.path, command.run) for source in sources]
        sections.append(lineage_section(files, origins, __version__))
        items = reading_items(study, models)
        write_pages(study, sections, reading_pages(items, rows), out)
        write_figures(sections, folder)
    summary = [line for section in sections for line in section.summary]
    print(printable(align([*summary, *(("note", note) for note in study.notes)])))
    print(f"report      {out / 'report.html'}")


def make_sections(command: ReportCommand, study: StudyVerdicts, folder: Path) -> list[Section]:
    """Return the parts of the page for which there are verdicts."""
    made = [
        preference_section(study, folder, command.paper),
        audit_section(study, folder, command.paper),
        grade_section(study, folder),
        paired_section(study),
        safety_section(study, folder, command.paper),
        dialogue_section(study, folder, command.paper),
        thumbs_section(study, folder),
        sweep_section(command.sweep, folder),
        run_section(command.run, folder),
        agreement_section(study, command.paper),
        judge_section(study, command.passports),
        league_section(study, folder),
        unread_section(study),
    ]
    return [section for section in made if section]


def write_pages(
    study: StudyVerdicts, sections: Sequence[Section], reading: Sequence[str], out: Path
) -> None:
    """Write report.md, report.html, and the replies that this has no room for."""
    title = f"{TITLE}: {', '.join(study.systems)}"
    many = counted(len(study.verdicts), "verdict")
    blocks: list[Block] = [Heading(title, 1), text(f"{many} of {', '.join(study.by_judge)}.")]
    blocks += [Items(study.notes)] if study.notes else []
    titles = [s.blocks[0] for s in sections if isinstance(s.blocks[0], Heading)]
    links = [Link(one.text, one.anchor) for one in titles]
    body = [block for section in sections for block in section.blocks]
    short = in_short([line for section in sections for line in section.summary])
    told = [] if reading else [Heading(READING), text("No replies were given (--replies).")]
    page = [*blocks, contents(links), short, *body, *told]
    write_text(out / "report.md", markdown_page(page, out))
    if reading:
        links.append(Link(READING, "#replies"))
    first = [*blocks, contents(links), short, *body, *told]
    for number, after in enumerate(reading or [""]):
        script = SCRIPT if after else ""
        shown = first if number == 0 else [Heading(title, 1)]
        write_text(out / page_name(number), html_page(title, shown, after, STYLE, script))
    for old in out.glob("replies-*.html"):
        if old.name not in {page_name(number) for number in range(len(reading))}:
            old.unlink()


def write_figures(sections: Sequence[Section], folder: Path) -> None:
    """Write every figure as CSV; those of an earlier report that this one lacks are removed."""
    tables = {name: rows for section in sections for name, rows in section.tables.items()}
    for name, rows in tables.items():
        write_csv(rows, folder / f"{name}.csv")
    kept = {f"{name}.csv" for name in tables}
    kept |= {file.name for section in sections for file in files_of(section.blocks)}
    for file in (*folder.glob("*.csv"), *folder.glob("*.png")):
        if file.name not in kept:
            file.unlink()


def files_of(blocks: Sequence[Block]) -> Iterator[Path]:
    """Yield the pictures' files, those in columns too."""
    for block in blocks:
        if isinstance(block, Picture):
            yield from (file for file in (block.file, block.dark) if file)
        elif isinstance(block, Columns):
            for column in block.columns:
                yield from files_of(column)


def in_short(summary: Sequence[tuple[str, str]]) -> Block:
    """Return the figures that readers want first, folded where they are many."""
    table = Table(("figure", ""), summary, text_columns=2)
    return table if len(summary) <= MOST_SHORT else Details("In short", [table])


def contents(links: Sequence[Link]) -> Paragraph:
    """Return the links to all parts as one line."""
    parts = [part for link in links for part in (" · ", link)]
    return text(*parts[1:])
