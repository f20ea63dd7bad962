"""A plan as people read it."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lima_ray.config.recipe import Recipe
from lima_ray.planning.candidates import Candidate, plan_recipe
from lima_ray.planning.hardware import CARDS, GIB, PROCESS_GIB, named_hardware
from lima_ray.planning.report import Plan, describe_way, gib, make_plan, way_name
from lima_ray.planning.sizes import find_lengths, read_shape
from lima_ray.results.units import format_bytes, format_duration

COLOURS = {"fits": "green", "tight": "yellow", "does not fit": "red", "unknown": "dim"}
SHOWN = 8
"""Ways that are shown, of many."""
CARDS_OF_MACHINE = 8
LLAMA_CARDS = ("H100", "H200")
LLAMA_WIDTH = 240
LORA_RANK = 16
PLAIN = {
    "train.zero_stage": 2,
    "train.activation_checkpointing": False,
    "train.offload_optimizer": False,
    "train.offload_params": False,
}
LLAMA_WAYS = {
    "ZeRO 2": {},
    "and checkpointing": {"train.activation_checkpointing": True},
    "ZeRO 3": {"train.zero_stage": 3},
    "ZeRO 3, checkpointing": {"train.zero_stage": 3, "train.activation_checkpointing": True},
    "and AdamW offloaded": {
        "train.zero_stage": 3,
        "train.activation_checkpointing": True,
        "train.offload_optimizer": True,
    },
}
"""Columns of the table of LLaMA's sizes, and what is switched in each."""


def print_plan(console: Console, plan: Plan, dollars_per_gpu_hour: float | None) -> None:
    """Print a plan: the verdict, memory by what it is for, other ways, disk, steps, hours, cost."""
    recipe, shape, own = plan.recipe, plan.shape, plan.own
    what = f"{shape.parameters / 1e6:,.0f} million parameters"
    if shape.trained < shape.parameters:
        what += f", {shape.trained / 1e6:,.0f} million of them trained"
    console.print(
        f"{recipe.name}: {recipe.model.base}, {what}, in {own.precision}; {plan.hardware.source}\n",
        soft_wrap=True,
    )
    console.print(Text(plan.verdict, style=f"bold {COLOURS[own.verdict]}"))
    console.print(f"\none worker at its peak ({own.memory.moment}), GiB")
    console.print(memory_table(plan))
    console.print("\nways to compute the same steps, the fastest first")
    console.print(ways_table(plan))
    print_advice(console, plan)
    disk = plan.disk
    console.print(
        f"\ndisk     {format_bytes(disk.most)} in {recipe.runs_dir} at most, "
        f"{format_bytes(plan.disk_free)} are free here: {disk.states} resume states of "
        f"{format_bytes(disk.state)}, {disk.epochs} epochs' weights of {format_bytes(disk.weights)}"
        + (f", scratch {format_bytes(disk.scratch)}" if disk.scratch else ""),
        soft_wrap=True,
    )
    took = plan.duration(own)
    if took is None:
        console.print(
            f"steps    not known: {recipe.data.train} is not at hand; give --rows and "
            "--tokens_per_row. Memory is planned for full micro-batches",
            soft_wrap=True,
        )
        return
    assert plan.rows
    console.print(
        f"steps    {took.steps:,} of {recipe.optim.batch_examples} examples, "
        f"{recipe.optim.epochs} epochs of {len(plan.rows):,} rows ({plan.rows.source})",
        soft_wrap=True,
    )
    told = "not known" if took.seconds is None else format_duration(took.seconds)
    console.print(
        f"time     {told} of steps ({took.source}); starting and saving come on top",
        soft_wrap=True,
    )
    if dollars_per_gpu_hour is not None:
        cost = took.dollars(plan.workers, dollars_per_gpu_hour)
        told = "not known" if cost is None else f"${cost:,.2f}"
        console.print(
            f"cost     {told} for these steps at ${dollars_per_gpu_hour:g} for each of "
            f"{plan.workers} GPUs an hour"
        )


