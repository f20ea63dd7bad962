"""Judge replies by models, the exact judge, or both: every verdict in one journal.

    python -m lima_ray.judge lima=replies/lima other=outputs.csv --kind pairwise \\
        --judges gpt-4o@https://api.openai.com/v1,input_usd=2.5,output_usd=10 --out judged/lima
    python -m lima_ray.judge base=replies/base tuned=replies/tuned --judges exact --out judged/exact

Pairwise questions are asked in both orders. Calls, tokens and money are told before the first call;
above --limit_usd it asks again. Every verdict is written as it comes, so the same command goes on
where a killed one stopped, and nothing that was answered is paid for twice. A model does not judge
its own replies. What is no verdict (an answer off the menu, cut off, or none at all) is counted for
each model, and is neither a tie nor a grade. --passport measures the judges themselves.

    OUT/verdicts.jsonl    one verdict a line, of every kind and judge
    OUT/judge.json        what was judged, by whom, in which words
    OUT/passport.json     with --passport
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("judge"))

import os
import sys
from dataclasses import asdict
from typing import Any

from lima_ray.config import cluster
from lima_ray.config.errors import UserError, join_names
from lima_ray.config.paths import output_path
from lima_ray.data.examples import read_prompts
from lima_ray.judging.arguments import JudgeCommand
from lima_ray.judging.asking.budget import confirm, describe_usage, estimate, usage_of
from lima_ray.judging.asking.judges import EXACT, EndpointJudge, parse_judges
from lima_ray.judging.asking.relatives import check_not_judged, find_judged, settings_of
from lima_ray.judging.asking.run import ASKED_AGAIN, Asking
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.passport import judges_without, write_passports
from lima_ray.judging.passport_measures import check_comparable, measure, read_people
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.replies import read_models
from lima_ray.judging.questions.verdicts import question_key
from lima_ray.judging.questions.wording import load_wording
from lima_ray.judging.registry import decide_exactly
from lima_ray.judging.summary import summarise
from lima_ray.records.files import explain_write_errors, read_json, write_json
from lima_ray.records.verdict import Verdict
from lima_ray.results.units import counted


def main(command: JudgeCommand) -> None:
    judges, exact = parse_judges(command.judges)
    prompts = read_prompts(command.prompts, command.split) if command.prompts else []
    models = read_models(command.replies, prompts)
    judged = find_judged(command.replies, models)
    if not command.allow_self:
        check_not_judged(judges, judged)
    if command.passport and (command.kind, command.orders) != ("pairwise", "both"):
        raise UserError("a passport needs pairs in both orders: --kind pairwise --orders both")
    people = read_people(command.people)
    items = design_items(
        command.kind,
        models,
        whole=command.whole,
        pairs=command.pairs,
        orders=command.orders,
        missing=command.missing,
        prompts=command.ids or [row.id for row in prompts],
        seed=command.seed,
    )
    if command.passport:
        check_comparable(people, items, judges, command.families)
    out = output_path(command.out)
    journal = VerdictJournal(out / "verdicts.jsonl")
    if command.dry_run:
        journal.load()
        make_asking(command, journal, items, judges, [])
        print("nothing was asked (dry_run)")
        return
    with journal:
        weights = [] if command.allow_self else [one.weights for one in judged if one.weights]
        asking = make_asking(command, journal, items, judges, weights)
        record_settings(command, judges, list(models))
        if exact:
            for item in items:
                if not journal.find(item, EXACT):
                    journal.add(decide_exactly(item))
        try:
            asking.run(count_workers(command))
        finally:
            for judge in judges:
                if (used := usage_of(judge, asking.kept)).calls:
                    print(describe_usage(judge, used))
            for line in asking.describe_unanswered():
                print(line)
        found = verdicts_on(journal, items, judges, exact)
    print("\n".join(summarise(found)))
    if command.passport:
        passports = measure(found, people, judges, command.families)
        write_passports(passports, out)
        print("\n".join(passport.describe() for passport in passports))
    if unknown := judges_without(found, [out, *command.passports]):
        print(
            f"no passport of {join_names(unknown)}: how far to trust it is not known (--passport)"
        )
    print(f"verdicts    {journal.file}")


def make_asking(
    command: JudgeCommand,
    journal: VerdictJournal,
    items: list[Item],
    judges: list[EndpointJudge],
    own_weights: list[str],
) -> Asking:
    """Find what is open, tell what it will take, and have it accepted."""
    journal.check(items)
    again = ("unreadable", "unanswered") if command.unreadable == "ask" else ASKED_AGAIN
    asking = Asking(
        journal,
        items,
        judges,
        again=again,
        own_weights=own_weights,
    )
    told = counted(len(items), f"{command.kind} question"), counted(len(command.judges), "judge")
    print(f"{told[0]} to {told[1]}")
    estimates = [
        estimate(judge, asking.todo[judge.annotator.name], journal.verdicts) for judge in judges
    ]
    for one in estimates:
        done = len(items) - one.calls
        print(one.describe() + (f"; {done} are answered already" if done else ""), flush=True)
    if not (command.dry_run or command.yes):
        accepted = confirm(estimates, command.limit_usd, sys.stdin.isatty())
        asking.limit_usd = None if accepted else command.limit_usd
    return asking


def count_workers(command: JudgeCommand) -> int:
    """Return how many Ray actors ask: as told, or one for each node of a cluster that is joined."""
    if command.workers is not None:
        return command.workers
    if not os.environ.get(cluster.ADDRESS_ENV):
        return 0
    import ray

    cluster.connect()
    return sum(node["Alive"] for node in ray.nodes())


def verdicts_on(
    journal: VerdictJournal, items: list[Item], judges: list[EndpointJudge], exact: bool
) -> list[Verdict]:
    """Return these judges' verdicts on the items, and people's on the same prompts and models."""
    annotators = [judge.annotator for judge in judges] + ([EXACT] if exact else [])
    keys = {question_key(item, annotator) for item in items for annotator in annotators}
    asked = {(item.kind, item.id, item.sample, item.turn, frozenset(item.models)) for item in items}
    return [
        v
        for v in journal.verdicts
        if v.extra.get("asked") in keys
        or (
            v.extra.get("annotator_kind", "person") == "person"
            and (v.kind, v.id, v.sample, v.turn, frozenset(v.models)) in asked
        )
    ]


def record_settings(command: JudgeCommand, judges: list[EndpointJudge], names: list[str]) -> None:
    """Write judge.json; what earlier commands wrote there of other models and judges stands."""
    file = output_path(command.out) / "judge.json"
    before = read_json(file) or {}
    wording = load_wording(command.kind, command.whole)
    now: dict[str, dict[str, Any]] = {
        "models": {
            name: {"replies": reference, "made_by": settings_of(reference)}
            for name, reference in zip(names, command.replies, strict=True)
        },
        "judges": {judge.annotator.name: judge.model_dump(mode="json") for judge in judges},
        "wordings": {wording.version: asdict(wording)},
    }
    merged = {name: (before.get(name) or {}) | value for name, value in now.items()}
    with explain_write_errors(file, "--out"):
        write_json(file, before | merged)
