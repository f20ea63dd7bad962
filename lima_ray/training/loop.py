"""The training loop, run by Ray Train in every worker process.

Everything a step needs follows from (recipe, rows, step, rank, workers): the plan, the learning
rate, dropout's random state and the loss's denominator. Resuming therefore needs the weights, the
optimizer and one number.
"""

import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch import distributed as dist
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.working_copy import location
from lima_ray.data.packing import Step
from lima_ray.data.rows import Rows
from lima_ray.model import export
from lima_ray.model.export_check import probe_loss
from lima_ray.model.flops import step_flops
from lima_ray.model.loading import choose_dtype, describe_kernels, load_model
from lima_ray.model.loss import forward_packed
from lima_ray.model.parameters import count_elements
from lima_ray.records.files import read_json
from lima_ray.records.lineage import hash_base
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run
from lima_ray.training import checkpoint
from lima_ray.training.metrics import MetricsLog, StepResult
from lima_ray.training.schedule import Schedule, plan_epoch, step_seed
from lima_ray.training.zero import (
    GradientClipping,
    bucket_size,
    deepspeed_config,
    resolve_zero_stage,
)


def train(
    recipe: Recipe,
    run: Run,
    device: torch.device,
    phases: Phases,
    lineage: dict[str, Any],
    saved_weights: Callable[[int], None],
    after_step: Callable[[int], None] = lambda _: None,
    about_to_leave: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from the newest state to the last epoch, in a process group that is already up.

    Args:
        run: a directory with `rows.safetensors` and the tokenizer.
        phases: what starting has taken so far.
        lineage: hashes saved with every epoch's weights.
        saved_weights: called on every worker with an epoch (from 1) whose weights are written.
        after_step: called with the number of steps done, after each and before it is saved.
        about_to_leave: called on every worker after each step; where any says that its node is
            about to be taken away, a state is saved at once and the training stops.

    Returns:
        whether it came to the end, instead of stopping for a node that is about to leave.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()
    if location(run.path):
        fetch_inputs(run)
    if not run.rows_file.exists():
        raise RuntimeError(
            f"{run.path} is not visible on {socket.gethostname()}; give --runs_dir storage that "
            "every node sees, or a place in a bucket (s3://, gs://)"
        )
    rows = Rows.load(run.rows_file)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer_dir, trust_remote_code=False)
    state, notes = checkpoint.find_intact_state(run)
    if state:  # a run keeps the stage that it began with; its states have that form
        recipe = recipe.override({"train.zero_stage": state.zero_stage})
    recipe = resolve_zero_stage(recipe, workers, device)
    resharded = state is not None and state.workers != workers and recipe.train.zero_stage != 0
    tag = (
        checkpoint.convert_to_universal(state)
        if state and resharded
        else state and state.folder.name
    )
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
        for note in notes:
            log.note(note)
        computed = {
            "zero_stage": engine.zero_optimization_stage(),
            **describe_kernels(engine.module),
        }
        log.start(done, pids, computed, phases.seconds)
        plan: list[Step] = []
        for number in range(done, schedule.steps):
            epoch, index = divmod(number, schedule.epoch_steps)
            if index == 0 or not plan:
                plan = plan_epoch(recipe, rows, epoch, workers)
            torch.manual_seed(step_seed(recipe.seed, number, rank))
            rate = schedule.learning_rate(number)
            result = train_step(engine, plan[index], rows, rate)
            refuse_not_finite(result, number + 1, rate, run)
            log.step(number + 1, epoch + 1, rate, result)
            after_step(number + 1)
            if schedule.saves_weights(number + 1):
                started = time.perf_counter()
                origin = lineage | {"epoch": epoch + 1}
                written = save_epoch(engine, tokenizer, rows, recipe, run, origin)
                log.save("weights", number + 1, written, time.perf_counter() - started)
                saved_weights(epoch + 1)
            stops = is_true_anywhere(about_to_leave(), device) and number + 1 < schedule.steps
            if stops or schedule.saves_state(number + 1):
                started = time.perf_counter()
                keep = recipe.checkpoint.keep_states
                log.upload()  # the steps before a state that has them done
                written = checkpoint.save_state(engine, run, number + 1, keep)
                log.save("state", number + 1, written, time.perf_counter() - started)
            if stops:
                log.note(f"a node is about to be taken away; step {number + 1} is saved")
                return False
    return True


def is_true_anywhere(value: bool, device: torch.device) -> bool:
    """Return, on every worker alike, whether a value is true on any of them."""
    found_1 = torch.tensor([float(value)], device=device)
    dist.all_reduce(found_1)
    return bool(found_1.item())


