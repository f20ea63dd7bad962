"""`lima_ray.plan`: every shipped recipe, what fits where, flags to paste, `auto`, and refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ray_cluster

from lima_ray import plan, train
from lima_ray.config.command_line import COMMANDS, parse_arguments, run_command
from lima_ray.config.errors import UserError
from lima_ray.config.loading import load_recipe
from lima_ray.config.paths import RECIPES
from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.planning.candidates import Measured, choose
from lima_ray.planning.hardware import GIB, Hardware, Node, cluster_hardware, read_node
from lima_ray.planning.measurement import keep_measurement, with_measurement
from lima_ray.planning.report import Plan, gib, make_plan, plan_ways, resolve_auto
from lima_ray.planning.sizes import find_lengths, read_shape
from lima_ray.records.run import Run


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that this machine keeps are not seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(cpus=4):
        yield


def planned(*args: str) -> Plan:
    return plan.plan(parse_arguments(COMMANDS["plan"], list(args)))


def machine(gib: float | None, gpus: int = 8, host_gib: float | None = None) -> Hardware:
    """One machine of GPUs with so much memory for tensors."""
    own = None if gib is None else gib * GIB
    host = None if host_gib is None else host_gib * GIB
    return Hardware((Node(gpus, "H100", own, 16, host),), "a machine")


def on(recipe: Recipe, hardware: Hardware) -> Plan:
    return make_plan(recipe, read_shape(recipe), None, hardware)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_can_be_planned(name: str) -> None:
    made = planned(name)
    assert made.own.peak > 0
    assert made.disk.most > made.disk.state
    plain = json.loads(json.dumps(made.as_json(2.0)))
    assert plain["verdict"] == made.verdict
    assert plain["own"]["peak_bytes"] == made.own.peak


def test_llama_7b_fits_eight_cards_of_80_gb_and_its_time_and_cost_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_command("plan", ["lima-7b", "--dollars_per_gpu_hour", "3"])
    said = capsys.readouterr().out
    assert "fits: " in said
    assert "on each of 8 GPUs" in said
    assert "240 of 64 examples" in said
    assert "for these steps at $3 for each of 8 GPUs an hour" in said


def test_flags_to_paste_make_the_recipe_that_is_planned() -> None:
    args = ["lima-13b", "--train.no_activation_checkpointing", "--train.zero_stage", "2"]
    made = planned(*args)
    assert made.own.verdict == "does not fit"
    assert made.fastest
    pasted = made.fastest.flags(made.recipe).split()
    again = planned(
        "lima-13b", "--train.no_activation_checkpointing", "--train.zero_stage", "2", *pasted
    )
    assert again.recipe.train == made.fastest.recipe.train
    assert again.verdict.startswith("fits: ")


def test_what_fits_depends_on_memory() -> None:
    recipe = load_recipe("lima-65b").override({"cluster.workers": 8})
    plenty, some, little = (on(recipe, machine(gib, host_gib=2000)) for gib in (600, 138, 77))
    assert plenty.fastest and some.fastest and little.fastest
    assert plenty.fastest.recipe.train.zero_stage == 2
    assert not plenty.fastest.recipe.train.activation_checkpointing
    assert some.fastest.recipe.train.zero_stage == 3
    assert little.fastest.recipe.train.offload_optimizer
    # What is offloaded has to fit the machine's own memory.
    assert on(recipe, machine(77, host_gib=200)).fastest is None
    assert on(recipe, machine(1)).fastest is None
    assert on(recipe, machine(None)).own.verdict == "unknown"


def test_more_workers_need_less() -> None:
    recipe = load_recipe("lima-30b")
    peaks = [
        on(recipe.override({"cluster.workers": n}), machine(77)).own.peak for n in (4, 8, 16, 32)
    ]
    assert peaks == sorted(peaks, reverse=True)


def auto(**fields: Any) -> Recipe:
    return load_recipe("lima-13b").override({f"train.{name}": v for name, v in fields.items()})


def test_auto_takes_the_fastest_that_fits_and_keeps_what_is_set() -> None:
    every = auto(
        zero_stage="auto",
        activation_checkpointing="auto",
        offload_optimizer="auto",
        offload_params="auto",
        tokens_per_micro_batch="auto",
    )
    assert not every.is_resolved()

    def chosen(recipe: Recipe, gib: float) -> Recipe:
        ways = plan_ways(recipe, read_shape(recipe), None, machine(gib), recipe.unresolved())
        found = choose(ways)
        assert found
        assert found.recipe.unresolved() == []
        return found.recipe

    wide, narrow = chosen(every, 300).train, chosen(every, 30).train
    assert (wide.zero_stage, wide.activation_checkpointing) == (2, False)
    assert wide.tokens_per_micro_batch == 16384
    assert narrow.offload_optimizer or narrow.activation_checkpointing
    kept = chosen(auto(activation_checkpointing="auto", zero_stage=3), 60).train
    assert (kept.zero_stage, kept.activation_checkpointing) == (3, True)
    assert kept.tokens_per_micro_batch == 8192


def test_auto_is_resolved_before_a_run_and_kept_when_it_goes_on(
    cluster: None, recipe: Recipe
) -> None:
    asked = recipe.override(
        {
            "train.activation_checkpointing": "auto",
            "train.offload_optimizer": "auto",
            "train.tokens_per_micro_batch": "auto",
            "optim.epochs": 1,
        }
    )
    run = train.fit(asked)
    began = run.recipe()
    assert began.unresolved() == []
    assert began.train.zero_stage == 0
    assert not began.train.activation_checkpointing
    assert began.hash() == run.data_card()["recipe"]["hash"]
    # Another machine may choose otherwise; a run that has begun does not.
    other = began.override({"train.activation_checkpointing": True})
    other.save(run.recipe_file)
    assert run.with_own_choices(asked).train.activation_checkpointing is True
    assert train.fit(asked).recipe().train.activation_checkpointing is True
    assert Run(run.path.with_name("new")).with_own_choices(asked) == asked
    # Nor does one that began when nothing was resolved.
    began.override({"train.zero_stage": "auto"}).save(run.recipe_file)
    assert train.fit(asked).recipe().train.zero_stage == "auto"


def test_measurements_replace_the_plan_on_such_hardware_alone(recipe: Recipe) -> None:
    shape, here = read_shape(recipe), machine(70, gpus=1)
    own = on(recipe, here).own
    keep_measurement(own, shape, here, Measured(5 * GIB, 1e12))
    found = with_measurement(own, shape, here)
    assert found.peak == 5 * GIB
    assert found.verdict == "fits"
    elsewhere = Hardware((Node(1, "H200", 138.0 * GIB, 16, None),), "another")
    assert with_measurement(own, shape, elsewhere).measured is None
    wider = recipe.override({"train.tokens_per_micro_batch": 1024})
    assert on(wider, here).own.measured is None
    made = make_plan(recipe, shape, find_lengths(recipe, None, None), here)
    took = made.duration(made.own)
    assert took and took.seconds
    assert "measured" in took.source


def test_nodes_are_read_from_rays_resources() -> None:
    resources = {"GPU": 8.0, "CPU": 64.0, "memory": 1e12, "accelerator_type:A100": 1.0}
    node = read_node(resources, None)
    assert (node.gpus, node.card) == (8, "A100")
    assert node.gpu_bytes and 70 * GIB < node.gpu_bytes < 80 * GIB
    assert read_node({"GPU": 1.0}, None).gpu_bytes is None
    assert read_node({"GPU": 1.0}, 48.0).gpu_bytes
    cpus = read_node({"CPU": 4.0, "memory": 8e9}, None)
    assert cpus.host_bytes == 8e9
    of_two = Hardware((cpus,), "").bytes_of_worker(2)
    assert of_two and 3e9 < of_two < 4e9  # a process of its own takes some


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["lima-7b", "--model.base", "nobody/nothing"], "the shape of the base nobody/nothing"),
        (["lima-7b", "--gpu", "H1000"], "the memory of a H1000 is not listed; did you mean H100?"),
    ],
)
def test_refusals_name_the_way_out(
    args: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=expected):
        planned(*args)


def test_rows_may_be_told_where_the_data_is_not_at_hand() -> None:
    assert planned("alpaca-65b").rows is None
    told = planned("alpaca-65b", "--rows", "5200", "--tokens_per_row", "120")
    took = told.duration(told.own)
    assert took and took.steps == 3 * -(-5200 // 32)
    assert told.rows and told.rows.lengths_R.mean() == pytest.approx(120, rel=0.05)


@pytest.mark.slow
def test_three_steps_are_measured_on_the_clusters_workers(
    cluster: None, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe.override({"cluster.workers": 2})
    recipe.save(tmp_path / "tiny.yaml")
    run_command("plan", [str(tmp_path / "tiny.yaml"), "--measure"])
    said = capsys.readouterr().out
    assert "three steps measured here" in said
    assert not list(Path(recipe.runs_dir).glob(".plan-*"))
    # A later plan for this model and hardware, and a recipe that says auto, use the figures.
    shape, rows = read_shape(recipe), training_data.load(recipe)[2]
    later = make_plan(recipe, shape, find_lengths(recipe, None, None), cluster_hardware(None))
    assert later.own.measured
    assert f"measured {later.own.peak / GIB:,.2f}" in " ".join(said.split())
    asked = recipe.override({"train.activation_checkpointing": "auto"})
    resolved, told = resolve_auto(asked, rows)
    assert resolved.unresolved() == []
    assert f"{gib(later.own.peak)} of" in told
