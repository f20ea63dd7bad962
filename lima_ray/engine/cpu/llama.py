"""A Llama written out for decoding in slots on a CPU: as `transformers` computes it, in half the
operations.

A decoding step of a small model is mostly overhead: `transformers` calls seven matrix products, two
rotations and a dozen of small operations a layer through as many Python frames. Here queries, keys
and values are one product, gate and up another, and all is done by the C of `kernels.py`,
or where there is no C compiler by PyTorch. Other families keep their own
forward.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import rms_norm
from transformers import LlamaForCausalLM

from lima_ray.engine.cpu import kernels
from lima_ray.engine.cpu.batch_invariant import silu
from lima_ray.engine.cpu.kv_slots import SlotCache
from lima_ray.engine.cpu.linear import linear
from lima_ray.layers import rotate

Angles = tuple[torch.Tensor, torch.Tensor]
"""Cos and sin of the rotary embedding."""

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles depend on the position alone."""


def is_plain_llama(model: nn.Module) -> bool:
    """Whether `SteadyLlama` computes what this model does."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config: Any = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    whole = model.model.rotary_emb.inv_freq.shape[0] * 2 == config.head_dim
    return config.hidden_act == "silu" and rope in STATIC_ROPE and whole


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
        self.any_batch = kernels.available()
        """Whether a batch of any size gives the same rows."""
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
        hidden_BTD = self.decoder(input_ids, position_ids, slot_cache, head=True)
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
        self.cos_CE = cos_1CE[0, :, :half].clone(memory_format=torch.contiguous_format)
        self.sin_CE = sin_1CE[0, :, :half].clone(memory_format=torch.contiguous_format)
        self.layers = nn.ModuleList()
        layer = KernelLayer if kernels.available() else Layer
        for number in range(len(model.model.layers)):
            self.layers.append(layer(model.model.layers[number], number, rows))
            model.model.layers[number] = nn.Identity()
        self.norm = model.model.norm

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        slot_cache: SlotCache,
        head: bool = False,
        **_: object,
    ) -> torch.Tensor | None:
        """Hidden states (B, T, D) for the head; without one, tokens only enter their slots."""
        x_BTD, left_BTD = self.embed(input_ids), None
        last: Any = self.layers[-1]
        angles = last.angles(self.cos_CE, self.sin_CE, position_ids)
        for layer in self.layers:
            left_BTD = layer(x_BTD, left_BTD, angles, slot_cache, head or layer is not last)
        return last.add_norm(x_BTD, left_BTD, self.norm) if head else None


class Layer(nn.Module):
    """Attention and MLP of one layer, by PyTorch."""

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
        self,
        x_BTD: torch.Tensor,
        left_BTD: torch.Tensor | None,
        angles: Angles,
        slot_cache: SlotCache,
        read_on: bool,
    ) -> torch.Tensor | None:
        """Read tokens into their slots and the residual stream.

        Args:
            x_BTD: the residual stream; `left_BTD` and what attention says are added in place.
            left_BTD: what the layer before leaves to be added.
            angles: see `angles`.
            slot_cache: aimed at the rows' slots.
            read_on: false where nobody needs more than the tokens' keys and values.

        Returns:
            what the next layer adds.
        """
        qkv_BTF = self.qkv(self.add_norm(x_BTD, left_BTD, self.before_attention))
        mixed_BTF = self.mix(qkv_BTF, angles, slot_cache, read_on)
        if mixed_BTF is None:
            return None
        normed_BTD = self.add_norm(x_BTD, self.out(mixed_BTF), self.before_mlp)
        return self.down(self.silu_mul(self.gate_up(normed_BTD)))

    def angles(
        self, cos_CE: torch.Tensor, sin_CE: torch.Tensor, position_ids: torch.Tensor
    ) -> Angles:
        """What `mix` needs of the cos and sin of every position."""
        return cos_CE[position_ids, None], sin_CE[position_ids, None]

    def add_norm(
        self, x_BTD: torch.Tensor, left_BTD: torch.Tensor | None, norm: Any
    ) -> torch.Tensor:
        """Add to the residual stream in place, and return its RMSNorm."""
        if left_BTD is not None:
            x_BTD.add_(left_BTD)
        return rms_norm(x_BTD, norm.weight.shape, norm.weight, norm.variance_epsilon)

    def mix(
        self, qkv_BTF: torch.Tensor, angles: Angles, slot_cache: SlotCache, read_on: bool
    ) -> torch.Tensor | None:
        """Put keys and values into their slots; attention (B, T, H · E) where it is read on."""
        qkv_BTHE = qkv_BTF.unflatten(2, (-1, self.width))
        turned = self.heads + self.kv_heads
        qk_BHTE = rotate(qkv_BTHE[:, :, :turned], *angles, 1).transpose(1, 2)
        query_BHTE, key_BGTE = qk_BHTE.split((self.heads, self.kv_heads), dim=1)
        value_BGTE = qkv_BTHE[:, :, turned:].transpose(1, 2)
        if not read_on:
            slot_cache.store(self.number, key_BGTE, value_BGTE)
            return None
        mixed_BTHE = slot_cache.attend(self.number, query_BHTE, key_BGTE, value_BGTE, self.scaling)
        return mixed_BTHE.flatten(2)

    def silu_mul(self, gate_up_BTM: torch.Tensor) -> torch.Tensor:
        """silu(gate) · up of the two side by side."""
        gate_BTM, up_BTM = gate_up_BTM.chunk(2, dim=-1)
        return silu(gate_BTM).mul_(up_BTM)


class KernelLayer(Layer):
    """The same by our kernels."""

    def angles(
        self, cos_CE: torch.Tensor, sin_CE: torch.Tensor, position_ids: torch.Tensor
    ) -> Angles:
        """All of them: the kernel looks up its own."""
        return cos_CE, sin_CE

    def add_norm(
        self, x_BTD: torch.Tensor, left_BTD: torch.Tensor | None, norm: Any
    ) -> torch.Tensor:
        """As `Layer.add_norm`."""
        return kernels.add_norm(x_BTD, left_BTD, norm.weight, norm.variance_epsilon)

    def mix(
        self, qkv_BTF: torch.Tensor, angles: Angles, slot_cache: SlotCache, read_on: bool
    ) -> torch.Tensor | None:
        """As `Layer.mix`."""
        batch, tokens, _ = qkv_BTF.shape
        cache = slot_cache.layer(self.number, self.kv_heads, self.width, qkv_BTF)
        rows = slot_cache.slots_B, slot_cache.starts_B
        query_RTHE = kernels.turn(qkv_BTF, angles, *rows, cache, self.heads)
        if not read_on:
            return None
        if tokens > 1:
            ((slot, start),) = slot_cache.rows
            return kernels.attend_prompt(query_RTHE, cache, slot, start, self.scaling)
        order_R, read = slot_cache.order_B, slot_cache.tokens
        return kernels.attend(query_RTHE, cache, *rows, order_R, read, self.scaling, batch)

    def silu_mul(self, gate_up_BTM: torch.Tensor) -> torch.Tensor:
        """As `Layer.silu_mul`."""
        return kernels.silu_mul(gate_up_BTM)
