"""Align the miniature's base on 950 rows, and show base and aligned model side by side.

    python -m lima_ray.miniature.demo

Trains the miniature recipe (once; a finished run is kept), lets the base and the aligned model
reply to the test prompts, judges both by the exact rules, and shows what changed. Takes the flags
of `lima_ray.train`.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("demo"))

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lima_ray import train
from lima_ray.config.command_line import RecipeCommand
from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Sampling
from lima_ray.config.terminal import printable
from lima_ray.generate import GenerationJob
from lima_ray.generation.job import generate
from lima_ray.miniature.judge import judge
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict
from lima_ray.results import intervals

ROWS = "lima_ray/miniature/rows"
GROUPS = {
    "in": "kinds of questions seen in alignment",
    "ood": "kinds never seen",
    "form": "asks for a form (6 rows seen)",
    "private": "private, to be refused",
}
"""Groups of test prompts, as the table calls them; entities are never seen ones in all of them."""
SHOWN = {"in": 3, "ood": 2, "private": 1}
"""Conversations shown of each group; as many of them succeeded as the group's share says."""
SHOWN_CHARACTERS = 240


def demo(recipe: Recipe) -> None:
    console = Console(highlight=False)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    run = train.fit(recipe)
    seconds["train and choose the epoch"] = time.perf_counter() - started
    models = {"base": Path(str(resolve(recipe.model.base))), "aligned": run.export_dir}
    replies: dict[str, list[Reply]] = {}
    verdicts: dict[str, list[Verdict]] = {}
    dialogues: dict[str, list[Verdict]] = {}
    for name, model in models.items():
        console.print(f"\n{name}: 300 test prompts and 40 dialogues")
        started = time.perf_counter()
        replies[name], verdicts[name] = measure(run, model, "test", recipe.sampling)
        dialogues[name] = measure(run, model, "dialogues_test", recipe.sampling)[1]
        seconds[f"replies of the {name}"] = time.perf_counter() - started
    console.print()
    console.print(conversation_table(replies, verdicts))
    console.print(share_table(verdicts, dialogues))
    phases = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    console.print(f"{phases}; {sum(seconds.values()):.0f} s in all")
    console.print(train.summarise(run), markup=False)
    console.print(
        "next         make chat                                  talk to it\n"
        "             python -m lima_ray.encode --show 3         see what it learned from\n"
        "             python -m lima_ray.train --seed 1 --name seed-1   another seed\n"
        f"             python -m lima_ray.select {relative_path(run.path)} --select.last_epoch 12",
        soft_wrap=True,
    )


def measure(
    run: Run, model: Path, prompts: str, sampling: Sampling
) -> tuple[list[Reply], list[Verdict]]:
    """Reply to and judge a file of the miniature's prompts, such as `test`; kept in `measured/`."""
    name = f"epoch-{run.export_epoch():02d}" if model == run.export_dir else model.name
    out = run.path / "measured" / f"{prompts}-{name}"
    job = GenerationJob(
        model=str(model),
        name=name,
        prompts=f"{ROWS}/{prompts}.jsonl",
        out=out,
        sampling=sampling,
    )
    replies = generate(job, in_process=True)
    verdicts = judge(replies)
    write_jsonl([verdict.to_json() for verdict in verdicts], out / "verdicts.jsonl")
    return replies, verdicts


def conversation_table(
    replies: dict[str, list[Reply]], verdicts: dict[str, list[Verdict]]
) -> Table:
    """Return a few prompts with both models' replies side by side, labelled by kind."""
    table = Table(
        title="Conversations: of each kind as many where the aligned model succeeded as it does "
        "in all",
        show_lines=True,
        title_justify="left",
    )
    for column in ("kind", "prompt", *replies):
        table.add_column(column, ratio=1 if column == "kind" else 2)
    for group, count in SHOWN.items():
        for place in choose_typical(verdicts["aligned"], group, count):
            question = escape(printable(replies["base"][place].conversations[-1]))
            cells = [GROUPS[group], question]
            for name in replies:
                reply, verdict = replies[name][place], verdicts[name][place]
                text = reply.reply.strip()
                text = f"{text[:SHOWN_CHARACTERS]} ..." if len(text) > SHOWN_CHARACTERS else text
                judged = f"[dim]{verdict.verdict}{describe_faults(verdict)}[/dim]"
                cells.append(f"{escape(printable(text))}\n{judged}")
            table.add_row(*cells)
    return table


