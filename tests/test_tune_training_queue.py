"""Who trains and judges what next, what failures cost, and what is written of it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.loading import load
from lima_ray.config.recipe import Recipe
from lima_ray.records.files import write_json
from tune.training import Job
from tune.workers.training_queue import Dispatcher, Task


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The miniature's, with its runs in a folder of the test."""
    return load("miniature").override({"runs_dir": str(tmp_path / "trials")})


@pytest.fixture
def job(recipe: Recipe) -> Callable[..., Job]:
    """Makes trainings."""

    def make(id: str, point: int = 0, seed: int = 0) -> Job:
        tree = recipe.override({"seed": seed, "name": id}).model_dump()
        lineage = {"data": "a", "base": "b", "recipe": "c"}
        return Job(id, point, seed, tree, lineage, "test.jsonl", 1, "test-1", "chosen")

    return make


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on a new event loop."""
    return asyncio.run(asyncio.wait_for(work, 10))


def written(path: Path) -> list[dict[str, Any]]:
    """Lines of the trainings that ended."""
    return [json.loads(line) for line in (path / "trainings.jsonl").read_text().splitlines()]


async def begun(path: Path, retries: int) -> Dispatcher:
    """A dispatcher of a sweep in this directory."""
    dispatcher = Dispatcher()
    await dispatcher.begin(path, retries)
    return dispatcher


async def taken(dispatcher: Dispatcher, lane: int, fresh: bool = True) -> Job:
    """The training that a lane is given."""
    job = await dispatcher.take(lane, fresh)
    assert isinstance(job, Job)
    return job


async def held(dispatcher: Dispatcher, seat: int, fresh: bool = True) -> Task:
    """The task that an assessor is given."""
    task = await dispatcher.task(seat, fresh)
    assert isinstance(task, Task)
    return task


async def measure(dispatcher: Dispatcher, seat: int = 0) -> Task:
    """Do the next task of an assessor as one does."""
    task = await held(dispatcher, seat, False)
    if task.epoch is None:
        task.job.measured.mkdir(parents=True)
        (task.job.measured / "verdicts.jsonl").write_text("")
        task.job.run.export_dir.mkdir(parents=True, exist_ok=True)
        write_json(task.job.run.export_dir / "lineage.json", {"epoch": 6})
        await dispatcher.concluded(task.job.id)
    else:
        await dispatcher.assessed(task.job.id, task.epoch, float(task.epoch))
    return task


def test_a_training_goes_from_lane_to_assessor_to_file(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("one"), job("two", seed=1)])
        first, second = [await taken(dispatcher, lane) for lane in (0, 1)]
        assert [first.id, second.id] == ["one", "two"]
        for id in ("one", "two"):
            assert await dispatcher.saved(id, 1) == await dispatcher.saved(id, 2) == "go on"
            await dispatcher.trained(id)
        assert await dispatcher.news(0, -1) == ({}, False)
        tasks = [await measure(dispatcher) for _ in range(6)]
        order = [(task.job.id, task.epoch) for task in tasks]
        assert order[:3] == [("one", 1), ("one", 2), ("one", None)]
        assert await dispatcher.news(0, 0) == ({1: 1.0, 2: 2.0}, True)

    run(work())
    assert [(line["id"], line["seed"], line["status"]) for line in written(tmp_path)] == [
        ("one", 0, "done"),
        ("two", 1, "done"),
    ]


def test_what_is_told_of_a_training_is_the_chosen_epochs_grade(tmp_path: Path, job: Any) -> None:
    async def work() -> list[tuple[str, float, int]]:
        dispatcher, told = await begun(tmp_path, 0), []
        await dispatcher.submit([job("one")])
        await dispatcher.take(0, True)
        for epoch in (5, 6, 7):
            await dispatcher.saved("one", epoch)
            await measure(dispatcher)
        await dispatcher.trained("one")
        (before,) = await dispatcher.status()
        await measure(dispatcher)
        (after,) = await dispatcher.status()
        for one in (before, after):
            told.append((one["state"], one["grade"], one["of_epoch"]))
        return told

    assert run(work()) == [("trained", 7.0, 7), ("done", 6.0, 6)]  # `measure` exports epoch 6


def test_what_is_done_is_not_done_again_nor_written_twice(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("one")])
        await dispatcher.take(0, True)
        await dispatcher.trained("one")
        await measure(dispatcher)
        later = await begun(tmp_path, 0)
        await later.submit([job("one"), job("one", point=7, seed=3)])
        assert not later.queue and not later.tasks
        assert (await later.news(7, 0))[1]

    run(work())
    assert [(line["point"], line["seed"]) for line in written(tmp_path)] == [(0, 0), (7, 3)]


def test_a_trained_run_is_measured_without_a_lane(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        one = job("one")
        one.run.export_dir.mkdir(parents=True)
        (one.run.export_dir / "model.safetensors").write_text("")
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([one])
        assert (await measure(dispatcher)).epoch is None

    run(work())
    assert written(tmp_path)[0]["status"] == "done"


def test_a_lane_that_died_goes_on_and_then_fails_with_its_error(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("bad"), job("good", seed=1)])
        assert (await taken(dispatcher, 0, True)).id == "bad"
        assert (await taken(dispatcher, 0, True)).id == "bad"
        await dispatcher.lane_error(0, "CUDA out of memory")
        assert (await taken(dispatcher, 0, True)).id == "good"
        assert (await dispatcher.status())[0]["state"] == "failed"

    run(work())
    (line,) = written(tmp_path)
    assert line["id"] == "bad" and line["error"] == "CUDA out of memory"


def test_a_death_without_words_is_told_as_such(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("bad"), job("good", seed=1)])
        await dispatcher.take(0, True)
        assert (await taken(dispatcher, 0, True)).id == "good"

    run(work())
    assert written(tmp_path)[0]["error"] == "a worker died"


def test_an_assessor_that_died_or_failed_is_retried_then_fails_its_training(
    tmp_path: Path, job: Any
) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("one")])
        await dispatcher.take(0, True)
        await dispatcher.saved("one", 1)
        task = await held(dispatcher, 0)
        again = await held(dispatcher, 0)
        assert again == task
        await dispatcher.task_failed(again, "the judge is away")
        assert not dispatcher.tasks
        assert await dispatcher.saved("one", 2) == "leave"
        await dispatcher.trained("one")
        assert not dispatcher.tasks

    run(work())
    (line,) = written(tmp_path)
    assert (line["status"], line["error"]) == ("failed", "the judge is away")


def test_a_cancelled_point_stops_at_its_next_epoch(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("runs"), job("waits", seed=1), job("other", point=1)])
        await dispatcher.take(0, True)
        await dispatcher.cancel(0)
        assert await dispatcher.saved("runs", 2) == "stop"
        await dispatcher.trained("runs")
        assert not await dispatcher.stopping()
        assert (await taken(dispatcher, 0, False)).id == "other"
        assert (await dispatcher.news(0, 0))[1]

    run(work())
    assert [(line["id"], line["status"]) for line in written(tmp_path)] == [
        ("waits", "stopped"),
        ("runs", "stopped"),
    ]


def test_a_training_that_another_point_needs_is_not_stopped(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("both"), job("both", point=1)])
        await dispatcher.take(0, True)
        await dispatcher.cancel(0)
        assert await dispatcher.saved("both", 1) == "go on"
        assert not dispatcher.queue

    run(work())


def test_epochs_are_news_when_every_seed_that_lives_has_them(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("one"), job("two", seed=1), job("three", seed=2)])
        for lane in range(3):
            await dispatcher.take(lane, True)
        for id, grade in (("one", 2.0), ("two", 4.0)):
            await dispatcher.saved(id, 1)
            await dispatcher.assessed(id, 1, grade)
        waiting = asyncio.create_task(dispatcher.news(0, 0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await dispatcher.failed("three", "no room")
        assert await waiting == ({1: 3.0}, False)

    run(work())


def test_closing_with_an_error_fails_what_has_not_ended(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("one"), job("two", seed=1)])
        await dispatcher.take(0, True)
        idle = asyncio.create_task(dispatcher.task(0, True))
        await dispatcher.close("all trainers have given up")
        assert await idle == "closed" and await dispatcher.take(1, True) == "closed"

        await dispatcher.submit([job("late", point=1)])
        assert (await dispatcher.news(1, 0))[1]

    run(work())
    assert {(line["id"], line["status"]) for line in written(tmp_path)} == {
        ("one", "failed"),
        ("two", "failed"),
        ("late", "failed"),
    }


def test_closing_leaves_a_training_for_a_later_start(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("one")])
        await dispatcher.take(0, True)
        await dispatcher.close()
        assert await dispatcher.saved("one", 1) == "leave"

    run(work())
    assert not (tmp_path / "trainings.jsonl").exists()


def test_what_a_lane_or_an_assessor_held_goes_to_others_when_it_is_lost(
    tmp_path: Path, job: Any
) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 1)
        await dispatcher.submit([job("one")])
        await dispatcher.take(0, True)
        await dispatcher.saved("one", 1)
        task = await held(dispatcher, 0)
        await dispatcher.lost("judges", 0, "gone")
        assert await held(dispatcher, 1) == task
        await dispatcher.lost("trainers", 0, "gone")
        assert (await taken(dispatcher, 1, True)).id == "one"
        await dispatcher.lost("trainers", 1, "gone too")

    run(work())
    assert [(line["status"], line["error"]) for line in written(tmp_path)] == [
        ("failed", "gone too")
    ]


def test_news_of_a_sweep_before_is_nothing_to_the_next(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("old")])
        await dispatcher.take(0, True)
        await dispatcher.begin(tmp_path, 0)
        assert await dispatcher.saved("old", 1) == "leave"
        await dispatcher.assessed("old", 1, 3.0)
        await dispatcher.trained("old")
        await dispatcher.failed("old", "x")
        await dispatcher.submit([job("new")])
        assert (await taken(dispatcher, 0, False)).id == "new"

    run(work())


def test_a_training_stopped_for_one_point_goes_on_for_another(tmp_path: Path, job: Any) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("both")])
        await dispatcher.take(0, True)
        await dispatcher.cancel(0)
        await dispatcher.submit([job("both", point=1)])
        assert await dispatcher.saved("both", 1) == "go on" and not dispatcher.queue

    run(work())


def test_a_searchers_point_keeps_its_number_when_its_trial_is_retried(tmp_path: Path) -> None:
    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        numbers = [await dispatcher.number({"rate": rate}, 5) for rate in (0.1, 0.2, 0.1)]
        assert numbers == [5, 6, 5]
        await dispatcher.refuse(6, [0, 1], "data.rows is 9999")

    run(work())
    assert [(line["point"], line["seed"], line["status"]) for line in written(tmp_path)] == [
        (6, 0, "failed"),
        (6, 1, "failed"),
    ]


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, job: Any) -> None:
    file = tmp_path / "trainings.jsonl"
    file.write_text('{"id": "one", "point": 0, "seed": 0, "status": "done"}\n{"id": "tw')

    async def work() -> None:
        dispatcher = await begun(tmp_path, 0)
        await dispatcher.submit([job("two", seed=1)])
        await dispatcher.failed("two", "no room")

    run(work())
    assert [(line["id"], line["status"]) for line in written(tmp_path)] == [
        ("one", "done"),
        ("two", "failed"),
    ]
