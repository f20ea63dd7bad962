"""Replies attributed to training rows by the command, with a run whose rows are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import dialogues

from lima_ray import attribute as command
from lima_ray.attribute import describe
from lima_ray.attribution.arguments import AttributeCommand
from lima_ray.attribution.origins import load_rows
from lima_ray.attribution.replies import encode_replies
from lima_ray.compare import read_replies_by_key
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data import training_data
from lima_ray.data.examples import write_examples
from lima_ray.data.tokenizer import eot_id
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate
from lima_ray.model import export
from lima_ray.model.loading import load_model
from lima_ray.model.loss import forward_packed
from lima_ray.records.attribution import Attribution, read_attributions
from lima_ray.records.example import Example
from lima_ray.records.files import acquire_lock, write_json, write_jsonl
from lima_ray.records.lineage import hash_arrays, hash_base
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run

pytestmark = pytest.mark.usefixtures("one_thread", "alone")
PLANTED = "river river river why river"
STEPS = 5
"""Of an epoch; after many more the rows fit so well that no gradient is left."""


def train(recipe: Recipe) -> Run:
    """Train a tiny run here, without Ray, and keep two epochs."""
    run = Run(recipe.run_dir)
    tokenizer, _, rows = training_data.load(recipe)
    card = {"hash": hash_arrays(rows.ids_N, rows.mask_N, rows.starts_R1)}
    run.initialise(recipe, {"data": card, "recipe": {"hash": recipe.hash()}})
    torch.manual_seed(0)
    model = load_model(recipe, tokenizer, torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for epoch in (1, 2):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_sum, _ = forward_packed(model, tuple(range(len(rows))), rows)
            (loss_sum / int(rows.supervised_R.sum())).backward()
            optimizer.step()
        export.save_weights(model, tokenizer, run.epoch_dir(epoch), {"epoch": epoch})
    run.export(2)
    return run


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, base_dir: Path, alone: None, one_thread: None
) -> Run:
    folder = tmp_path_factory.mktemp("attribute")
    rows = [replace(row, turns=row.turns[:2]) for row in dialogues(10, longest=12)]
    rows[6] = replace(rows[6], id="planted", turns=(rows[6].turns[0], f"{PLANTED} sun moon."))
    write_examples(rows, folder / "train.jsonl")
    tree = {
        "name": "tiny",
        "runs_dir": str(folder),
        "data": {"train": str(folder / "train.jsonl"), "max_tokens": 256},
        "model": {"base": str(base_dir), "residual_dropout": 0},
        "train": {"tokens_per_micro_batch": 512, "precision": "fp32"},
        "checkpoint": {"weights_from_epoch": 1},
    }
    return train(validate_recipe(tree))


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of the run that a test may change."""
    shutil.copytree(trained.path, tmp_path / "tiny")
    return Run(tmp_path / "tiny")


def reply(text: str, id: str = "asked", **more: object) -> Reply:
    fields = {"model": "tiny", "sample": 0, "turn": 0, "stopped": True} | more
    return Reply(id, ("why the cat?",), reply=text, **fields)  # pyright: ignore[reportArgumentType]


def write_replies(folder: Path, replies: list[Reply], weights: Path | None) -> Path:
    folder.mkdir(exist_ok=True)
    write_jsonl([one.to_json() for one in replies], folder / "replies.jsonl")
    if weights:
        write_json(folder / "generate.json", {"model_hash": hash_base(str(weights))})
    return folder


def attribute(given: AttributeCommand) -> list[Attribution]:
    return command.attribute(given, read_replies_by_key(given.replies))


def ask(run: Run, replies: Path, **options: object) -> AttributeCommand:
    settings = {"run": run.path, "replies": replies, "values": 2000} | options
    return AttributeCommand.model_validate(settings)


