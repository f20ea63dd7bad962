"""A Llama written out for decoding in slots on a CPU: as `transformers` computes it, in half the
operations.

A decoding step of a small model is mostly overhead: `transformers` calls seven matrix products, two
rotations and a dozen of small operations a layer through as many Python frames. Here queries, keys
and values are one product, gate and up another, and what lies between is a few operations of
`kernels.py`, or of `reference.py` where there is no C compiler. Other families keep their own
forward.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM

from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu import kernels, reference
from lima_ray.engine.cpu.compiler import available
from lima_ray.engine.cpu.kv_slots import SlotCache
from lima_ray.engine.cpu.linear import linear
from lima_ray.engine.cpu.weights import held

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone."""


def is_plain_llama(model: nn.Module) -> bool:
    """Whether `SlotLlama` computes what this model does."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config: Any = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    whole = model.model.rotary_emb.inv_freq.shape[0] * 2 == config.head_dim
    return config.hidden_act == "silu" and rope in STATIC_ROPE and whole


class SlotLlama(nn.Module):
    """A Llama's decoder and head, with the interface that the engine uses of a causal model."""

    def __init__(self, model: LlamaForCausalLM, batch: int, held_as: WeightFormat) -> None:
        """Take the weights of a model on a CPU, whose own layers are freed one by one."""
        super().__init__()
        self.config, self.generation_config = model.config, model.generation_config
        self.any_batch_size = available()
        """Whether a sequence's logits are the same in a batch of any size."""
        self.decoder = Decoder(model, batch, held_as)
        self.lm_head = linear([model.lm_head], batch, held_as)

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embed

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def forward(self, input_ids: torch.Tensor, slot_cache: SlotCache, **_: object) -> Any:
        """Return logits (B, T, V) of tokens in the slots of the cache's batch."""
        hidden_BTD = self.decoder(input_ids, slot_cache, head=True)
        return SimpleNamespace(logits=self.lm_head(hidden_BTD))


class Decoder(nn.Module):
    def __init__(self, model: LlamaForCausalLM, batch: int, held_as: WeightFormat) -> None:
        super().__init__()
        config: Any = model.config
        self.embed = model.model.embed_tokens
        self.embed.weight.data = held(self.embed.weight.data, held_as)
        positions_1C = torch.arange(config.max_position_embeddings)[None]
        half = config.head_dim // 2
        cos_1CE, sin_1CE = model.model.rotary_emb(
            torch.empty(0), positions_1C
        )  # in fp32, as that is
        self.angles_CE = torch.cat((cos_1CE[0, :, :half], sin_1CE[0, :, :half]), dim=1)
        """Cos and sin of the rotary embedding at every position, side by side."""
        self.operations = kernels if available() else reference
        self.layers = nn.ModuleList()
        for number in range(len(model.model.layers)):
            layer = Layer(model.model.layers[number], number, batch, held_as, self.operations)
            self.layers.append(layer)
            model.model.layers[number] = nn.Identity()
        self.norm = weight_and_eps(model.model.norm)

    def forward(
        self, input_ids: torch.Tensor, slot_cache: SlotCache, head: bool = False, **_: object
    ) -> torch.Tensor | None:
        """Return hidden states (B, T, D) for the head; without one, tokens only enter slots."""
        x_BTD, left_BTD = self.embed(input_ids).float(), None
        last = self.layers[-1]
        for layer in self.layers:
            needed = head or layer is not last
            left_BTD = layer(x_BTD, left_BTD, self.angles_CE, slot_cache, needed)
        return self.operations.add_norm(x_BTD, left_BTD, *self.norm) if head else None


def weight_and_eps(norm: Any) -> tuple[torch.Tensor, float]:
    return norm.weight.float(), norm.variance_epsilon


class Layer(nn.Module):
    def __init__(
        self, layer: Any, number: int, batch: int, held_as: WeightFormat, operations: Any
    ) -> None:
        """Take a layer's weights, of `transformers`; `operations` are `kernels` or `reference`."""
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.operations, self.number = operations, number
        self.width, self.scaling = attention.head_dim, attention.scaling
        self.heads = attention.config.num_attention_heads
        self.kv_heads = attention.config.num_key_value_heads
        self.before_attention = weight_and_eps(layer.input_layernorm)
        self.qkv = linear([attention.q_proj, attention.k_proj, attention.v_proj], batch, held_as)
        self.out = linear([attention.o_proj], batch, held_as)
        self.before_mlp = weight_and_eps(layer.post_attention_layernorm)
        self.gate_up = linear([mlp.gate_proj, mlp.up_proj], batch, held_as)
        self.down = linear([mlp.down_proj], batch, held_as)

    def forward(
        self,
        x_BTD: torch.Tensor,
        left_BTD: torch.Tensor | None,
        angles_CE: torch.Tensor,
        slot_cache: SlotCache,
        needed: bool,
    ) -> torch.Tensor | None:
        """Store the tokens' keys and values, and add the layer to the residual stream.

        Args:
            x_BTD: the residual stream; `left_BTD` and the attention's output are added in place.
            left_BTD: what the layer before leaves to be added.
            angles_CE: cos and sin of every position, side by side.
            slot_cache: its batch is that of the tokens.
            needed: false where only keys and values are.

        Returns:
            what the next layer adds.
        """
        ops, batch = self.operations, slot_cache.batch
        qkv_BTF = self.qkv(ops.add_norm(x_BTD, left_BTD, *self.before_attention))
        size, tokens, _ = qkv_BTF.shape
        cache = slot_cache.layer(self.number, self.kv_heads, self.width, qkv_BTF)
        queries_BTHE = ops.rotate_into_slots(qkv_BTF, angles_CE, cache, batch, self.heads)
        if not needed:
            return None
        if tokens > 1:
            mixed_BTF = ops.attend_prompt(queries_BTHE, cache, batch, self.scaling)
        else:
            mixed_BTF = ops.attend(queries_BTHE, cache, batch, self.scaling, size)
        normed_BTD = ops.add_norm(x_BTD, self.out(mixed_BTF), *self.before_mlp)
        return self.down(ops.silu_mul(self.gate_up(normed_BTD)))
