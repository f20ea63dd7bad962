"""Recipe -> DeepSpeed configuration."""

from typing import Any

import torch

from lima_ray.config.recipe import Recipe
from lima_ray.model.loading import choose_dtype

OPTIMIZER_BYTES = 12
"""fp32 master weight and AdamW's two averages, per trained parameter."""
MAX_BUCKET, MIN_BUCKET = 500_000_000, 1_000_000
BUCKETS = 50
"""DeepSpeed reduces gradients in buckets it holds room for; so many of them make the model."""


def resolve_zero_stage(recipe: Recipe, workers: int, device: torch.device) -> Recipe:
    """Return the recipe with the ZeRO stage that `auto` stands for."""
    train = recipe.train
    if train.zero_stage != "auto":
        return recipe
    # One worker has nobody to split anything with: stage 0 does without DeepSpeed's fp32 copy of
    # the weights. In bf16 that copy is what AdamW steps on, so there it is stage 2 as for several.
    fp32 = choose_dtype(recipe, device) == torch.float32
    alone = workers == 1 and fp32 and not train.offload_optimizer
    return recipe.override({"train.zero_stage": 0 if alone else 2})


def resume_state_bytes(trained: int, width: int) -> int:
    """Return the bytes of a resume state: weights of so many bytes each, and AdamW's for them."""
    return trained * (width + OPTIMIZER_BYTES)


class GradientClipping:
    """Clips whole gradients before AdamW's step, where DeepSpeed tells no norm of them (ZeRO 0)."""

    def __init__(self, most: float) -> None:
        self.most, self.norm = most or float("inf"), float("nan")

    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.norm = float(torch.nn.utils.clip_grad_norm_(trained, self.most))


def bucket_size(parameters: int) -> int:
    """Return how many of so many trained gradients DeepSpeed reduces together."""
    share = parameters // BUCKETS // 1000 * 1000  # DeepSpeed wants an even number
    return min(MAX_BUCKET, max(MIN_BUCKET, share))


def deepspeed_config(recipe: Recipe, *, bf16: bool, universal: bool = False) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`.

    Args:
        bf16: weights in use are bf16 (AdamW still keeps fp32 ones).
        universal: the state to load is a universal checkpoint.
    """
    train, optim = recipe.train, recipe.optim
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if train.offload_params:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    if train.zero_stage == 2:
        zero["overlap_comm"] = True
    return {
        # The plan decides how many micro-batches a step has, so DeepSpeed's own accounting is off:
        # unmanaged, `backward` may be called any number of times a `step`.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": optim.clip_norm if train.zero_stage else 0.0,  # see `GradientClipping`
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
    }
