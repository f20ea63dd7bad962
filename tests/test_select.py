"""Choosing an epoch by what its model says."""

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from chat_server import Server, serving
from conftest import ray_cluster
from transformers import AutoModelForCausalLM, AutoTokenizer

from lima_ray import example, select, train
from lima_ray.config import Recipe, load
from lima_ray.errors import UserError
from lima_ray.run import Run, write_json
from lima_ray.select import Quality


def quality(epoch: int, grade: float, judge: str = "exact") -> Quality:
    """An epoch's quality with a grade."""
    return Quality(epoch, grade, grade - 1, grade + 1, 1.0, 50, 0, 2.0, judge, 1.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The miniature on a few of its rows, two epochs, one dev prompt of each kind."""
    folder = tmp_path_factory.mktemp("select")
    for name, step in (("train", 10), ("dev", 6), ("heldout", 15)):
        rows = example.read(f"lima_ray/miniature/rows/{name}.jsonl", dialogues=False)[::step]
        example.write(rows, folder / f"{name}.jsonl")
    point = {f"data.{name}": str(folder / f"{name}.jsonl") for name in ("train", "dev", "heldout")}
    point |= {"runs_dir": str(folder / "runs"), "optim.epochs": 2, "optim.batch_examples": 16}
    point |= {"select.first_epoch": 1, "select.last_epoch": 2, "sampling.max_tokens": 64}
    return load("miniature").override(point)


@pytest.fixture(scope="module")
def run(small: Recipe) -> Run:
    """That recipe trained, its epochs assessed beside the training."""
    with ray_cluster(cpus=2):
        return train.fit(small)


def test_every_epoch_is_assessed_and_the_best_is_exported(run: Run, small: Recipe) -> None:
    found = select.assessed(run, small.select)
    assert sorted(found) == [1, 2]
    best = max(found.values(), key=lambda q: (q.grade, -q.epoch))
    assert run.export_epoch() == best.epoch
    chosen = run.epoch_dir(best.epoch) / "model.safetensors"
    assert (run.export_dir / "model.safetensors").read_bytes() == chosen.read_bytes()
    assert run.epochs_figure.stat().st_size > 10_000
    for epoch, q in found.items():
        replies = (run.dev_dir(epoch) / "replies.jsonl").read_text().splitlines()
        verdicts = [json.loads(v) for v in (run.dev_dir(epoch) / "verdicts.jsonl").open()]
        assert len(replies) == len(verdicts) == q.replies == 9
        assert q.grade == pytest.approx(sum(v["grade"] for v in verdicts) / len(verdicts))


def test_perplexity_equals_plain_transformers(run: Run, small: Recipe) -> None:
    folder = run.epoch_dir(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total = count = 0
    for row in example.read(str(small.data.heldout)):
        ids = tokenizer.apply_chat_template(row.messages(), return_tensors="pt")["input_ids"]
        prompt = tokenizer.apply_chat_template(row.messages()[:1])["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(
            logits, ids[0, len(prompt) :], reduction="sum"
        ).item()
        count += ids.shape[1] - len(prompt)
    expected = math.exp(total / count)
    found = select.assessed(run, small.select)[2].perplexity
    assert found == pytest.approx(expected, rel=1e-4)
    assert select.perplexity(folder, small) == pytest.approx(expected, rel=1e-4)


def test_the_command_chooses_again_and_repeats_no_assessment(run: Run) -> None:
    before = (run.dev_dir(1) / "quality.json").stat().st_mtime_ns
    command = [sys.executable, "-m", "lima_ray.select", str(run.path), "--select.last_epoch", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "epoch 1 is now" in done.stdout
    assert run.export_epoch() == 1
    assert (run.dev_dir(1) / "quality.json").stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_replies(run: Run, small: Recipe) -> None:
    told = (run.dev_dir(2) / "replies.jsonl").read_text()
    for file in run.dev_dir(2).iterdir():
        file.unlink()
    again = select.assess(run, 2, small)
    assert again.epoch == 2
    lines = (run.dev_dir(2) / "replies.jsonl").read_text()
    assert sorted(lines.splitlines()) == sorted(told.splitlines())


def test_a_model_behind_an_endpoint_may_judge(run: Run, small: Recipe) -> None:
    def grading(question: str) -> str:
        return "It is vague.\nno idea" if "Answer in one word" in question else "It helps.\n4"

    with serving(Server(grading=grading)) as server:
        point = {"select.judge": "endpoint", "select.endpoint": server.url}
        recipe = small.override(point | {"select.endpoint_model": "judge-1"})
        folder = run.dev_dir(2)
        found = select.assess(run, 2, recipe)
        assert len(server.requests) == found.replies == 9
    verdicts = [json.loads(v) for v in (folder / "verdicts.jsonl").open()]
    assert found.invalid == sum(v["verdict"] == "invalid" for v in verdicts)
    assert (found.grade, found.judge) == (4.0, "judge-1")
    assert sorted(select.assessed(run, recipe.select)) == [2]
    assert sorted(select.assessed(run, small.select)) == [1]


def test_weights_that_were_trained_anew_are_judged_anew(run: Run, small: Recipe) -> None:
    """As after a kill between an epoch's weights and its state, gone on with other workers."""
    select.assess(run, 1, small)
    lineage = run.lineage(run.epoch_dir(1))
    write_json(run.epoch_dir(1) / "lineage.json", lineage | {"weights": "others"})
    assert 1 not in select.assessed(run, small.select)
    assert select.assess(run, 1, small).weights == "others"
    assert 1 in select.assessed(run, small.select)


def bare_run(path: Path, small: Recipe, epochs: list[int]) -> Run:
    """A run's directory with some epochs, without weights that could load."""
    made = Run(path)
    for epoch in epochs:
        made.epoch_dir(epoch).mkdir(parents=True)
        write_json(made.epoch_dir(epoch) / "lineage.json", {"epoch": epoch})
    path.mkdir(exist_ok=True)
    small.save(made.recipe_file)
    return made


@pytest.mark.parametrize(
    ("grades", "first", "last", "chosen"),
    [
        ({1: 5.9, 5: 4.0, 6: 5.0, 7: 5.0, 11: 5.8}, 5, 10, 6),
        ({1: 5.9, 5: 4.0, 6: 5.0, 7: 5.0, 11: 5.8}, 1, 15, 1),
        ({4: 3.0, 12: 2.0}, 10, 15, 12),
    ],
)
def test_the_best_of_the_range_and_the_earliest_of_equals(
    tmp_path: Path,
    small: Recipe,
    grades: dict[int, float],
    first: int,
    last: int,
    chosen: int,
) -> None:
    made = bare_run(tmp_path / "r", small, list(grades))
    for epoch, grade in grades.items():
        made.dev_dir(epoch).mkdir(parents=True)
        write_json(made.dev_dir(epoch) / "quality.json", asdict(quality(epoch, grade)))
    recipe = small.override({"select.first_epoch": first, "select.last_epoch": last})
    assert select.choose(made, recipe) == chosen == made.export_epoch()


def test_another_judges_grades_do_not_count(tmp_path: Path, small: Recipe) -> None:
    made = bare_run(tmp_path / "r", small, [1])
    made.dev_dir(1).mkdir(parents=True)
    write_json(made.dev_dir(1) / "quality.json", asdict(quality(1, 5.0, judge="gpt")))
    assert select.assessed(made, small.select) == {}


def test_a_run_without_weights_says_what_to_do(tmp_path: Path, small: Recipe) -> None:
    with pytest.raises(UserError, match=r"holds no weights to choose from; train it first"):
        select.choose(bare_run(tmp_path / "r", small, []), small)


def test_no_judge_exports_the_last_epoch(tmp_path: Path, small: Recipe) -> None:
    made = bare_run(tmp_path / "r", small, [1, 2, 12])
    assert select.choose(made, small.override({"select.judge": "none"})) == 12


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"select.first_epoch": 3, "select.last_epoch": 9}, r"holds no epoch to choose"),
        ({"data.dev": None}, r"data\.dev names no prompts"),
        ({"select.judge": "endpoint"}, r"needs --select\.endpoint"),
        ({"data.dev": "no/such/file.jsonl"}, r"no data at no/such/file\.jsonl"),
        ({"data.heldout": "no/such/file.jsonl"}, r"no data at no/such/file\.jsonl"),
    ],
)
def test_a_selection_that_cannot_be_made_stops_before_training(
    small: Recipe, point: dict[str, object], message: str
) -> None:
    recipe = small.override({**point, "name": "never"})
    with pytest.raises(UserError, match=message):
        train.fit(recipe)
    assert not recipe.run_dir.exists()
