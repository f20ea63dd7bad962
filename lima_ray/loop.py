"""The training loop, run by Ray Train in every worker process.

Everything a step needs follows from (recipe, rows, step, rank, workers): the plan, the learning
rate, dropout's random state and the loss's denominator. Resuming therefore needs the weights, the
optimizer and one number.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lima_ray import checkpoint
from lima_ray.config import Recipe
from lima_ray.encode import Rows
from lima_ray.flops import step_flops
from lima_ray.metrics import MetricsLog, StepResult
from lima_ray.microbatch import MicroBatch, Step
from lima_ray.model import load_model, precision
from lima_ray.run import Run
from lima_ray.schedule import Schedule, plan_epoch, step_seed
from lima_ray.worker import Phases
from lima_ray.zero import deepspeed_config


def train(
    recipe: Recipe,
    run: Run,
    device: torch.device,
    phases: Phases,
    lineage: dict[str, Any],
    saved_weights: Callable[[int], None],
    after_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Train from the newest state to the last epoch, in a process group that is already up.

    Args:
        recipe: the run's recipe.
        run: a directory with `rows.safetensors` and the tokenizer.
        device: this worker's.
        phases: what starting has taken so far.
        lineage: hashes saved with every epoch's weights.
        saved_weights: called on every worker with an epoch (from 1) whose weights are written.
        after_step: called with the number of steps done, after each and before it is saved.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()
    if not run.rows_file.exists():
        raise RuntimeError(
            f"{run.path} is not visible on {socket.gethostname()}; give --runs_dir storage that "
            "every node sees"
        )
    rows = Rows.load(run.rows_file)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer_dir)
    state = run.latest_state()
    resharded = state is not None and state.workers != workers and recipe.train.zero_stage > 0
    tag = checkpoint.universal_tag(state) if state and resharded else state and state.folder.name
    engine = build_engine(recipe, tokenizer, device, universal=resharded)
    if tag:
        checkpoint.load_state(engine, run, tag)
    phases.done("model")
    schedule = Schedule.of(recipe, len(rows))
    done = state.step if state else 0
    pids = [0] * workers
    dist.all_gather_object(pids, os.getpid())
    with (
        MetricsLog(run, recipe, done, device, enabled=rank == 0) as log,
        ExitStack() as ending,
    ):
        ending.callback(engine.destroy)  # its hooks keep it alive where a process trains again
        log.start(done, pids, phases.seconds)
        plan: list[Step] = []
        for number in range(done, schedule.steps):
            epoch, index = divmod(number, schedule.epoch_steps)
            if index == 0 or not plan:
                plan = plan_epoch(recipe, rows, epoch, workers)
            torch.manual_seed(step_seed(recipe.seed, number, rank))
            rate = schedule.learning_rate(number)
            log.step(number + 1, epoch + 1, rate, train_step(engine, plan[index], rows, rate))
            after_step(number + 1)
            if schedule.saves_weights(number + 1):
                with log.timed("weights", number + 1) as saved:
                    origin, folder = lineage | {"epoch": epoch + 1}, run.epoch_dir(epoch + 1)
                    saved.bytes = checkpoint.save_weights(engine.module, tokenizer, folder, origin)
                saved_weights(epoch + 1)
            if schedule.saves_state(number + 1):
                with log.timed("state", number + 1) as saved:
                    keep = recipe.checkpoint.keep_states
                    saved.bytes = checkpoint.save_state(engine, run, number + 1, keep)


def build_engine(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    universal: bool = False,
) -> Any:
    """Load the model and wrap it in a DeepSpeed engine with AdamW.

    Args:
        recipe: the run's recipe.
        tokenizer: with EOT.
        device: this worker's.
        universal: the state that will be loaded is a universal checkpoint.
    """
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    bf16 = precision(recipe, device) == torch.bfloat16
    config = deepspeed_config(recipe, bf16=bf16, universal=universal)
    torch.manual_seed(recipe.seed)
    partitioned = HfDeepSpeedConfig(config) if recipe.train.zero_stage == 3 else None
    model = load_model(recipe, tokenizer, device)
    del partitioned
    return wrap(model, recipe, config)


def wrap(model: torch.nn.Module, recipe: Recipe, config: dict[str, Any]) -> Any:
    """Wrap a model in a DeepSpeed engine with AdamW.

    Args:
        model: what `load_model` gives.
        recipe: the run's recipe.
        config: what `deepspeed_config` gives for it.
    """
    import deepspeed

    if next(model.parameters()).device.type == "cpu":
        # Its shared-memory collectives compile for minutes; gloo serves as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=adamw(model, recipe), config=config, dist_init_required=False
    )
    return engine


def adamw(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over every trained weight; DeepSpeed's CPU form where the optimizer is offloaded."""
    optim = recipe.optim
    trained = [p for p in model.parameters() if p.requires_grad]
    settings: dict[str, Any] = {
        "lr": optim.learning_rate,
        "betas": (optim.beta1, optim.beta2),
        "eps": optim.eps,
        "weight_decay": optim.weight_decay,
    }
    if recipe.train.offload_optimizer:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(trained, adamw_mode=True, **settings)
    return torch.optim.AdamW(trained, fused=True, **settings)


