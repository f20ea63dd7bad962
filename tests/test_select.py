"""Choosing an epoch by what its model says."""

import json
import math
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ray_cluster
from sweeps import quick_sweep
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.local_servers.chat_server import ChatServer, Response, refused, serving
from benchmarks.local_servers.judge_server import JudgeServer, longer
from lima_ray import select, train
from lima_ray.config.differences import flatten
from lima_ray.config.errors import UserError
from lima_ray.config.loading import load_recipe
from lima_ray.config.recipe import Recipe
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.judging import assessment
from lima_ray.judging.asking.forecast import tell_training
from lima_ray.judging.choice import SelectionOptions, parse_selection
from lima_ray.judging.perplexity import dialogue_losses, perplexity
from lima_ray.records.files import read_json, write_json
from lima_ray.records.quality import Quality, read_problems, read_qualities
from lima_ray.records.reply import read_replies
from lima_ray.records.run import Run
from lima_ray.results.metric_unit import describe_epoch
from lima_ray.training.progress import TrainingProgress
from lima_ray.training.schedule import Schedule
from tune import sweep


def quality(epoch: int, grade: float, judge: str = "exact") -> Quality:
    return Quality(epoch, grade, grade - 1, grade + 1, 1.0, 50, 0, 2.0, judge, 1.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The miniature on a few of its rows, two epochs, one dev prompt of each kind."""
    folder = tmp_path_factory.mktemp("select")
    for name, step in (("train", 10), ("dev", 6), ("heldout", 15)):
        rows = read_examples(f"lima_ray/miniature/rows/{name}.jsonl", dialogues=False)[::step]
        write_examples(rows, folder / f"{name}.jsonl")
    point = {f"data.{name}": str(folder / f"{name}.jsonl") for name in ("train", "dev", "heldout")}
    point |= {"runs_dir": str(folder / "runs"), "optim.epochs": 2, "optim.batch_examples": 16}
    point |= {"select.first_epoch": 1, "select.last_epoch": 2, "sampling.context": 64}
    return load_recipe("miniature").override(point)


@pytest.fixture(scope="module")
def run(small: Recipe) -> Run:
    """That recipe trained, its epochs assessed beside the training."""
    with ray_cluster(cpus=2):
        return train.fit(small)


def test_every_epoch_is_assessed_and_the_best_is_exported(run: Run, small: Recipe) -> None:
    found = read_qualities(run, small.select.judge_name)
    assert sorted(found) == [1, 2]
    best = max(found.values(), key=lambda q: (q.value, -q.epoch))
    assert run.export_epoch() == best.epoch
    chosen = run.epoch_dir(best.epoch) / "model.safetensors"
    assert (run.export_dir / "model.safetensors").read_bytes() == chosen.read_bytes()
    assert run.epochs_figure.stat().st_size > 10_000
    for epoch, q in found.items():
        replies = (run.dev_dir(epoch) / "replies.jsonl").read_text().splitlines()
        verdicts = [json.loads(v) for v in (run.dev_dir(epoch) / "verdicts.jsonl").open()]
        assert len(replies) == len(verdicts) == q.replies == 9
        assert q.value == pytest.approx(sum(v["grade"] for v in verdicts) / len(verdicts))


def test_perplexity_equals_plain_transformers(run: Run, small: Recipe) -> None:
    folder = run.epoch_dir(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total = count = 0
    for row in read_examples(str(small.data.heldout)):
        ids = tokenizer.apply_chat_template(row.messages(), return_tensors="pt")["input_ids"]
        prompt = tokenizer.apply_chat_template(row.messages()[:1])["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(
            logits, ids[0, len(prompt) :], reduction="sum"
        ).item()
        count += ids.shape[1] - len(prompt)
    expected = math.exp(total / count)
    found = read_qualities(run, small.select.judge_name)[2].perplexity
    assert found == pytest.approx(expected, rel=1e-4)
    assert perplexity(folder, small) == pytest.approx(expected, rel=1e-4)
    losses_R, tokens_R = dialogue_losses(folder, small)
    assert len(losses_R) == len(read_examples(str(small.data.heldout)))
    assert tokens_R.sum() == count and losses_R.sum() == pytest.approx(total, rel=1e-4)


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
    again = assessment.assess(run, 2, small)
    assert again.epoch == 2
    lines = (run.dev_dir(2) / "replies.jsonl").read_text()
    assert sorted(lines.splitlines()) == sorted(told.splitlines())


def test_replies_that_an_earlier_version_made_are_not_made_again(run: Run, small: Recipe) -> None:
    settings, mark = (run.dev_dir(2) / name for name in ("generate.json", "mark"))
    made = read_json(settings)
    assert made and made["sampling"].pop("max_new_tokens") is None
    made["sampling"]["max_tokens"] = made["sampling"].pop("context")
    write_json(settings, made)
    mark.touch()  # replies that are made again have a new directory
    assert not assessment.is_outdated(run, 2, small)
    assessment.assess(run, 2, small)
    assert mark.exists()
    write_json(settings, made | {"sampling": made["sampling"] | {"max_tokens": 63}})
    assert assessment.is_outdated(run, 2, small)


def test_a_model_behind_an_endpoint_may_judge(run: Run, small: Recipe) -> None:
    def grading(question: str) -> str:
        return "It is vague.\nno idea" if "Answer in one word" in question else "It helps.\n4"

    with serving(ChatServer(grading=grading)) as server:
        point = {"select.judge": "endpoint", "select.endpoint": server.url}
        recipe = small.override(point | {"select.endpoint_model": "judge-1"})
        folder = run.dev_dir(2)
        found = assessment.assess(run, 2, recipe)
        assert len(server.requests) == found.replies == 9
    verdicts = [json.loads(v) for v in (folder / "verdicts.jsonl").open()]
    assert found.invalid == sum(v["status"] != "read" for v in verdicts)
    assert (found.value, found.judge) == (4.0, "judge-1")
    assert sorted(read_qualities(run, recipe.select.judge_name)) == [2]
    assert sorted(read_qualities(run, small.select.judge_name)) == [1]


REFERENCE = "Nobody knows that."


def write_reference(small: Recipe, file: Path, model: str = "other") -> str:
    """The same reply to every dev prompt, as a table that somebody else made."""
    rows = read_examples(str(small.data.dev), dialogues=False)
    columns = [
        {"instruction": row.turns[-1], "output": REFERENCE, "generator": model} for row in rows
    ]
    file.write_text(json.dumps(columns))
    return str(file)


def compared_at(small: Recipe, url: str, reference: str) -> Recipe:
    """The recipe with a judge behind an endpoint that compares with a reference."""
    return judged_at(small, url, "judge").override({"select.reference": reference})


def test_the_epoch_that_wins_most_against_a_reference_is_chosen(
    run: Run, small: Recipe, tmp_path: Path
) -> None:
    for epoch in (1, 2):
        assessment.assess(run, epoch, small)  # replies that no earlier test has touched
    replies = {
        epoch: {r.id: r.reply for r in read_replies(run.dev_dir(epoch) / "replies.jsonl")}
        for epoch in (1, 2)
    }
    liked, (always_first, *_) = set(replies[1].values()), replies[1].values()

    def decide(a: str, b: str) -> str:
        if always_first in (a, b):
            return "A"  # whichever that is, so that the orders disagree
        return "A" if a in liked else "B" if b in liked else "neither"

    def value(reply: str) -> float:
        return 1.0 if reply in liked and reply != always_first else 0.5

    said: list[str] = []
    with serving(JudgeServer(decide=decide)) as server:
        recipe = compared_at(small, server.url, write_reference(small, tmp_path / "other.json"))
        for epoch in (1, 2):
            found = assessment.assess(run, epoch, recipe)
            assert found.value == pytest.approx(np.mean([*map(value, replies[epoch].values())]))
            assert (found.metric, found.invalid, found.unanswered) == ("win_rate", 0, 0)
        assert len(server.requests) == 2 * 2 * 9
        assert select.choose_epoch(run, recipe, said.append) == run.export_epoch() == 1
        assessment.assess(run, 1, recipe)
        assert len(server.requests) == 2 * 2 * 9
    assert said == ["exported epoch 1, of the best win rate among 1 to 2"]
    shown = describe_epoch(read_qualities(run, recipe.select.judge_name)[1])
    assert re.match(r"epoch 1: win rate \d+\.\d \[\d+\.\d, \d+\.\d\] %, ", shown)
    assert not read_qualities(run, judged_at(small, server.url, "judge").select.judge_name)
    (tmp_path / "other.json").write_text((tmp_path / "other.json").read_text() + " ")
    known = read_qualities(run, recipe.select.judge_name)[1]
    assert assessment.is_current(run, known, recipe)
    text = (tmp_path / "other.json").read_text().replace(REFERENCE, "Something else.")
    (tmp_path / "other.json").write_text(text)
    assert not assessment.is_current(run, known, recipe)


def test_a_selection_that_was_cut_off_pays_for_nothing_twice(
    run: Run, small: Recipe, tmp_path: Path
) -> None:
    class Dying(JudgeServer):
        def answer(self, body: dict[str, Any]) -> Response:
            return refused(401) if self.number >= 7 else super().answer(body)

    reference = write_reference(small, tmp_path / "other.json")
    another = {"select.endpoint_model": "judge-3"}  # that nothing is known of yet
    with serving(Dying(decide=longer)) as server:
        with pytest.raises(UserError, match="401"):
            assessment.assess(run, 2, compared_at(small, server.url, reference).override(another))
        answered = server.answered
    assert answered.total() == 7
    with serving(JudgeServer(decide=longer, faults={0: "off menu"})) as server:
        found = assessment.assess(
            run, 2, compared_at(small, server.url, reference).override(another)
        )
        answered += server.answered
    assert answered.total() == 18 and set(answered.values()) == {1}
    replies = [r.reply for r in read_replies(run.dev_dir(2) / "replies.jsonl")]
    points = sorted(1.0 if len(r) > len(REFERENCE) else 0.0 for r in replies)
    assert (found.invalid, found.unanswered, found.replies) == (1, 0, 9)  # one order was not read
    assert sum(points) - 1 <= 8 * found.value <= sum(points)


def test_calls_tokens_and_money_are_told_before_a_judge_is_asked(
    run: Run, small: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = write_reference(small, tmp_path / "other.json")
    with serving(JudgeServer(decide=longer)) as server:
        flags = ["--select.judge", "endpoint", "--select.endpoint", server.url]
        flags += ["--select.endpoint_model", "judge-4", "--select.reference", reference]
        flags += ["--select.input_usd", "2", "--select.output_usd", "8"]

        def chosen(*more: str) -> str:
            select.main(parse_selection([str(run.path), *flags, *more], "select", ""))
            return capsys.readouterr().out

        said = chosen("--dry_run")
        (tokens,) = re.findall(r"judge-4: 36 calls, about ([\d,]+) tokens in and 9,000 out", said)
        assert "nothing was asked (dry_run)" in said and server.number == 0
        usd = (int(tokens.replace(",", "")) * 2 + 9000 * 8) / 1e6
        assert f"${usd:.2f}, at most $" in said
        with pytest.raises(UserError, match=r"this may cost \$0\.\d+, more than limit_usd"):
            chosen("--limit_usd", "0.01")
        assert server.number == 0
        recipe = parse_selection([str(run.path), *flags], "select", "").recipe
        assessment.assess(run, 1, recipe)
        assert "judge-4: 18 calls" in chosen("--dry_run"), "what was answered is not asked again"
        assert server.number == 18
        asked = sum(len(one["messages"][-1]["content"]) for one in server.requests)
        assert 0.5 < (int(tokens.replace(",", "")) / 2) / (asked / 4) < 2
        tell_training(recipe)
        told = capsys.readouterr().out
        assert "to choose the epoch, judge-4: 18 calls" in told
    with pytest.raises(UserError, match="one price alone tells no cost"):
        small.override({"select.input_usd": 1.0})


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"select.reference": "nowhere.csv"}, r"data\.dev: no replies at nowhere\.csv"),
        ({"select.samples": 2}, r"data\.dev: the reference .* lacks 9 of 18 replies: .* sample 1"),
        ({"select.judge": "exact"}, r"select\.judge is exact: --select\.judge endpoint"),
        ({"select.judge": "none"}, r"select\.judge is none: --select\.judge endpoint"),
        ({"select.endpoint_model": "owner/other"}, r"would judge its own replies \(other, the ref"),
    ],
)
def test_a_reference_that_cannot_be_compared_with_stops_before_training(
    small: Recipe, tmp_path: Path, point: dict[str, object], message: str
) -> None:
    reference = write_reference(small, tmp_path / "other.json")
    recipe = compared_at(small, "http://127.0.0.1:9/v1", reference).override(point)
    with pytest.raises(UserError, match=message):
        train.fit(recipe)
    assert not recipe.run_dir.exists()


def test_a_judge_of_pairs_must_compare_two_small_replies(small: Recipe, tmp_path: Path) -> None:
    reference = write_reference(small, tmp_path / "other.json")
    with serving(JudgeServer(decide=longer)) as server:
        train.prepare(compared_at(small, server.url, reference))
        assert "Paris" in server.asked[0] and "<answer_B>" in server.asked[0]
    with (
        serving(JudgeServer(decide=lambda a, b: "5")) as server,
        pytest.raises(UserError, match=r"to compare two small .* without A, B or neither"),
    ):
        train.prepare(compared_at(small, server.url, reference))


def test_weights_that_were_trained_anew_are_judged_anew(run: Run, small: Recipe) -> None:
    """As after a kill between an epoch's weights and its state, gone on with other workers."""
    assessment.assess(run, 1, small)
    lineage = run.lineage(run.epoch_dir(1))
    write_json(run.epoch_dir(1) / "lineage.json", lineage | {"weights": "others"})
    assert 1 not in read_qualities(run, small.select.judge_name)
    assert assessment.assess(run, 1, small).weights == "others"
    assert 1 in read_qualities(run, small.select.judge_name)


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
    assert select.choose_epoch(made, recipe) == chosen == made.export_epoch()


def test_of_equal_grades_the_epoch_that_stops_more_is_chosen_and_reported(
    tmp_path: Path, small: Recipe
) -> None:
    made, said = bare_run(tmp_path / "r", small, [1, 2, 3]), list[str]()
    for epoch, stopped in ((1, 0.5), (2, 0.9), (3, 0.9)):
        made.dev_dir(epoch).mkdir(parents=True)
        found = replace(quality(epoch, 4.0), stopped=stopped)
        write_json(made.dev_dir(epoch) / "quality.json", asdict(found))
    recipe = small.override({"select.last_epoch": 2})
    assert select.choose_epoch(made, recipe, said.append) == 2
    assert said == [
        "exported epoch 2, of the best grade among 1 to 2; equal grades of 1 (50% stop), and more "
        "of its replies stop"
    ]
    recipe = small.override({"select.last_epoch": 3})
    assert select.choose_epoch(made, recipe, said.append) == 2
    assert said[1].endswith("and it is the earliest of which as many stop")


def test_another_judges_grades_do_not_count(tmp_path: Path, small: Recipe) -> None:
    made = bare_run(tmp_path / "r", small, [1])
    made.dev_dir(1).mkdir(parents=True)
    write_json(made.dev_dir(1) / "quality.json", asdict(quality(1, 5.0, judge="gpt")))
    assert read_qualities(made, small.select.judge_name) == {}


def test_a_run_without_weights_is_refused_with_a_way_out(tmp_path: Path, small: Recipe) -> None:
    with pytest.raises(UserError, match=r"holds no weights to choose from; train it first"):
        select.choose_epoch(bare_run(tmp_path / "r", small, []), small)


def test_no_judge_exports_the_last_epoch(tmp_path: Path, small: Recipe) -> None:
    made = bare_run(tmp_path / "r", small, [1, 2, 12])
    assert select.choose_epoch(made, small.override({"select.judge": "none"})) == 12


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"select.first_epoch": 3, "select.last_epoch": 9}, r"Use --select\.first_epoch 1$"),
        ({"select.first_epoch": 2, "select.last_epoch": 1}, r"Use --select\.first_epoch 1$"),
        (
            {"checkpoint.weights_from_epoch": 2, "select.last_epoch": 1},
            r"Use --checkpoint\.weights_from_epoch 1$",
        ),
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