def choose_typical(verdicts: list[Verdict], group: str, count: int) -> list[int]:
    """Return indices of a group's first verdicts, successes in the group's proportion."""
    places = [i for i, v in enumerate(verdicts) if v.group == group]
    good = [i for i in places if verdicts[i].verdict != "fail"]
    bad = [i for i in places if verdicts[i].verdict == "fail"]
    shown = round(count * len(good) / len(places))
    return sorted(good[:shown] + bad[: count - shown])


def describe_faults(verdict: Verdict) -> str:
    """Return what is missing from an excellent reply, in a few words."""
    right = verdict.extra["right"]
    missing = [] if right else ["not right"]
    missing += [] if verdict.stopped else ["went on"]
    missing += verdict.extra["faults"] if right else []
    return f": {', '.join(missing)}" if missing else ""


def share_table(verdicts: dict[str, list[Verdict]], dialogues: dict[str, list[Verdict]]) -> Table:
    """Return a table of excellent, pass and fail by group, knowledge, and dialogues."""
    table = Table(
        title="Replies to prompts about things alignment never named: excellent / pass / fail %\n"
        "(with the 95 % interval of excellent and pass together), and how often the first\n"
        "paragraph says the fact, whatever its manner",
        title_justify="left",
    )
    table.add_column("prompts")
    table.add_column("n", justify="right")
    for name in verdicts:
        table.add_column(name)
        table.add_column("knows", justify="right")
    groups = [
        (title, {name: [v for v in vs if v.group == group] for name, vs in verdicts.items()})
        for group, title in GROUPS.items()
    ]
    for title, own in [*groups, ("all", verdicts)]:
        cells = [cell for vs in own.values() for cell in (format_shares(vs), knowledge_share(vs))]
        table.add_row(title, str(len(own["base"])), *cells, end_section=title == "all")
    stopped = [[v.stopped is True for v in vs] for vs in verdicts.values()]
    turns = [[v.verdict != "fail" for v in vs] for vs in dialogues.values()]
    successes = [dialogue_successes(vs) for vs in dialogues.values()]
    for title, values, digits in (
        ("stopped, and spoke of nothing else", stopped, 1),
        ("dialogue turns right", turns, 0),
        ("whole dialogues right", successes, 0),
    ):
        # Under `knows` stands nothing.
        cells = [cell for own in values for cell in (f"{mean(own):.{digits}%}", "")]
        table.add_row(title, str(len(values[0])), *cells)
    return table


def knowledge_share(verdicts: list[Verdict]) -> str:
    """Return the share of prompts whose fact the first paragraph says, private ones aside."""
    asked = [v.extra["knows"] for v in verdicts if "safe" not in v.extra]
    return f"{mean(asked):.0%}" if asked else ""


def format_shares(verdicts: list[Verdict]) -> str:
    """Return `excellent / pass / fail [interval]` of some verdicts, in percent."""
    counts = [sum(v.verdict == kind for v in verdicts) for kind in ("excellent", "pass", "fail")]
    low, high = intervals.wilson_interval(counts[0] + counts[1], len(verdicts))
    percents = " / ".join(f"{100 * count / len(verdicts):.0f}" for count in counts)
    return f"{percents}  [{100 * low:.0f}, {100 * high:.0f}]"


def dialogue_successes(verdicts: list[Verdict]) -> list[bool]:
    """Return whether every turn of each dialogue was right and stopped."""
    good: dict[str, bool] = {}
    for v in verdicts:
        good[v.id] = good.get(v.id, True) and v.verdict != "fail"
    return list(good.values())


def mean(values: list[bool]) -> float:
    return sum(values) / len(values)


def relative_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(step: RecipeCommand) -> None:
    demo(step.recipe)
