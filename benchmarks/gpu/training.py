"""Tokens a second, memory and MFU of training on one GPU, by setting.

- *layers*: forward and backward of one micro-batch of a random 8B Llama (Llama 3's shape, one full
  row), each of attention kernel, checkpointing, compilation, Liger's layers and loss head on and
  off.
- *lima*: whole steps of a random 7B Llama (LLaMA's shape) through our loop and DeepSpeed, on rows
  with lengths as LIMA's, beside what `lima_ray.plan` would say of memory; LoRA, with a profile.
- *steps*: whole steps of the 8B with optimizer states in bf16, the setting of KempnerForge.

Model FLOPs utilisation (MFU) by three formulas, over the bf16 peak of the maker's data sheet:
`mfu_6p` counts 6 P for a token, `mfu_palm` 6 P + 12 L D S (every token attends all S of its row,
as PaLM and KempnerForge count), `mfu_causal` what is computed: matrices without the embedding, the
vocabulary's matrix at supervised positions, half of each row's square.
"""

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from benchmarks.gpu.process_group import process_group
from benchmarks.gpu.record import Record
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data.packing import Step
from lima_ray.data.rows import Rows
from lima_ray.model import attention
from lima_ray.model.flops import peak_flops, step_flops
from lima_ray.model.lora import add_lora
from lima_ray.model.loss import forward_packed
from lima_ray.model.residual_dropout import add_residual_dropout
from lima_ray.planning.sizes import LLAMA3_8B, LLAMA_7B, shape_of
from lima_ray.results.published.lima import draw_lengths
from lima_ray.training.loop import initialize_engine, train_step
from lima_ray.training.schedule import plan_epoch
from lima_ray.training.zero import deepspeed_config

SMOKE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
PLAIN = {
    name: getattr(modeling_llama, name)
    for name in ("LlamaRMSNorm", "LlamaMLP", "apply_rotary_pos_emb")
}
REPEATS = 3
CHUNK = 1024
"""Positions of a chunked loss head."""


@dataclass(frozen=True)
class Setting:
    """What is switched in a forward and backward pass."""

    attention: str = attention.VARLEN
    checkpointing: str = "full"
    compiled: bool = False
    head: str = "logits"
    liger: bool = False
    tokens: int = 4096
    rows: int = 1


LAYERS = [
    Setting("sdpa"),
    Setting(attention.PACKED),
    Setting(),
    Setting(checkpointing="off"),
    Setting(checkpointing="selective"),
    Setting(head="chunked"),
    Setting(head="liger"),
    Setting(tokens=8192, rows=2),
    Setting(tokens=8192, rows=2, checkpointing="off"),
    Setting(compiled=True),
    Setting(compiled=True, checkpointing="off"),
    Setting(compiled=True, checkpointing="selective"),
    Setting(compiled=True, tokens=8192, rows=2),
    Setting(liger=True),
    Setting(liger=True, checkpointing="off"),
    Setting(liger=True, checkpointing="off", tokens=8192, rows=2),
    Setting("sdpa", liger=True, checkpointing="off"),
]
STEPS = [
    (1, Setting(tokens=8192, rows=2)),
    (1, Setting(tokens=8192, rows=2, liger=True, checkpointing="off")),
    (1, Setting(tokens=8192, rows=2, liger=True)),
    (2, Setting(tokens=8192, rows=2)),
    (1, Setting(tokens=8192, rows=2, liger=True, compiled=True)),
]


def run(record: Record) -> None:
    """Measure all of it, what matters most first."""
    attention.register()
    with process_group(record.device):
        with record.attempt("ceiling"):
            measure_ceiling(record)
        measure_layers(record, [s for s in LAYERS if not s.compiled and not s.liger])
        measure_layers(record, [s for s in LAYERS if s.liger])
        measure_lima(record)
        measure_steps(record, STEPS)
        measure_layers(record, [s for s in LAYERS if s.compiled])  # compilation takes its time


def measure_ceiling(record: Record) -> None:
    """A large matrix product and a large copy: what this card gives at most."""
    n = 256 if record.smoke else 8192
    a, b = (torch.randn(n, n, device=record.device, dtype=torch.bfloat16) for _ in range(2))
    product_s = seconds_of(record, lambda: a @ b, repeats=10)
    big = torch.randn(n * n * (1 if record.smoke else 16), device=record.device)
    copy = torch.empty_like(big)
    copy_s = seconds_of(record, lambda: copy.copy_(big), repeats=10)
    record.add(
        "ceiling",
        matmul_tflops=2 * n**3 / product_s / 1e12,
        copy_tb_per_s=2 * big.numel() * 4 / copy_s / 1e12,
    )