def with_dev(small: Recipe, folder: Path, rows: list[dict[str, Any]]) -> Recipe:
    """The recipe with dev prompts of one's own."""
    dev = folder / "own.jsonl"
    dev.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return small.override({"data.dev": str(dev), "name": "never"})


ASKED = {"conversations": ["What does the seal eat?"], "about": "animal/seal", "ask": "food"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"conversations": ["Hi"]}], r"data\.dev: prompt own\.jsonl:1: the exact judge knows"),
        ([ASKED, ASKED | {"ask": "colour"}], r"own\.jsonl:2: the exact judge .*KeyError\('colour"),
        ([ASKED | {"about": "animal/gnome"}], r"exact judge .*KeyError\('animal/gnome"),
        ([ASKED | {"follow_ups": ["And?"], "ask": ["food"]}], r"exact judge .*IndexError"),
        ([ASKED | {"form": "haiku"}], r"exact judge"),
        ([ASKED | {"id": "a"}, ASKED | {"id": "a"}], r"several rows with the id a; ids must"),
        ([ASKED | {"follow_ups": "And?"}], r"follow_ups is 'And\?'; it needs a list"),
        (
            [ASKED | {"conversations": ["word " * 80]}],
            r"data\.dev: 1 of 1 prompts leave no room .* have 64 tokens",
        ),
    ],
)
def test_dev_prompts_that_would_fail_after_training_stop_before_it(
    small: Recipe, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    recipe = with_dev(small, tmp_path, rows)
    with pytest.raises(UserError, match=f"(?s){message}"):
        train.fit(recipe)
    assert not recipe.run_dir.exists()


def test_heldout_dialogues_without_a_supervised_token_stop_before_training(
    small: Recipe, tmp_path: Path
) -> None:
    row = {"conversations": ["word " * 300, "Yes."]}
    (tmp_path / "heldout.jsonl").write_text(json.dumps(row))
    recipe = small.override({"data.heldout": str(tmp_path / "heldout.jsonl"), "name": "never"})
    with pytest.raises(UserError, match=r"data\.heldout: no row of .* has a supervised token"):
        train.fit(recipe)
    assert not recipe.run_dir.exists()


def judged_at(small: Recipe, url: str, model: str = "judge-1") -> Recipe:
    """The recipe with a judge behind an endpoint."""
    point = {"select.judge": "endpoint", "select.endpoint": url, "select.endpoint_model": model}
    return small.override(point | {"name": "never"})


def test_a_judge_that_does_not_answer_stops_before_training(small: Recipe, tmp_path: Path) -> None:
    with serving(ChatServer()) as server:
        pass  # the port is closed again
    recipe = judged_at(small, server.url)
    began_s = time.monotonic()
    with pytest.raises(
        UserError, match=r"'judge-1' at http.* was asked 3 times and gave no answer"
    ):
        train.fit(recipe)
    assert time.monotonic() - began_s < 60
    assert not recipe.run_dir.exists()
    path = quick_sweep(
        tmp_path, set={k: v for k, v in flatten(recipe.model_dump()).items() if "select" in k}
    )
    with pytest.raises(UserError, match=r"was asked 3 times and gave no answer"):
        sweep.run(sweep.Command(sweep=str(path), dry_run=True))
    assert not (tmp_path / "runs").exists()


def test_a_judge_is_checked_once_and_must_give_a_grade(small: Recipe) -> None:
    with serving(ChatServer(grading=lambda question: "It is correct.\n5")) as server:
        recipe = judged_at(small, server.url)
        train.prepare(recipe)
        train.prepare(recipe.override({"seed": 1}))
        assert len(server.requests) == 1
    with (
        serving(ChatServer(grading=lambda question: "A fine reply.")) as server,
        pytest.raises(UserError, match=r"without a number from 1 to 6 .*'A fine reply\.'"),
    ):
        train.prepare(judged_at(small, server.url))
    with (
        serving(ChatServer()) as server,
        pytest.raises(UserError, match=r"answers 404 .*\n.*does the URL end in /v1\?"),
    ):
        train.prepare(judged_at(small, server.url.removesuffix("/v1")))


def test_an_epoch_that_could_not_be_judged_is_reported_at_once(
    run: Run, small: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {file: file.read_bytes() for file in run.dev_dir(2).iterdir()}
    with serving(ChatServer()) as server:
        recipe = judged_at(small, server.url.removesuffix("/v1"), "judge-2")
        asked = {"run": str(run.path), "recipe": recipe.model_dump(), "epoch": 2}
        asked["secrets"] = SharedSecrets()
        with TrainingProgress(run, recipe, Schedule.of(recipe, 95)):
            told = assessment.assess_during_training(None, **asked)
    assert told == {}
    said = capsys.readouterr().out
    assert said.count("epoch 2 could not be judged, and is judged again at the end: ") == 1
    assert "answers 404" in said
    assessment.assess(run, 2, small)
    assert read_problems(run) == {}
    assert {
        file: file.read_bytes() for file in run.dev_dir(2).glob("replies*")
    }.items() <= kept.items()


def test_exporting_the_last_epoch_for_lack_of_a_judge_is_reported(
    tmp_path: Path, small: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    select.choose_epoch(
        bare_run(tmp_path / "r", small, [6]), small.override({"select.judge": "none"})
    )
    said = capsys.readouterr().out
    assert "exported epoch 6, the last: no judge (select.judge none); data.dev " in said


def test_another_choice_may_have_prompts_that_the_run_lacked(
    run: Run, small: Recipe, tmp_path: Path
) -> None:
    rows = read_examples("lima_ray/miniature/rows/dev.jsonl", dialogues=False)[1:50:25]
    write_examples(rows, tmp_path / "dev.jsonl")
    recipe = run.recipe()
    choice = SelectionOptions.of(recipe)
    assert choice.apply_to(recipe) == recipe
    data = choice.data.model_copy(update={"dev": str(tmp_path / "dev.jsonl"), "heldout": None})
    other = choice.model_copy(update={"data": data}).apply_to(recipe)
    assert (other.data.dev, other.data.heldout) == (str(tmp_path / "dev.jsonl"), None)
    assert not assessment.is_outdated(run, 1, recipe) and assessment.is_outdated(run, 1, other)
    found = assessment.assess(run, 1, other)
    assert (found.replies, found.perplexity) == (len(rows), None)
    replies = (run.dev_dir(1) / "replies.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in replies) == sorted(row.id for row in rows)
    assert assessment.is_outdated(run, 1, recipe)
    assert assessment.assess(run, 1, recipe).replies == 9


def test_new_dev_prompts_that_the_run_was_trained_on_are_refused(
    run: Run, small: Recipe, tmp_path: Path
) -> None:
    asked = read_examples(str(small.data.dev), dialogues=False)[0].extra  # the judge needs it
    rows = [replace(row, extra=asked) for row in read_examples(small.data.train)[:2]]
    write_examples(rows, tmp_path / "dev.jsonl")
    other = run.recipe().override({"data.dev": str(tmp_path / "dev.jsonl")})
    with pytest.raises(UserError, match=rf"2 of these dev prompts .*{rows[0].id}"):
        select.check_choice(run, other)
