"""Say what a training needs before a GPU is asked for: memory, disk, steps, hours and money.

    python -m lima_ray.plan [RECIPE] [--section.field value ...] [--gpu H200]
    python -m lima_ray.plan lima-7b --cluster --measure
    python -m lima_ray.plan --llama

Counts what each worker holds at its peak from the base's `config.json` alone, and names the fastest
way to compute the recipe's steps that fits, as flags to paste. `--cluster` plans for the nodes of
the Ray cluster, else it is for cards by name. `--measure` runs three steps of each way there and
keeps the figures; later plans for this model and card use them, and so does a recipe that says
`auto`.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("plan"))

import json
import logging
import sys

from rich.console import Console

from lima_ray.config.errors import UserError
from lima_ray.config.loading import load_recipe
from lima_ray.planning.arguments import PlanCommand
from lima_ray.planning.display import print_llamas, print_plan
from lima_ray.planning.hardware import (
    Hardware,
    cluster_hardware,
    named_hardware,
    this_machine,
)
from lima_ray.planning.measurement import keep_measurement, measure_candidates
from lima_ray.planning.report import Plan, make_plan
from lima_ray.planning.sizes import find_lengths, read_shape


def plan(command: PlanCommand) -> Plan:
    """Plan a recipe on the hardware that a command names.

    Raises:
        UserError: a base whose configuration is not at hand, a card whose memory is not known, a
            cluster that cannot be joined.
    """
    recipe = command.recipe
    shape = read_shape(recipe)
    rows = find_lengths(recipe, command.rows, command.tokens_per_row)
    hardware = find_hardware(command)
    made = make_plan(recipe, shape, rows, hardware)
    if not command.measure:
        return made
    if rows is None:
        raise UserError("--measure needs the rows' lengths; give --rows and --tokens_per_row")
    ways = [made.own, *(one for one in made.candidates if one.recipe != made.own.recipe)]
    told = f"measuring up to {len(ways)} ways, three steps each, for about a minute ..."
    print(told, file=sys.stderr, flush=True)
    for number, measured in measure_candidates(ways, rows).items():
        keep_measurement(ways[number], shape, hardware, measured)
    return make_plan(recipe, shape, rows, hardware)


def find_hardware(command: PlanCommand) -> Hardware:
    """Return the cluster's nodes, this machine for a recipe that asks for CPUs, or named cards."""
    if command.cluster or command.measure:
        return cluster_hardware(command.gpu_gib, command.recipe.cluster.device)
    if command.recipe.cluster.device == "cpu":
        return this_machine()
    workers, per_node = command.recipe.cluster.workers, command.gpus_per_node
    return named_hardware(command.gpu, workers, per_node, command.gpu_gib, command.host_gib)


def main(command: PlanCommand) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console(highlight=False)
    if command.llama:
        print_llamas(console, [load_recipe(f"lima-{size}b") for size in (7, 13, 30, 65)])
        return
    made = plan(command)
    if command.as_json:
        print(json.dumps(made.as_json(command.dollars_per_gpu_hour), indent=1))
    else:
        print_plan(console, made, command.dollars_per_gpu_hour)