def train_step(engine: Any, step: Step, rows: Rows, rate: float) -> StepResult:
    """One optimizer step.

    The loss is the sum over supervised tokens divided by their count over all workers and
    micro-batches, so neither changes it. DeepSpeed averages over workers, hence the factor.

    Args:
        engine: the DeepSpeed engine.
        step: the plan's; this worker takes its own micro-batches of it.
        rows: the encoded rows.
        rate: learning rate.
    """
    started = time.perf_counter()
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    supervised = int(rows.supervised_R[step.rows].sum())
    totals_2 = accumulate(engine, step, rows)
    engine.step()
    dist.all_reduce(totals_2)
    loss, accuracy = (totals_2 / supervised).tolist()
    norm = engine.get_global_grad_norm()
    return StepResult(
        loss=loss,
        token_accuracy=accuracy,
        grad_norm=None if norm is None else float(norm),
        tokens=int(rows.lengths_R[step.rows].sum()),
        supervised_tokens=supervised,
        flops=step_flops(engine.module.config, rows.lengths_R[step.rows], supervised),
        seconds=time.perf_counter() - started,
    )


def accumulate(engine: Any, step: Step, rows: Rows) -> torch.Tensor:
    """Forward and backward over this worker's micro-batches of a step, gradients accumulated.

    Returns:
        this worker's sums (2,), fp64, on its device: of the supervised tokens' negative log
        likelihoods, and of how many were the likeliest.
    """
    supervised = int(rows.supervised_R[step.rows].sum())
    totals_2 = torch.zeros(2, dtype=torch.float64, device=engine.device)
    for batch in step.ranks[dist.get_rank()]:
        loss_sum, correct = forward(engine, batch, rows)
        engine.backward(loss_sum * (dist.get_world_size() / supervised), scale_wrt_gas=False)
        # Summed on the device: reading a number here would stop a GPU at every micro-batch.
        totals_2 += torch.stack([loss_sum.detach().double(), correct.double()])
    return totals_2


def forward(model: Any, batch: MicroBatch, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward one packed micro-batch.

    Only the K positions whose next token is supervised reach the vocabulary's matrix.

    Args:
        model: the engine or the bare model.
        batch: row numbers; none at all is a micro-batch that weighs nothing.
        rows: the encoded rows.

    Returns:
        sum of the supervised tokens' negative log likelihoods, and how many were the likeliest.
    """
    device = next(model.parameters()).device if not hasattr(model, "device") else model.device
    parts = [rows.row(number) for number in batch] or [(rows.ids_N[:2], np.array([False, True]))]
    lengths = [len(ids) for ids, _ in parts]
    ids_T = torch.from_numpy(np.concatenate([ids for ids, _ in parts])).long().to(device)
    mask_T = np.concatenate([mask for _, mask in parts])
    keep_K = torch.from_numpy(np.flatnonzero(mask_T[1:])).to(device)
    position_T = torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])).to(device)
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
    logits_KV = (
        model(
            input_ids=ids_T[None],
            position_ids=position_T[None],
            use_cache=False,
            logits_to_keep=keep_K,
            cu_seq_lens_q=starts,
            cu_seq_lens_k=starts,
            max_length_q=max(lengths),
            max_length_k=max(lengths),
        )
        .logits[0]
        .float()
    )
    target_K = ids_T[keep_K + 1]
    weight = 1.0 if batch else 0.0
    loss_sum = cross_entropy(logits_KV, target_K, reduction="sum") * weight
    return loss_sum, (logits_KV.detach().argmax(dim=-1) == target_K).sum() * weight