def memory_table(plan: Plan) -> Table:
    """Lay out what one worker holds at its peak."""
    memory = plan.own.memory
    shown = Table(box=None, show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for name, count in memory.parts.items():
        if count:
            shown.add_row(name, f"{count / GIB:,.2f}")
    shown.add_row("in all", f"{memory.peak / GIB:,.2f}", style="bold")
    if plan.own.measured:
        shown.add_row("measured", f"{plan.own.peak / GIB:,.2f}", style="bold")
    for name, count in memory.host.items():
        shown.add_row(f"{name}, in the node's memory", f"{count / GIB:,.2f}")
    return shown


def ways_table(plan: Plan) -> Table:
    """Lay out the ways to compute the same steps, the fastest first."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("way", min_width=len("checkpointing,"))
    host = any(one.memory.host_bytes for one in plan.candidates)
    of = "" if plan.own.has is None else f" of {gib(plan.own.has)}"
    for heading in ("tokens", f"GiB{of}", *(["node's GiB"] * host), "steps take"):
        shown.add_column(heading, justify="right")
    shown.add_column(no_wrap=True)
    for one in plan.candidates[:SHOWN]:
        took = plan.duration(one)
        on_host = gib(one.memory.host_bytes) if one.memory.host_bytes else ""
        shown.add_row(
            way_name(one),
            f"{one.recipe.train.tokens_per_micro_batch:,}",
            gib(one.peak),
            *([on_host] * host),
            "" if took is None or took.seconds is None else format_duration(took.seconds),
            Text(told(one, plan), style=COLOURS[one.verdict]),
        )
    return shown


def told(one: Candidate, plan: Plan) -> str:
    is_own = one.recipe == plan.own.recipe
    return one.verdict + (", measured" if one.measured else "") + (", the recipe" if is_own else "")


def print_advice(console: Console, plan: Plan) -> None:
    """Print the flags of the fastest way that fits, and why it is that one."""
    fastest, own = plan.fastest, plan.own
    if own.verdict == "unknown":
        console.print("give --gpu_gib or --cluster to learn what fits")
    elif fastest is None:
        console.print(
            f"nothing fits {plan.workers} of them: more --cluster.workers, larger cards, or "
            "--model.lora_rank 16, which trains adapters and needs far less",
            soft_wrap=True,
        )
    elif fastest.recipe == own.recipe:
        console.print("the recipe is the fastest of what fits")
    else:
        reason = "fits" if own.verdict == "does not fit" else "is faster"
        console.print(f"this {reason}: {fastest.flags(plan.recipe)}", soft_wrap=True)
    if fastest and fastest.memory.host_bytes:
        node = fastest.memory.host_bytes * plan.hardware.workers_of_node(plan.workers)
        known = "" if fastest.host_has else ", which is not known to be there (--host_gib)"
        console.print(f"it takes {gib(node)} GiB of a machine's own memory{known}", soft_wrap=True)
    if own.verdict == "tight":
        console.print("tight: a plan may err by 15 %; --measure tells for certain")


def print_llamas(console: Console, recipes: list[Recipe]) -> None:
    """Print what recipes need on one machine of eight cards, as a Markdown table."""
    shown = Table(box=box.MARKDOWN)
    shown.add_column("GiB of each card")
    for heading in (*LLAMA_WAYS, f"LoRA {LORA_RANK}, ZeRO 2"):
        shown.add_column(heading, justify="right")
    for card in LLAMA_CARDS:
        shown.add_column(f"fastest on 8 x {card} ({CARDS[card] - PROCESS_GIB:.1f})")
    for recipe in recipes:
        shown.add_row(*llama_row(recipe.override(PLAIN | {"cluster.workers": CARDS_OF_MACHINE})))
    console.width = max(console.width, LLAMA_WIDTH)
    console.print(shown)


def llama_row(recipe: Recipe) -> list[str]:
    """Return what a recipe needs by how it is computed, and what is fastest on each card."""
    machines = [
        named_hardware(card, CARDS_OF_MACHINE, CARDS_OF_MACHINE, None, None) for card in LLAMA_CARDS
    ]
    lora = recipe.override({"model.lora_rank": LORA_RANK})
    rows, shape = find_lengths(recipe, None, None), read_shape(recipe)
    ways = [
        plan_recipe(recipe.override(way), shape, rows, machines[0]) for way in LLAMA_WAYS.values()
    ]
    ways.append(plan_recipe(lora, read_shape(lora), rows, machines[0]))
    plans = [make_plan(recipe, shape, rows, on).fastest for on in machines]
    fastest = ["none: more machines" if one is None else describe_way(one) for one in plans]
    name = recipe.name.removeprefix("lima-").upper()
    return [f"LLaMA {name}", *(f"{one.peak / GIB:.0f}" for one in ways), *fastest]
