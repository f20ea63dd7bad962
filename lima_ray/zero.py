"""Recipe -> DeepSpeed configuration."""

from typing import Any

from lima_ray.config import Recipe

OPTIMIZER_BYTES = 12
"""fp32 master weight and AdamW's two averages, per trained parameter."""


def deepspeed_config(recipe: Recipe, *, bf16: bool, universal: bool = False) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`.

    The plan decides how many micro-batches a step has, so DeepSpeed's own accounting is off:
    `managed_gradient_accumulation` false lets `backward` be called any number of times a `step`.

    Args:
        recipe: the run's recipe.
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
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": optim.clip_norm,
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
    }
