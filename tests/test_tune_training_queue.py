"""The queue: who trains and judges what next, what failures cost, and what is written of it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.loading import load_recipe
from lima_ray.config.recipe import Recipe
from lima_ray.records.files import write_json
from tune.training import Training
from tune.workers.queued_training import Assessment
from tune.workers.training_queue import TrainingQueue


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The miniature's, with its runs in a folder of the test."""
    return load_recipe("miniature").override({"runs_dir": str(tmp_path / "trials")})


@pytest.fixture
def training(recipe: Recipe) -> Callable[..., Training]:
    """Return a function that makes trainings."""

    def make(id: str, point: int = 0, seed: int = 0) -> Training:
        tree = recipe.override({"seed": seed, "name": id}).model_dump()
        lineage = {"data": "a", "base": "b", "recipe": "c"}
        return Training(id, point, seed, tree, lineage, "test.jsonl", 1, "test-1", "chosen")

    return make


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on a new event loop."""
    return asyncio.run(asyncio.wait_for(work, 10))


def written(path: Path) -> list[dict[str, Any]]:
    """Read the lines of the trainings that ended."""
    return [json.loads(line) for line in (path / "trainings.jsonl").read_text().splitlines()]


async def begun(path: Path, retries: int) -> TrainingQueue:
    """Return a queue of a sweep in this directory."""
    queue = TrainingQueue()
    await queue.begin_sweep(path, retries)
    return queue


async def training_first(path: Path, retries: int, *trainings: Training) -> TrainingQueue:
    """Return a queue that has given the first of these trainings to worker group 0."""
    queue = await begun(path, retries)
    await queue.submit(list(trainings))
    await given_training(queue, 0)
    return queue


async def given_training(queue: TrainingQueue, group: int, fresh: bool = True) -> Training:
    """Return the training that a worker group is given."""
    training = await queue.next_training(group, fresh)
    assert isinstance(training, Training)
    return training


async def given_assessment(queue: TrainingQueue, assessor: int, fresh: bool = True) -> Assessment:
    """Return the assessment that an assessor is given."""
    assessment = await queue.next_assessment(assessor, fresh)
    assert isinstance(assessment, Assessment)
    return assessment


async def assessment_first(
    path: Path, retries: int, training: Training
) -> tuple[TrainingQueue, Assessment]:
    """Return a queue that has given the assessment of a training's first epoch to assessor 0."""
    queue = await training_first(path, retries, training)
    await queue.weights_saved(training.id, 1)
    return queue, await given_assessment(queue, 0)


async def measure(queue: TrainingQueue, assessor: int = 0) -> Assessment:
    """Do the next assessment as an assessor does."""
    assessment = await given_assessment(queue, assessor, False)
    if assessment.epoch is None:
        assessment.training.measured.mkdir(parents=True)
        (assessment.training.measured / "verdicts.jsonl").write_text("")
        assessment.training.run.export_dir.mkdir(parents=True, exist_ok=True)
        write_json(assessment.training.run.export_dir / "lineage.json", {"epoch": 6})
        await queue.training_measured(assessment.training.id)
    else:
        await queue.epoch_assessed(
            assessment.training.id, assessment.epoch, float(assessment.epoch)
        )
    return assessment