def measure_layers(record: Record, settings: list[Setting]) -> None:
    """Forward and backward of the 8B by setting, all with Liger's layers or all without."""
    model = random_llama(record, LLAMA3_8B, settings[0].liger)
    for setting in settings:
        if record.smoke and (setting.attention == attention.VARLEN or setting.liger):
            setting = replace(setting, attention=attention.PACKED, liger=False)
        if record.smoke and (setting.head == "liger" or setting.compiled):
            continue
        length = setting.tokens // setting.rows // (64 if record.smoke else 1)
        rows = full_rows(model.config.vocab_size, setting.rows, length)
        with record.attempt("layers", **asdict(setting)):
            switch(model, setting)
            batch = tuple(range(setting.rows))
            loss = losses(setting.head)
            go = partial(forward_backward, model, rows, batch, loss)
            started = time.perf_counter()
            go()
            first_s = time.perf_counter() - started
            reset_peak(record)
            took_s = seconds_of(record, go)
            record.add(
                "layers",
                **asdict(setting),
                ms=1e3 * took_s,
                first_s=first_s,
                peak_gib=peak_gib(record),
                **rates(record, model.config, rows, list(batch), took_s),
            )
        model.zero_grad(set_to_none=True)
    del model
    free(record)


def switch(model: Any, setting: Setting) -> None:
    """Put a model into a setting; Liger's layers are chosen when it is made."""
    model.set_attn_implementation(setting.attention)
    model.gradient_checkpointing_disable()
    if setting.checkpointing == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    elif setting.checkpointing == "selective":
        # Each layer's passes count for themselves: layers are recomputed in reverse order.
        def saves() -> Any:
            return create_selective_checkpoint_contexts(saves_every_second_product())

        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": saves})
    torch._dynamo.reset()
    for layer in model.model.layers:
        layer._compiled_call_impl = None
        if setting.compiled:
            layer.compile(dynamic=False)


