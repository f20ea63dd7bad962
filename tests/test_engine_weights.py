"""Weights in bf16 and 8 bits: what each format keeps, and what an engine decodes with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import C_WORKS
from engines import GREEDY, answer, cpu_forward, prompts
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lima_ray.config.errors import UserError
from lima_ray.config.sections import WeightFormat
from lima_ray.data.tokenizer import TOKENIZER_FILES
from lima_ray.engine.cpu.linear import KernelLinear
from lima_ray.engine.cpu.weights import GROUP, HeldWeights
from lima_ray.engine.engine import Engine
from lima_ray.engine.loading import cpu_dtype
from lima_ray.engine.requests import Request
from lima_ray.model.families import load_config

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(model_dir: Path, weights: WeightFormat) -> torch.Tensor:
    """What a model says after a prompt, and after one token."""
    forward = cpu_forward(Engine(model_dir, slots=2, weights=weights))
    with torch.inference_mode():
        forward.prefill(1, 0, [5, 9, 200, 31])
        return forward.logits([(1, 4, 17), (0, 0, 8)]).clone()


def held_bytes(model: torch.nn.Module) -> int:
    """Memory of the linear layers' weights and the table of embeddings."""
    packed = [m.packed for m in model.modules() if isinstance(m, KernelLinear)]
    tensors = [t for p in packed for t in (p.panels, p.scales) if t is not None]
    table: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    return sum(t.nbytes for t in (*tensors, table.weight))


@pytest.fixture(scope="module")
def fp32_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with one matrix that bf16 cannot hold, as an export of LoRA has."""
    path = tmp_path_factory.mktemp("fp32")
    model: Any = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data += 1e-4
    model.save_pretrained(path)
    copy_tokenizer(base_dir, path)
    return path


def copy_tokenizer(base_dir: Path, path: Path) -> None:
    for pattern in TOKENIZER_FILES:
        for file in base_dir.glob(pattern):
            (path / file.name).write_bytes(file.read_bytes())
    (path / "tokenizer_config.json").write_bytes((base_dir / "tokenizer_config.json").read_bytes())


def test_auto_holds_bf16_where_no_value_changes() -> None:
    weight_NK = torch.randn(6, 70).bfloat16()
    for same in (weight_NK, weight_NK.float()):
        held = HeldWeights.of(same, "auto")
        assert held.values_NK.dtype == torch.bfloat16
        assert torch.equal(held.widened(), weight_NK.float())
    other_NK = weight_NK.float()
    other_NK[5, 69] += 1e-3
    assert HeldWeights.of(other_NK, "auto").values_NK.dtype == torch.float32
    assert torch.equal(HeldWeights.of(other_NK, "auto").widened(), other_NK)
    assert torch.equal(HeldWeights.of(other_NK, "bf16").widened(), other_NK.bfloat16().float())
    assert HeldWeights.of(weight_NK, "fp32").values_NK.dtype == torch.float32


@pytest.mark.parametrize("ins", [1, 63, 64, 130])
def test_8_bits_are_off_by_half_a_step_at_most(ins: int) -> None:
    torch.manual_seed(0)
    weight_NK = torch.randn(9, ins) * torch.logspace(-4, 2, 9)[:, None]
    weight_NK[3] = 0
    held = HeldWeights.of(weight_NK, "int8")
    assert held.scales_NG is not None and held.scales_NG.shape == (9, -(-ins // GROUP))
    step_NK = held.scales_NG.repeat_interleave(GROUP, 1)[:, :ins]
    assert ((held.widened() - weight_NK).abs() <= step_NK * 0.5001).all()
    assert not held.widened()[3].any()
    # The largest of a group is the largest there is, so that all 8 bits are used.
    assert int(held.values_NK[0].abs().max()) == 127


@C_WORKS
def test_a_bf16_export_is_held_in_half_the_memory_without_a_digit_changed(base_dir: Path) -> None:
    assert load_file(base_dir / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    exact = logits(base_dir, "fp32")
    assert exact.dtype == torch.float32
    assert torch.equal(logits(base_dir, "auto"), exact)
    assert torch.equal(logits(base_dir, "bf16"), exact)
    sizes = {w: held_bytes(Engine(base_dir, 1, weights=w).model) for w in ("fp32", "auto", "int8")}
    assert sizes["auto"] == sizes["fp32"] / 2
    assert sizes["int8"] < sizes["auto"]


def test_an_fp32_export_is_rounded_only_if_asked(fp32_dir: Path) -> None:
    exact = logits(fp32_dir, "fp32")
    assert torch.equal(logits(fp32_dir, "auto"), exact)
    rounded = logits(fp32_dir, "bf16")
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.01, rtol=0)


def test_8_bits_decode_alike_with_and_without_kernels(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, exact = logits(base_dir, "int8"), logits(base_dir, "fp32")
    assert not torch.equal(mine, exact)
    torch.testing.assert_close(mine, exact, atol=0.02 * float(exact.abs().max()), rtol=0)
    monkeypatch.setenv("LIMA_KERNELS", "0")
    torch.testing.assert_close(logits(base_dir, "int8"), mine, atol=1e-4, rtol=1e-4)
    requests = [Request(str(n), ids, GREEDY.model_copy(update={"context": 60})) for n, ids in
                enumerate(prompts(3))]  # fmt: skip
    assert all(r.ids for r in answer(Engine(base_dir, 2, weights="int8"), requests).values())


def test_other_families_hold_their_linear_layers_so(base_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).bfloat16()
    for layer in model.model.layers:
        layer.self_attn.q_proj.bias.data.normal_()  # pyright: ignore
    model.save_pretrained(tmp_path)
    copy_tokenizer(base_dir, tmp_path)
    exact = logits(tmp_path, "fp32")
    assert torch.equal(logits(tmp_path, "auto"), exact)
    assert not torch.equal(logits(tmp_path, "int8"), exact)


def test_a_llama_is_read_in_bf16_only_where_all_its_files_are(
    base_dir: Path, fp32_dir: Path, tmp_path: Path
) -> None:
    config = load_config(str(base_dir))
    assert cpu_dtype(base_dir, config, "auto") == torch.bfloat16
    assert cpu_dtype(base_dir, config, "fp32") == torch.float32
    assert cpu_dtype(fp32_dir, config, "int8") == torch.float32
    for name, weights in (("a", torch.ones(2).bfloat16()), ("b", torch.ones(2))):
        save_file({name: weights}, tmp_path / f"{name}.safetensors")
    assert cpu_dtype(tmp_path, config, "auto") == torch.float32


def test_a_gpu_takes_the_files_weights_alone(base_dir: Path) -> None:
    with pytest.raises(UserError, match="weights is int8, but cuda computes in the precision of"):
        Engine(base_dir, device=torch.device("cuda"), weights="int8")
