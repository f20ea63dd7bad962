"""Shapes of the random Llamas that are measured: arguments of `lima_ray.base.build`."""

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 256, "layers": 4},
    "mid": {"hidden": 768, "layers": 12, "heads": 12, "mlp": 2048},
    "1b": {"hidden": 2048, "layers": 22, "heads": 32, "kv_heads": 4, "mlp": 5632},
    "7b": {"hidden": 4096, "layers": 32, "heads": 32, "mlp": 11008},
}
TITLES = {"tiny": "20M", "mid": "134M", "1b": "1.1B", "7b": "6.7B"}
"""Their parameters, with a vocabulary of 32,000."""
