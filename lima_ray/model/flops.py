"""Floating-point operations of a training step, and what a GPU could do at most."""

from typing import Any

import numpy as np
import torch

from lima_ray.model.attention import head_width

BF16_PEAK = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A6000": 155e12,
    "4090": 165e12,
}
"""Dense bf16 operations a second by part of the device's name, from the makers' data sheets."""


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a GPU; none where unknown (a CPU, a GPU not listed)."""
    if device.type != "cuda":
        return None
    return named_peak(torch.cuda.get_device_name(device))


def named_peak(name: str) -> float | None:
    """Return the dense bf16 peak of a GPU by its name; none where it is not listed."""
    return next((peak for part, peak in BF16_PEAK.items() if part in name), None)


def step_flops(config: Any, lengths_B: np.ndarray, supervised: int) -> float:
    """Count operations of forward and backward over rows of given lengths, without recomputation.

    Six for each weight of a matrix and each token that meets it (the vocabulary's matrix meets only
    supervised positions), and causal attention's two products over half of each row's square.
    """
    head = head_width(config)
    attention = (
        config.hidden_size
        * head
        * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    )
    mlp = 3 * config.hidden_size * config.intermediate_size
    matrices = 6 * config.num_hidden_layers * (attention + mlp) * float(lengths_B.sum())
    scores = 6.0 * config.num_hidden_layers * config.num_attention_heads * head
    scores *= float((lengths_B.astype(np.float64) ** 2).sum())
    return matrices + scores + 6.0 * config.hidden_size * config.vocab_size * supervised
