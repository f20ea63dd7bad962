"""Have people judge replies, blind, in a page: pairs, grades, audit, safety.

    python -m lima_ray.study lima=replies/lima alpaca=alpaca.csv --out studies/first
    python -m lima_ray.study lima=replies/lima --kind audit --prompts 50 --out studies/audit
    python -m lima_ray.study --out studies/first --status
    python -m lima_ray.study --out studies/first --export

Annotators are told what models are told (LIMA section 4). Each has an order and sides of their own;
--overlap questions are asked of all, the others are shared out. Nothing in the page says which
system is which. An answer is saved as it is given, and can be changed later; the same command goes
on where the study stands. Verdicts stand in OUT/verdicts.jsonl once the page is closed, and after
--export; what models judge has the same form.
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("study"))

import re
from collections.abc import Mapping, Sequence

from lima_ray.config.errors import UserError
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.questions.item import digest
from lima_ray.judging.questions.replies import read_models
from lima_ray.judging.study.arguments import StudyCommand
from lima_ray.judging.study.design import StudyDesign
from lima_ray.judging.study.folder import VERDICTS, begin, export_verdicts, open_store, study_of
from lima_ray.judging.study.queue import Settings, StudyQueue
from lima_ray.judging.study.serving import PAGE, serve_study
from lima_ray.judging.study.status import print_status
from lima_ray.judging.study.store import StudyStore
from lima_ray.records.files import acquire_lock, explain_write_errors
from lima_ray.records.reply import Reply
from lima_ray.web.annotation.server import check_closed
from lima_ray.web.database import DatabaseError

FIXED = ("systems", "kind", "whole", "pairs", "missing", "prompts", "overlap", "seed")
"""What a study cannot change."""
SHORTEST_NAME = 3
"""Of a system, that is looked for in replies."""


def main(command: StudyCommand) -> None:
    """`python -m lima_ray.study SYSTEM=REPLIES ... --out DIR`."""
    if command.status or command.export:
        look(command)
        return
    check_closed(command.host, command.login_file, PAGE)
    models = read_models(command.systems)
    design = design_study(command, models)
    warn_of_names(models)
    out = command.out
    with explain_write_errors(out, "--out"):
        busy = f"another study runs in {out}; open its page, or end it first"
        lock = acquire_lock(out / ".lock", busy)
    try:
        with open_store(out, command.database) as store:
            run_study(command, design, store)
    finally:
        lock.release()


def look(command: StudyCommand) -> None:
    """Tell how a study stands, or write its verdicts, whether its page is open or not."""
    study = study_of(command.out)
    with open_store(command.out, command.database) as store:
        settings = store.settings(study)
        if settings is None:
            raise UserError(
                f"the database holds no answers of the study in {command.out}; name the one that "
                "does by --database"
            )
        if command.status:
            print_status(settings, store.assignments(study, records=True))
        if command.export:
            count = export_verdicts(command.out, store, study)
            print(f"{command.out / VERDICTS}: {count} verdicts of people")


def design_study(command: StudyCommand, models: Mapping[str, Sequence[Reply]]) -> StudyDesign:
    """Return the questions of a study.

    Raises:
        UserError: a system lacks replies that others have, or there are fewer prompts than asked.
    """
    items = design_items(
        command.kind,
        models,
        whole=command.whole,
        pairs=command.pairs,
        orders="given",
        missing=command.missing,
    )
    ids = sorted({item.id for item in items}, key=lambda id: digest([command.seed, id]))
    if command.prompts > len(ids):
        raise UserError(f"--prompts is {command.prompts}, and there are {len(ids)}")
    drawn = set(ids[: command.prompts] if command.prompts else ids)
    return StudyDesign([i for i in items if i.id in drawn], command.overlap, command.seed)


def warn_of_names(models: Mapping[str, Sequence[Reply]]) -> None:
    """Say which replies tell a system's name, which no page can hide."""
    for name, replies in models.items():
        if len(name) >= SHORTEST_NAME:
            word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
            if count := sum(word.search(reply.reply) is not None for reply in replies):
                print(f"{count} replies of {name} tell that name; annotators will read it")


def run_study(command: StudyCommand, design: StudyDesign, store: StudyStore) -> None:
    """Open the page, and write the verdicts once it is closed.

    Raises:
        UserError: the folder holds another study, or verdicts on other replies of a system.
    """
    with VerdictJournal(command.out / VERDICTS) as journal:
        journal.check(question.item for question in design.questions.values())
    begin(command.out, design, {name: command.model_dump()[name] for name in FIXED})
    settings = Settings(command.per_item, command.annotators, command.check_every)
    kept = {"kind": design.kind, "systems": list(design.systems)}
    kept |= {"shared": len(design.shared), "rest": len(design.rest)} | vars(settings)
    store.begin(design.id, kept)
    print(
        f"{len(design.questions)} questions, of which every annotator is asked "
        f"{len(design.shared)}; --status in another terminal tells how far they are"
    )
    try:
        serve_study(
            StudyQueue(design, store, settings),
            host=command.host,
            port=command.port,
            login_file=command.login_file,
            open_browser=command.open,
            title=command.title,
        )
    finally:
        try:
            count = export_verdicts(command.out, store, design.id)
            print(f"{command.out / VERDICTS}: {count} verdicts of people")
        except DatabaseError as error:
            print(f"{VERDICTS} is not written ({error}); --export does it later")