def saves_every_second_product() -> Callable[..., CheckpointPolicy]:
    """Policy of selective checkpointing: keep attention and every other matrix product."""
    counts = {False: 0, True: 0}

    def choose(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        if "attn" in str(operation) or "attention" in str(operation):
            return CheckpointPolicy.MUST_SAVE
        if operation != torch.ops.aten.mm.default:
            return CheckpointPolicy.PREFER_RECOMPUTE
        counts[context.is_recompute] += 1
        kept = counts[context.is_recompute] % 2
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return choose


def losses(head: str) -> Callable[..., torch.Tensor]:
    """The sum over supervised tokens by a form of the vocabulary's matrix."""
    return {"logits": by_logits, "chunked": by_chunks, "liger": by_liger}[head]


def by_logits(model: Any, batch: tuple[int, ...], rows: Rows) -> torch.Tensor:
    """The training loop's own."""
    return forward_packed(model, batch, rows)[0]


def hidden(model: Any, batch: tuple[int, ...], rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states (K, D) and targets (K) of a batch's supervised positions."""
    captured = {}

    def capture(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        captured["hidden_KD"] = inputs[0][0]
        raise Captured

    hook = model.lm_head.register_forward_pre_hook(capture)
    with suppress(Captured):
        forward_packed(model, batch, rows)
    hook.remove()
    target_K = np.concatenate([ids[1:][mask[1:]] for ids, mask in map(rows.row, batch)])
    return captured["hidden_KD"], torch.from_numpy(target_K).long().to(model.device)


class Captured(Exception):
    """Ends a forward pass before the vocabulary's matrix."""


def by_chunks(model: Any, batch: tuple[int, ...], rows: Rows) -> torch.Tensor:
    """The vocabulary's matrix a chunk of positions at a time, recomputed in the backward pass."""
    hidden_KD, target_K = hidden(model, batch, rows)
    total = hidden_KD.new_zeros((), dtype=torch.float32)
    for start in range(0, len(target_K), CHUNK):
        part = slice(start, start + CHUNK)
        total = total + checkpoint(  # pyright: ignore[reportOperatorIssue]
            chunk_loss, hidden_KD[part], model.lm_head.weight, target_K[part], use_reentrant=False
        )
    return total


def chunk_loss(
    hidden_KD: torch.Tensor, weight_VD: torch.Tensor, target_K: torch.Tensor
) -> torch.Tensor:
    return cross_entropy((hidden_KD @ weight_VD.T).float(), target_K, reduction="sum")


def by_liger(model: Any, batch: tuple[int, ...], rows: Rows) -> torch.Tensor:
    """Liger's fused matrix and loss."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    hidden_KD, target_K = hidden(model, batch, rows)
    fused = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return fused(model.lm_head.weight, hidden_KD, target_K)


def forward_backward(
    model: Any, rows: Rows, batch: tuple[int, ...], loss: Callable[..., torch.Tensor]
) -> None:
    (loss(model, batch, rows) / float(rows.supervised_R[list(batch)].sum())).backward()


def measure_lima(record: Record) -> None:
    """Whole steps of LIMA's lengths through our loop."""
    rows = lima_rows(32000 if not record.smoke else SMOKE["vocab_size"], record.smoke)
    kernel = attention.PACKED if record.smoke else attention.VARLEN
    base: dict[str, Any] = {"attention": kernel, "checkpointing": True, "tokens": 16384}
    base["liger"] = True
    cases: list[dict[str, Any]] = [
        base,
        base | {"lora": 16, "checkpointing": False, "tokens": 8192, "profile": True},
        base | {"attention": attention.PACKED},
        base | {"checkpointing": False, "tokens": 2048},
        base | {"dropout": 0.3},
        base | {"liger": False},
    ]
    for case in cases:
        with record.attempt("lima", **case):
            lima_case(record, rows, **case)
        free(record)


def lima_case(
    record: Record,
    rows: Rows,
    attention: str,
    checkpointing: bool,
    tokens: int,
    liger: bool,
    dropout: float = 0.0,
    lora: int = 0,
    profile: bool = False,
) -> None:
    """A few steps of 32 examples of the 7B."""
    recipe = validate_recipe(
        {
            "model": {"residual_dropout": dropout, "lora_rank": lora, "base": "random"},
            "train": {
                "tokens_per_micro_batch": tokens,
                "activation_checkpointing": checkpointing,
                "precision": "bf16",
                "zero_stage": 2,
            },
        }
    )
    model = random_llama(record, LLAMA_7B, liger)
    model.set_attn_implementation(attention)
    add_residual_dropout(model, dropout)
    if lora:
        model = add_lora(model, recipe.model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    engine = initialize_engine(model.train(), recipe, deepspeed_config(recipe, bf16=True))
    try:
        figures = engine_figures(record, engine, rows, recipe)
        record.add(
            "lima",
            attention=attention,
            checkpointing=checkpointing,
            tokens=tokens,
            liger=liger,
            dropout=dropout,
            lora=lora,
            **figures,
        )
        if profile:
            step = plan_epoch(recipe, rows, 1, 1)[0]
            record.add(
                "profile", lora=lora, table=profiled(lambda: train_step(engine, step, rows, 1e-5))
            )
    finally:
        engine.destroy()


def measure_steps(record: Record, settings: list[tuple[int, Setting]]) -> None:
    """Whole steps of the 8B on full rows of 4,096 tokens, all states of AdamW in bf16.

    Args:
        record: where figures go.
        settings: ZeRO stages and what is switched.
    """
    vocab, length = (SMOKE["vocab_size"], 128) if record.smoke else (128256, 4096)
    rows = full_rows(vocab, 8, length)
    for stage, setting in settings:
        if record.smoke:
            setting = replace(setting, attention=attention.PACKED, liger=False, compiled=False)
        case = {"zero_stage": stage, **asdict(setting)}
        with record.attempt("steps", **case):
            steps_case(record, rows, stage, setting, case)
        free(record)


def steps_case(
    record: Record, rows: Rows, stage: int, setting: Setting, case: dict[str, Any]
) -> None:
    """A few steps of eight rows."""
    recipe = validate_recipe(
        {
            "data": {"max_tokens": 4096},
            "model": {"residual_dropout": 0.0, "base": "random"},
            "optim": {"batch_examples": 8},
            "train": {
                "tokens_per_micro_batch": setting.tokens,
                "precision": "bf16",
                "zero_stage": stage,
            },
        }
    )
    model = random_llama(record, LLAMA3_8B, setting.liger)
    switch(model, setting)
    config = deepspeed_config(recipe, bf16=True)
    config["bf16"] |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    config["data_types"] = {"grad_accum_dtype": "bf16"}
    engine = initialize_engine(model, recipe, config)
    try:
        record.add("steps", **case, **engine_figures(record, engine, rows, recipe))
    finally:
        engine.destroy()


def engine_figures(record: Record, engine: Any, rows: Rows, recipe: Recipe) -> dict[str, Any]:
    """Median figures of a few steps after the first."""
    plans: list[Step] = [s for epoch in range(4) for s in plan_epoch(recipe, rows, epoch, 1)]
    results = []
    for number, step in enumerate(plans[: REPEATS + 1]):
        if number == 1:
            reset_peak(record)
        started = time.perf_counter()
        result = train_step(engine, step, rows, 1e-5)
        wait(record)
        results.append((step, result, time.perf_counter() - started))
    step, result, took_s = sorted(results[1:], key=lambda r: r[2] / r[1].tokens)[REPEATS // 2]
    return {
        "step_s": took_s,
        "first_s": results[0][2],
        "micro_batches": len(step.ranks[0]),
        "supervised_tokens_per_s": result.supervised_tokens / took_s,
        "losses": [r.loss for _, r, _ in results],
        "peak_gib": peak_gib(record),
        **rates(record, engine.module.config, rows, step.rows, took_s),
    }


def rates(
    record: Record, config: Any, rows: Rows, numbers: list[int], took_s: float
) -> dict[str, float]:
    lengths_B = rows.lengths_R[numbers].astype(np.float64)
    peak = peak_flops(record.device) or 1e12
    tokens = float(lengths_B.sum())
    head = attention.head_width(config)
    attended = config.num_attention_heads * head
    p = shape_of(config).parameters
    palm = 6 * p * tokens + 12 * config.num_hidden_layers * attended * float((lengths_B**2).sum())
    causal = step_flops(config, rows.lengths_R[numbers], int(rows.supervised_R[numbers].sum()))
    return {
        "tokens_per_s": tokens / took_s,
        "mfu_6p": 6 * p * tokens / took_s / peak,
        "mfu_palm": palm / took_s / peak,
        "mfu_causal": causal / took_s / peak,
    }


def random_llama(record: Record, shape: dict[str, int], liger: bool) -> Any:
    """A Llama with new weights in bf16, made on the device, with or without Liger's layers."""
    for name, plain in PLAIN.items():
        setattr(modeling_llama, name, plain)  # Liger replaces them for the whole process
    sizes: dict[str, Any] = SMOKE if record.smoke else shape
    config = LlamaConfig(**sizes, use_cache=False)
    config._attn_implementation = attention.PACKED
    torch.set_default_dtype(torch.bfloat16)
    try:
        with record.device:
            model = LlamaForCausalLM(config).train()
    finally:
        torch.set_default_dtype(torch.float32)
    if liger and not record.smoke:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
    return model


def full_rows(vocab: int, count: int, length: int) -> Rows:
    """Random rows of one length, every token supervised."""
    return made_rows(vocab, [(1, length - 1)] * count)


def lima_rows(vocab: int, smoke: bool) -> Rows:
    """Random rows whose lengths have the means of LIMA's Table 1, up to 2,048 tokens."""
    prompts_R, replies_R = draw_lengths()
    if smoke:
        prompts_R, replies_R = (lengths_R[::25] // 8 + 1 for lengths_R in (prompts_R, replies_R))
    sizes = zip(np.minimum(prompts_R, 1000), np.minimum(replies_R, 1040), strict=True)
    return made_rows(vocab, [(int(prompt), int(reply)) for prompt, reply in sizes])


def made_rows(vocab: int, sizes: list[tuple[int, int]]) -> Rows:
    """Random token ids: prompts that are not supervised, replies that are."""
    generator = np.random.default_rng(0)
    lengths = [prompt + reply for prompt, reply in sizes]
    return Rows(
        ids_N=generator.integers(3, vocab, sum(lengths)).astype(np.int32),
        mask_N=np.concatenate([[False] * prompt + [True] * reply for prompt, reply in sizes]),
        starts_R1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        cut_R=np.zeros(len(sizes), dtype=bool),
    )


def seconds_of(record: Record, go: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median seconds of a call, the device waited for."""
    go()
    wait(record)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        go()
        wait(record)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def profiled(go: Callable[[], Any]) -> list[dict[str, Any]]:
    """The operations that take the device longest, and how long the host took."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=kinds) as found:
        go()
    events = found.key_averages()
    device = [e for e in events if e.self_device_time_total > 0]
    longest = sorted(device, key=lambda e: -e.self_device_time_total)[:25]
    host = sorted(events, key=lambda e: -e.self_cpu_time_total)[:15]
    return [
        {"name": e.key[:80], "calls": e.count, "device_ms": e.self_device_time_total / 1e3}
        for e in longest
    ] + [
        {"name": e.key[:80], "calls": e.count, "host_ms": e.self_cpu_time_total / 1e3} for e in host
    ]


def wait(record: Record) -> None:
    if record.device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(record: Record) -> None:
    """Begin a new peak of memory."""
    if record.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(record: Record) -> float:
    """Most memory since `reset_peak`; nothing on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if record.device.type == "cuda" else 0.0


def free(record: Record) -> None:
    gc.collect()
    if record.device.type == "cuda":
        torch.cuda.empty_cache()