@pytest.mark.parametrize("method", ["gradient", "text"])
def test_the_row_that_taught_a_reply_is_found(run: Run, tmp_path: Path, method: str) -> None:
    said = write_replies(tmp_path / "said", [reply(f"{PLANTED} cat green.")], run.export_dir)
    (found,) = attribute(ask(run, said, method=method, rows=3))
    assert found.rows[0].id == "planted" and found.rows[0].conversations[1].startswith(PLANTED)
    assert found.rows[0].score > found.rows[1].score + 0.1 and len(found.rows) == 3
    assert found.epochs == ((1, 2) if method == "gradient" else ())
    assert (found.id, found.sample, found.turn, found.model) == ("asked", 0, 0, "tiny")
    assert found.weights == hash_base(str(run.export_dir))
    assert read_attributions(said / "attribution.jsonl") == {found.key: found}


def test_replies_of_an_epoch_are_attributed_by_its_weights(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    write_examples([Example(("the sun",), "one"), Example(("why how",), "two")], prompts)
    job = GenerationJob(
        model=str(run.epoch_dir(1)), prompts=str(prompts), out=tmp_path / "said", slots=2
    ).model_copy(update={"sampling": run.recipe().sampling.model_copy(update={"context": 64})})
    made = generate(job, in_process=True)
    command.main(ask(run, tmp_path / "said", show=1))
    found = list(read_attributions(tmp_path / "said" / "attribution.jsonl").values())
    assert [one.id for one in found] == [one.id for one in made] == ["one", "two"]
    assert {one.weights for one in found} == {hash_base(str(run.epoch_dir(1)))}
    assert {one.epochs for one in found} == {(1,)}  # what came later did not make them
    assert hash_base(str(run.epoch_dir(1))) != hash_base(str(run.export_dir))
    told = capsys.readouterr().out
    assert "one (sample 0, turn 0)" in told and "and 1 more replies" in told
    assert [len(one.rows) for one in found] == [5, 5]


def test_what_is_known_is_not_computed_again(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [reply(f"{PLANTED} {n}", f"id-{n}") for n in range(3)]
    said = write_replies(tmp_path / "said", replies, run.export_dir)
    first = attribute(ask(run, said, rows=2))
    file = said / "attribution.jsonl"
    with file.open("a") as out:
        out.write('{"id": "id-2", "sam')  # what a kill leaves
    assert attribute(ask(run, said, rows=2)) == first
    attribute(ask(run, said, rows=2, method="text", ids=("id-1",)))
    assert "(0 new)" in capsys.readouterr().out
    replies[1] = replace(replies[1], reply="green cat")
    write_replies(said, replies, run.export_dir)
    again = attribute(ask(run, said, rows=2))
    assert "(1 new)" in capsys.readouterr().out
    assert again[0] == first[0] and again[1].dialogue != first[1].dialogue
    assert len(attribute(ask(run, said, rows=4))[0].rows) == 4
    assert "(3 new)" in capsys.readouterr().out
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    keys = [(line["id"], line["method"]) for line in lines]
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.slow
def test_damaged_gradients_are_computed_again_and_by_one_process_at_a_time(
    run: Run, tmp_path: Path
) -> None:
    said = write_replies(tmp_path / "said", [reply(PLANTED)], run.export_dir)
    first = attribute(ask(run, said))
    files = sorted((run.path / "gradients").glob("*.npy"))
    whole, partial = files[0].read_bytes(), files[0].with_name(f".{files[0].name}.partial")
    for damage, place in (
        (b"", files[0]),
        (whole[:-8], files[0]),
        (b"no array", partial),
        (whole[:-8], partial),
    ):
        files[0].unlink(missing_ok=True)
        place.write_bytes(damage)
        (said / "attribution.jsonl").unlink()
        again = attribute(ask(run, said))
        assert [row.id for row in again[0].rows] == [row.id for row in first[0].rows]
        assert len(files[0].read_bytes()) == len(whole) and not partial.exists()
    files[0].unlink()
    (said / "attribution.jsonl").unlink()
    held = acquire_lock(files[0].with_name(f".{files[0].name}.lock"), "")
    with pytest.raises(UserError, match="another process computes the gradients"):
        attribute(ask(run, said))
    held.release()


def test_replies_without_a_token_are_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [reply(" \n", "blank"), reply("", "empty", stopped=False), reply("moon", "full")]
    long = replace(reply("moon", "long"), conversations=("moon river " * 2000,))
    said = write_replies(tmp_path / "said", [*replies, long], run.export_dir)
    assert [one.id for one in attribute(ask(run, said))] == ["full"]
    told = capsys.readouterr().out
    assert "2 replies hold no text and are left out: blank, empty" in told
    assert "1 replies have no token within the model's context and are left out: long" in told
    with pytest.raises(UserError, match="all 1 replies hold no text: blank"):
        attribute(ask(run, said, ids=("blank",)))


def test_a_reply_that_did_not_stop_has_no_eot_to_learn(run: Run) -> None:
    training = load_rows(run)
    both = [reply("moon sun"), reply("moon sun", stopped=False)]
    usable, rows = encode_replies(both, training.tokenizer, run.export_dir)
    (ids, stopped), (_, open_ended) = rows.row(0), rows.row(1)
    assert usable == both and ids[-1] == eot_id(training.tokenizer)
    assert stopped[-1] and not open_ended[-1]
    assert (stopped[:-1] == open_ended[:-1]).all() and not stopped[: len(ids) // 2].any()


def test_replies_of_another_model_are_refused(
    run: Run, tmp_path: Path, brief_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = write_replies(tmp_path / "said", [reply("moon")], brief_dir)
    with pytest.raises(UserError, match=rf"weights {hash_base(str(brief_dir))}\), not of"):
        attribute(ask(run, said))
    assert attribute(ask(run, said, any_model=True))
    assert "as if" in capsys.readouterr().out
    others = write_replies(tmp_path / "others", [reply("moon", model="gpt")], None)
    with pytest.raises(UserError, match="are of gpt, not of"):
        attribute(ask(run, others))
    named = write_replies(tmp_path / "named", [reply("moon", model="tiny-01")], None)
    assert attribute(ask(run, named))[0].weights == hash_base(str(run.epoch_dir(1)))
    assert "by their model's name alone" in capsys.readouterr().out


def test_rows_that_have_changed_since_are_refused(run: Run, tmp_path: Path) -> None:
    said = write_replies(tmp_path / "said", [reply("moon")], run.export_dir)
    recipe = run.recipe()
    rows = training_data.load(recipe)[1]
    changed = tmp_path / "changed.jsonl"
    write_examples([*rows[:-1], replace(rows[-1], turns=(rows[-1].turns[0], "moon"))], changed)
    recipe.override({"data.train": str(changed)}).save(run.recipe_file)
    with pytest.raises(UserError, match=r"changed.jsonl is not what .* was trained on any more"):
        attribute(ask(run, said))


def test_other_bad_input_is_refused(run: Run, tmp_path: Path) -> None:
    said = write_replies(tmp_path / "said", [reply("moon")], run.export_dir)
    with pytest.raises(UserError, match="no reply has the id nowhere; there are asked"):
        attribute(ask(run, said, ids=("nowhere",)))
    with pytest.raises(UserError, match="does not keep the weights of epoch 3; it has 1, 2"):
        attribute(ask(run, said, epochs=(2, 3)))
    with pytest.raises(UserError, match=r"is no run: it holds no recipe.yaml"):
        attribute(ask(Run(tmp_path), said))
    with pytest.raises(UserError, match="no replies at"):
        attribute(ask(run, tmp_path / "absent"))
    (said / "attribution.jsonl").write_text('{"id": "asked"}\n')
    with pytest.raises(UserError, match=r"attribution.jsonl:1 is no attribution"):
        attribute(ask(run, said))
    shutil.rmtree(run.export_dir)
    shutil.rmtree(run.epochs_dir)
    with pytest.raises(UserError, match="holds no weights"):
        attribute(ask(run, said))


def test_the_terminal_shows_replies_without_their_control_characters(
    run: Run, tmp_path: Path
) -> None:
    odd = reply("\x1b[31mmoon\n\n[bold]sun</script> " + "x" * 400)
    said = write_replies(tmp_path / "said", [odd], run.export_dir)
    (found,) = attribute(ask(run, said, method="text", rows=1))
    told = describe(found, odd)
    assert "\x1b" not in told and "[bold]sun</script>" in told
    assert max(map(len, told.splitlines())) < 200 and len(told.splitlines()) == 4
