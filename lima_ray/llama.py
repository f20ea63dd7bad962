"""A Llama written out for decoding in slots on a CPU: as `transformers` computes it, in half the
operations.

A decoding step of a small model is mostly overhead: `transformers` calls seven matrix products, two
rotations and a dozen of small operations a layer through as many Python frames. Here queries, keys
and values are one product, gate and up another, and the rotation is one for queries and keys. Other
families keep their own forward.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import rms_norm
from transformers import LlamaForCausalLM

from lima_ray.layers import rotate
from lima_ray.steady import linear, silu

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone."""


def is_plain_llama(model: nn.Module) -> bool:
    """Whether `SteadyLlama` computes what this model does."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config: Any = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return config.hidden_act == "silu" and rope in STATIC_ROPE


class SteadyLlama(nn.Module):
    """A Llama's decoder and head, with the interface that the engine uses of a causal model."""

    def __init__(self, model: LlamaForCausalLM, rows: int) -> None:
        """Take a model's weights; its own layers are let go one by one.

        Args:
            model: in fp32 on a CPU.
            rows: usual number of rows of a batch.
        """
        super().__init__()
        self.config, self.generation_config = model.config, model.generation_config
        self.decoder = Decoder(model, rows)
        self.lm_head = linear([model.lm_head], rows)

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self.decoder.embed

    def get_decoder(self) -> nn.Module:
        """All but the head."""
        return self.decoder

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, slot_cache: Any, **_: object
    ) -> SimpleNamespace:
        """Logits (B, T, V) of tokens in the slots aimed at."""
        hidden_BTD = self.decoder(input_ids, position_ids, slot_cache)
        return SimpleNamespace(logits=self.lm_head(hidden_BTD))


class Decoder(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, model: LlamaForCausalLM, rows: int) -> None:
        super().__init__()
        config: Any = model.config
        self.embed = model.model.embed_tokens
        width = config.head_dim
        positions_1C = torch.arange(config.max_position_embeddings)[None]
        cos_1CE, sin_1CE = model.model.rotary_emb(self.embed.weight, positions_1C)
        half = width // 2
        self.cos_CE, self.sin_CE = cos_1CE[0, :, :half].clone(), sin_1CE[0, :, :half].clone()
        self.layers = nn.ModuleList()
        for number in range(len(model.model.layers)):
            self.layers.append(Layer(model.model.layers[number], number, rows))
            model.model.layers[number] = nn.Identity()
        self.norm = model.model.norm

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, slot_cache: Any, **_: object
    ) -> torch.Tensor:
        """Hidden states (B, T, D) before the head."""
        x_BTD = self.embed(input_ids)
        angles = self.cos_CE[position_ids, None], self.sin_CE[position_ids, None]
        for layer in self.layers:
            x_BTD = layer(x_BTD, angles, slot_cache)
        return normalise(self.norm, x_BTD)


class Layer(nn.Module):
    """Attention and MLP of one layer."""

    def __init__(self, layer: Any, number: int, rows: int) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.number, self.width, self.scaling = number, attention.head_dim, attention.scaling
        self.heads = attention.config.num_attention_heads
        self.kv_heads = attention.config.num_key_value_heads
        self.before_attention = layer.input_layernorm
        self.qkv = linear([attention.q_proj, attention.k_proj, attention.v_proj], rows)
        self.out = linear([attention.o_proj], rows)
        self.before_mlp = layer.post_attention_layernorm
        self.gate_up = linear([mlp.gate_proj, mlp.up_proj], rows)
        self.down = linear([mlp.down_proj], rows)

    def forward(
        self, x_BTD: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], slot_cache: Any
    ) -> torch.Tensor:
        """The residual stream after this layer."""
        batch, tokens, _ = x_BTD.shape
        qkv_BTHE = self.qkv(normalise(self.before_attention, x_BTD)).view(
            batch, tokens, -1, self.width
        )
        turned = self.heads + self.kv_heads
        qk_BHTE = rotate(qkv_BTHE[:, :, :turned], *angles, 1).transpose(1, 2)
        mixed_BTHE = slot_cache.attend(
            self.number,
            qk_BHTE[:, : self.heads],
            qk_BHTE[:, self.heads :],
            qkv_BTHE[:, :, turned:].transpose(1, 2),
            self.scaling,
        )
        x_BTD = x_BTD + self.out(mixed_BTHE.flatten(2))
        gate_BTM, up_BTM = self.gate_up(normalise(self.before_mlp, x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down(silu(gate_BTM).mul_(up_BTM))


def normalise(norm: Any, x_BTD: torch.Tensor) -> torch.Tensor:
    """RMSNorm."""
    return rms_norm(x_BTD, norm.weight.shape, norm.weight, norm.variance_epsilon)
