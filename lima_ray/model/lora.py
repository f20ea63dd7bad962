"""LoRA adapters on every linear layer."""

from typing import Any

from lima_ray.config.sections import Model


def add_lora(model: Any, settings: Model) -> Any:
    """Freeze the model but for LoRA adapters on every linear layer, and its embeddings."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    # They train whole, because EOT's rows are new (or, in Llama 3, never trained).
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.weight.requires_grad_(True)
    adapted.enable_input_require_grads()
    return adapted
