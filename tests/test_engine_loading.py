"""What an engine loads and refuses, and the prompts that it makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bases import BASES
from conftest import dialogues
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
)

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Data
from lima_ray.data.encoding import encode
from lima_ray.data.tokenizer import eot_id, load_tokenizer
from lima_ray.engine.engine import Engine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", BASES)
def test_prompts_are_what_training_sees(
    tmp_path: Path, base_dir: Path, engine: Engine, kind: str
) -> None:
    BASES[kind]().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    row = dialogues(1)[0]
    rows = encode([row], tokenizer, Data())
    ids_T, mask_T = rows.row(0)
    talk = Engine.__new__(Engine)
    talk.tokenizer = tokenizer
    for turns in range(1, len(row.turns), 2):
        ids = talk.prompt(row.turns[:turns])
        assert ids == ids_T[: len(ids)].tolist()
        assert ids[-1] == eot_id(tokenizer)
        assert mask_T[len(ids)]
        assert not mask_T[len(ids) - 1]
    assert talk.prompt(["Hi"], system="Be kind.") == tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        return_dict=False,
    )


def test_a_base_reads_plain_text(engine: Engine) -> None:
    text = engine.tokenizer.decode(engine.prompt(["the cat", "reads", "why?"]))
    assert text == "<s>the cat\nreads\nwhy?"
    assert engine.stop_token_ids == {engine.tokenizer.eos_token_id}
    ids = engine.prompt(["say </s> and <s>"])
    assert ids.count(engine.tokenizer.bos_token_id) == 1
    assert engine.tokenizer.eos_token_id not in ids
    assert engine.tokenizer.decode(ids) == "<s>say </s> and <s>"


@pytest.mark.parametrize(
    ("turns", "message"),
    [([], "has 0 turns"), (["a", "b"], "has 2 turns"), (["a", "b", " "], "turn 3 .* is ' '")],
)
def test_a_dialogue_ends_with_the_user(engine: Engine, turns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        engine.prompt(turns)


def test_what_a_directory_lacks_is_named(tmp_path: Path, base_dir: Path) -> None:
    with pytest.raises(UserError, match=f"no model in {tmp_path}.*config.json"):
        Engine(tmp_path)
    (tmp_path / "config.json").write_bytes((base_dir / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights in safetensors"):
        Engine(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base_dir / name).read_bytes())
    save_file({}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=r"cannot be loaded.*safetensors"):
        Engine(tmp_path)
    weights = load_file(base_dir / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks 1 weights, such as {lost}"):
        Engine(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        Engine(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((base_dir / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match="cannot be loaded"):
        Engine(tmp_path)


def test_attention_that_is_more_than_causal_is_refused(tmp_path: Path, base_dir: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base_dir)
    BASES["metaspace"]().save_pretrained(tmp_path)
    model.config.update({"attn_logit_softcapping": 30.0})
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="caps attention scores"):
        Engine(tmp_path)


def test_an_engine_has_a_slot(base_dir: Path) -> None:
    with pytest.raises(UserError, match="slots is 0"):
        Engine(base_dir, slots=0)
