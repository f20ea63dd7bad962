"""What `benchmarks.gpu` recorded on a GPU, as results for the page."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.page.result import OURS, RESULTS, Figure, Machine, Result

Case = dict[str, Any]
ATTENTION = {
    "sdpa": "PyTorch's own attention",
    "lima_packed": "attention row by row",
    "lima_varlen": "varlen attention",
}
HEADS = {"logits": "", "chunked": "loss head in chunks", "liger": "Liger's loss head"}
QUANTITIES = (
    ("speed", "tokens/s", "tokens_per_s", 1.0),
    ("MFU", "%", "mfu_palm", 100.0),
    ("peak", "GiB", "peak_gib", 1.0),
)


def gpu_results() -> list[Result]:
    """Return passes of an 8B, its whole steps, steps of LLaMA 7B, and distances to PyTorch's."""
    record = json.loads((RESULTS / "gpu-training.json").read_text())
    correct = json.loads((RESULTS / "gpu-correct.json").read_text())
    return [
        made("gpu-correct", correct, tuple(distances(correct))),
        *(
            made(name, record, tuple(figures_of(list(found(record)), describe, title)))
            for name, title, found, describe in (
                ("gpu-layers", "8B, rows of 4,096 tokens", layers, describe_layers),
                ("gpu-steps", "8B, steps of 32,768 tokens", steps, describe_steps),
                ("gpu-lima", "LLaMA 7B, LIMA's lengths", lima, describe_lima),
            )
        ),
    ]


def made(name: str, record: Case, figures: tuple[Figure, ...]) -> Result:
    return Result(
        name=name,
        command=f"python -m benchmarks.gpu {record['batch']}",
        date="2026-11-26",
        commit="",
        machine=gpu_machine(record),
        seconds=0.0,
        figures=figures,
    )


def gpu_machine(record: Case) -> Machine:
    """Return where a batch of `benchmarks.gpu` ran."""
    found = record["machine"]
    return Machine("", 0, 0.0, {"Python": found["python"], **found["packages"]}, found["gpu"])


def figures_of(cases: list[Case], describe: Callable[[Case], str], title: str) -> Iterator[Figure]:
    for what, unit, key, factor in QUANTITIES:
        for case in cases:
            said = describe(case)
            yield Figure(what, said, OURS, unit, (case[key] * factor,), axis=title)


def distances(record: Case) -> Iterator[Figure]:
    """Yield how far three steps are from plain PyTorch's, and resumed losses from a whole run's."""
    found = [case for case in record["results"] if case["what"] == "steps"]
    names = {
        "gradient": "gradient",
        "loss": "loss",
        "plain_gradient": "plain PyTorch's own gradient",
    }
    for key, name in names.items():
        for case in found:
            if key in case:
                said = f"{case['train.precision']}, ZeRO {case['train.zero_stage']}"
                said += f", attention {case['model.attention']}"
                yield Figure(f"{name} from fp32", said, OURS, "", (case[key],), axis="three steps")
    for case in record["results"]:
        if case["what"] == "resume":
            said = f"{case['steps']} steps in {case['precision']}, stopped after "
            said += f"{case['stopped_after']} and resumed"
            apart = case["largest_difference_of_the_resumed_run"]
            yield Figure("largest difference of losses", said, OURS, "", (apart,), axis="runs")


def layers(record: Case) -> Iterator[Case]:
    """Yield passes that were measured in a process of their own kind.

    Those of the run `training_liger` followed whole steps, whose tensors their peaks still hold.
    """
    for case in record["results"]:
        if case["what"] == "layers" and "error" not in case and case.get("run") != "training_liger":
            yield case


def steps(record: Case) -> Iterator[Case]:
    """Yield whole steps with what is switched for them, told by the record before them."""
    settings: Case = {"checkpointing": "full"}
    for case in record["results"]:
        if case["what"] == "next steps use":
            settings = {"checkpointing": case["checkpointing"]}
        elif case["what"] == "steps" and "error" not in case:
            yield settings | case


def lima(record: Case) -> Iterator[Case]:
    yield from (c for c in record["results"] if c["what"] == "lima" and "error" not in c)


def describe_layers(case: Case) -> str:
    parts = [
        ATTENTION[case["attention"]],
        f"checkpointing {case['checkpointing']}",
        HEADS[case.get("head", "logits")],
        "Liger's layers" * case["liger"],
        "compiled" * case.get("compiled", False),
        "two rows" * (case["rows"] == 2),
    ]
    return ", ".join(part for part in parts if part)


def describe_steps(case: Case) -> str:
    parts = [f"ZeRO {case['zero_stage']}", f"checkpointing {case['checkpointing']}"]
    return ", ".join(parts + ["compiled"] * case["compiled"])


def describe_lima(case: Case) -> str:
    parts = [ATTENTION[case["attention"]], f"{case['tokens']:,} tokens at once"]
    parts.append("checkpointing" if case["checkpointing"] else "no checkpointing")
    parts += [f"residual dropout {case['dropout']}"] * bool(case["dropout"])
    return ", ".join(parts + [f"LoRA of rank {case['lora']}"] * bool(case["lora"]))