def test_a_training_goes_from_worker_group_to_assessor_to_file(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue = await begun(tmp_path, 1)
        await queue.submit([training("one"), training("two", seed=1)])
        first, second = [await given_training(queue, group) for group in (0, 1)]
        assert [first.id, second.id] == ["one", "two"]
        for id in ("one", "two"):
            assert await queue.weights_saved(id, 1) == await queue.weights_saved(id, 2) == "go on"
            await queue.training_ended(id)
        assert await queue.wait_for_dev_values(0, -1) == ({}, False)
        assessments = [await measure(queue) for _ in range(6)]
        order = [(assessment.training.id, assessment.epoch) for assessment in assessments]
        assert order[:3] == [("one", 1), ("one", 2), ("one", None)]
        assert await queue.wait_for_dev_values(0, 0) == ({1: 1.0, 2: 2.0}, True)

    run(work())
    assert [(line["id"], line["seed"], line["status"]) for line in written(tmp_path)] == [
        ("one", 0, "done"),
        ("two", 1, "done"),
    ]


def test_the_status_of_a_training_is_the_chosen_epochs_grade(tmp_path: Path, training: Any) -> None:
    async def work() -> list[tuple[str, float, int]]:
        queue, shown = await begun(tmp_path, 0), []
        await queue.submit([training("one")])
        await queue.next_training(0, True)
        for epoch in (5, 6, 7):
            await queue.weights_saved("one", epoch)
            await measure(queue)
        await queue.training_ended("one")
        (before,) = await queue.status()
        await measure(queue)
        (after,) = await queue.status()
        for one in (before, after):
            shown.append((one["state"], one["dev_value"], one["of_epoch"]))
        return shown

    assert run(work()) == [("trained", 7.0, 7), ("done", 6.0, 6)]  # `measure` exports epoch 6


def test_what_is_done_is_not_done_again_nor_written_twice(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("one"))
        await queue.training_ended("one")
        await measure(queue)
        later = await begun(tmp_path, 0)
        await later.submit([training("one"), training("one", point=7, seed=3)])
        assert not later.waiting and not later.assessments
        assert (await later.wait_for_dev_values(7, 0))[1]

    run(work())
    assert [(line["point"], line["seed"]) for line in written(tmp_path)] == [(0, 0), (7, 3)]


def test_a_trained_run_is_measured_without_a_worker_group(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        one = training("one")
        one.run.export_dir.mkdir(parents=True)
        (one.run.export_dir / "model.safetensors").write_text("")
        queue = await begun(tmp_path, 0)
        await queue.submit([one])
        assert (await measure(queue)).epoch is None

    run(work())
    assert written(tmp_path)[0]["status"] == "done"


def test_a_worker_group_that_died_goes_on_and_then_fails_with_its_error(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue = await begun(tmp_path, 1)
        await queue.submit([training("bad"), training("good", seed=1)])
        assert (await given_training(queue, 0, True)).id == "bad"
        assert (await given_training(queue, 0, True)).id == "bad"
        await queue.group_failed(0, "CUDA out of memory")
        assert (await given_training(queue, 0, True)).id == "good"
        assert (await queue.status())[0]["state"] == "failed"

    run(work())
    (line,) = written(tmp_path)
    assert line["id"] == "bad" and line["error"] == "CUDA out of memory"


def test_a_death_without_an_error_is_reported_as_such(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("bad"), training("good", seed=1))
        assert (await given_training(queue, 0, True)).id == "good"

    run(work())
    (line,) = written(tmp_path)
    assert line["error"] == "a worker died"


def test_an_assessor_that_died_or_failed_is_retried_then_fails_its_training(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue, assessment = await assessment_first(tmp_path, 1, training("one"))
        again = await given_assessment(queue, 0)
        assert again == assessment
        await queue.assessment_failed(again, "the judge is away")
        assert not queue.assessments
        assert await queue.weights_saved("one", 2) == "leave"
        await queue.training_ended("one")
        assert not queue.assessments

    run(work())
    (line,) = written(tmp_path)
    assert (line["status"], line["error"]) == ("failed", "the judge is away")


def test_a_cancelled_point_stops_at_its_next_epoch(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await begun(tmp_path, 1)
        await queue.submit(
            [training("runs"), training("waits", seed=1), training("other", point=1)]
        )
        await queue.next_training(0, True)
        await queue.cancel(0)
        assert await queue.weights_saved("runs", 2) == "stop"
        await queue.training_ended("runs")
        assert not await queue.is_stopping()
        assert (await given_training(queue, 0, False)).id == "other"
        assert (await queue.wait_for_dev_values(0, 0))[1]

    run(work())
    assert [(line["id"], line["status"]) for line in written(tmp_path)] == [
        ("waits", "stopped"),
        ("runs", "stopped"),
    ]


def test_a_training_that_another_point_needs_is_not_stopped(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 1, training("both"), training("both", point=1))
        await queue.cancel(0)
        assert await queue.weights_saved("both", 1) == "go on"
        assert not queue.waiting

    run(work())


def test_grades_are_returned_when_every_seed_that_lives_has_them(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue = await begun(tmp_path, 0)
        await queue.submit([training("one"), training("two", seed=1), training("three", seed=2)])
        for group in range(3):
            await queue.next_training(group, True)
        for id, grade in (("one", 2.0), ("two", 4.0)):
            await queue.weights_saved(id, 1)
            await queue.epoch_assessed(id, 1, grade)
        waiting = asyncio.create_task(queue.wait_for_dev_values(0, 0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await queue.training_ended("three", "no room")
        assert await waiting == ({1: 3.0}, False)

    run(work())


def test_closing_with_an_error_fails_what_has_not_ended(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("one"), training("two", seed=1))
        idle = asyncio.create_task(queue.next_assessment(0, True))
        await queue.close("all trainers have given up")
        assert await idle == "closed" and await queue.next_training(1, True) == "closed"

        await queue.submit([training("late", point=1)])
        assert (await queue.wait_for_dev_values(1, 0))[1]

    run(work())
    assert {(line["id"], line["status"]) for line in written(tmp_path)} == {
        ("one", "failed"),
        ("two", "failed"),
        ("late", "failed"),
    }


def test_closing_leaves_a_training_for_a_later_start(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("one"))
        await queue.close()
        assert await queue.weights_saved("one", 1) == "leave"

    run(work())
    assert not (tmp_path / "trainings.jsonl").exists()


def test_what_a_worker_group_or_an_assessor_held_goes_to_others_when_it_is_lost(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue, assessment = await assessment_first(tmp_path, 1, training("one"))
        await queue.assessor_lost(0, "gone")
        assert await given_assessment(queue, 1) == assessment
        await queue.group_lost(0, "gone")
        assert (await given_training(queue, 1, True)).id == "one"
        await queue.group_lost(1, "gone too")

    run(work())
    assert [(line["status"], line["error"]) for line in written(tmp_path)] == [
        ("failed", "gone too")
    ]


def test_reports_of_a_sweep_before_are_nothing_to_the_next(tmp_path: Path, training: Any) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("old"))
        await queue.begin_sweep(tmp_path, 0)
        assert await queue.weights_saved("old", 1) == "leave"
        await queue.epoch_assessed("old", 1, 3.0)
        await queue.training_ended("old")
        await queue.training_ended("old", "x")
        await queue.submit([training("new")])
        assert (await given_training(queue, 0, False)).id == "new"

    run(work())


def test_a_training_stopped_for_one_point_goes_on_for_another(
    tmp_path: Path, training: Any
) -> None:
    async def work() -> None:
        queue = await training_first(tmp_path, 0, training("both"))
        await queue.cancel(0)
        await queue.submit([training("both", point=1)])
        assert await queue.weights_saved("both", 1) == "go on" and not queue.waiting

    run(work())


def test_a_searchers_point_keeps_its_number_when_its_trial_is_retried(tmp_path: Path) -> None:
    async def work() -> None:
        queue = await begun(tmp_path, 0)
        numbers = [await queue.point_number({"rate": rate}, 5) for rate in (0.1, 0.2, 0.1)]
        assert numbers == [5, 6, 5]
        await queue.write_refused(6, [0, 1], "data.rows is 9999")

    run(work())
    assert [(line["point"], line["seed"], line["status"]) for line in written(tmp_path)] == [
        (6, 0, "failed"),
        (6, 1, "failed"),
    ]


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, training: Any) -> None:
    file = tmp_path / "trainings.jsonl"
    file.write_text('{"id": "one", "point": 0, "seed": 0, "status": "done"}\n{"id": "tw')

    async def work() -> None:
        queue = await begun(tmp_path, 0)
        await queue.submit([training("two", seed=1)])
        await queue.training_ended("two", "no room")

    run(work())
    assert [(line["id"], line["status"]) for line in written(tmp_path)] == [
        ("one", "done"),
        ("two", "failed"),
    ]