def save_epoch(
    engine: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    recipe: Recipe,
    run: Run,
    origin: dict[str, Any],
) -> int:
    """Write an epoch's weights with the trainer's own loss; return bytes, 0 but on rank 0."""
    origin = origin | {"trained": asdict(probe_loss(engine, rows))}
    folder, dtype = run.epoch_dir(origin["epoch"]), recipe.checkpoint.weights_dtype
    if dist.get_rank() == 0:
        whole_folders.withdraw(folder)
    written = export.save_weights(engine.module, tokenizer, folder, origin, dtype, recipe.sampling)
    if dist.get_rank() == 0 and location(folder):
        about = {"hash": hash_base(str(folder)), "lineage": read_json(folder / "lineage.json")}
        whole_folders.publish(folder, about)
    return written


def fetch_inputs(run: Run) -> None:
    """Bring a run's rows and tokenizer from its bucket to each disk."""
    if checkpoint.leads_disk(run.path):
        changing_files.pull(run.rows_file)
        whole_folders.fetch(run.tokenizer_dir)
    dist.barrier()


def refuse_not_finite(result: StepResult, step: int, rate: float, run: Run) -> None:
    """End the training at a step whose loss or gradient is not finite, on every worker alike."""
    if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
        return
    state = run.latest_state()
    kept = f"the state of step {state.step} is kept" if state else "nothing was saved before it"
    raise UserError(
        f"step {step}: the loss is {result.loss:.4g} and the gradient's norm "
        f"{result.grad_norm:.4g} at a learning rate of {rate:.3g}; not finite, so training stops "
        f"here and {kept} in {run.path}. Lower optim.learning_rate, under another --name"
    )


def build_engine(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    universal: bool = False,
) -> Any:
    """Load the model into a DeepSpeed engine with AdamW, for a `universal` checkpoint or not."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    recipe = resolve_zero_stage(recipe, dist.get_world_size(), device)
    if recipe.unresolved():
        raise ValueError(f"{', '.join(recipe.unresolved())} is auto; resolve it first")
    bf16 = choose_dtype(recipe, device) == torch.bfloat16
    config = deepspeed_config(recipe, bf16=bf16, universal=universal)
    torch.manual_seed(recipe.seed)
    if device.type == "cpu":
        use_gloo()  # ZeRO 3 joins the workers while it loads
    partitioned = HfDeepSpeedConfig(config) if recipe.train.zero_stage == 3 else None
    model = load_model(recipe, tokenizer, device)
    del partitioned
    return initialize_engine(model, recipe, config)


def initialize_engine(model: torch.nn.Module, recipe: Recipe, config: dict[str, Any]) -> Any:
    import deepspeed

    if next(model.parameters()).device.type == "cpu":
        use_gloo()
    optimizer = build_optimizer(model, recipe)
    trained = sum(count_elements(p) for group in optimizer.param_groups for p in group["params"])
    for bucket in ("reduce_bucket_size", "allgather_bucket_size"):
        config["zero_optimization"][bucket] = bucket_size(trained)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    if recipe.train.zero_stage == 0:
        clipping: Any = GradientClipping(recipe.optim.clip_norm)
        engine.clipping = clipping
        optimizer.register_step_pre_hook(clipping)
    return engine


def use_gloo() -> None:
    """Keep DeepSpeed from its shared-memory collectives.

    They compile for minutes, and wait without end for a compilation that was killed.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build AdamW over all trained weights; DeepSpeed's CPU form where it is offloaded."""
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
    """Compute one optimizer step, of which this worker takes its own micro-batches.

    The loss is the sum over supervised tokens divided by their count over all workers and
    micro-batches, so neither changes it.
    """
    started = time.perf_counter()
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    supervised = int(rows.supervised_R[step.rows].sum())
    # Of the supervised tokens: their negative log likelihoods, and how many were the likeliest.
    # Summed on the device: reading a number here would stop a GPU at every micro-batch.
    totals_2 = torch.zeros(2, dtype=torch.float64, device=engine.device)
    for batch in step.ranks[dist.get_rank()]:
        loss_sum, correct = forward_packed(engine, batch, rows)
        # DeepSpeed averages over workers, hence the factor.
        engine.backward(loss_sum * (dist.get_world_size() / supervised), scale_wrt_gas=False)
        totals_2 += torch.stack([loss_sum.detach().double(), correct.double()])
    engine.step()
    dist.all_reduce(totals_2)
    loss, accuracy = (totals_2 / supervised).tolist()
    return StepResult(
        loss=loss,
        token_accuracy=accuracy,
        grad_norm=gradient_norm(engine),
        tokens=int(rows.lengths_R[step.rows].sum()),
        supervised_tokens=supervised,
        flops=step_flops(engine.module.config, rows.lengths_R[step.rows], supervised),
        seconds=time.perf_counter() - started,
    )


def gradient_norm(engine: Any) -> float:
    """Return the last gradient's norm before clipping; inf where DeepSpeed skipped the step."""
    if not engine.was_step_applied():  # a gradient overflowed; the norm is of the step before
        return math.inf
    if engine.zero_optimization_stage() == 0:
        return engine.clipping.norm
    return float(engine.get_global_grad_norm())
