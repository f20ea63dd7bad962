"""The loss of packed rows, in training and of a saved model."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers.utils import logging

from lima_ray.data.packing import MicroBatch
from lima_ray.data.rows import Rows
from lima_ray.model import attention
from lima_ray.model.loading import read_pretrained


def forward_packed(model: Any, batch: MicroBatch, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward one packed micro-batch.

    Only the K positions whose next token is supervised reach the vocabulary's matrix.

    Args:
        batch: row numbers; none at all is a micro-batch that weighs nothing.

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


def load_packed(folder: Path, dtype: str | torch.dtype) -> tuple[Any, dict[str, Any]]:
    """Load a saved model for `forward_packed`, on a GPU if there is one, by `read_pretrained`."""
    gc.collect()
    attention.register()
    logging.disable_progress_bar()
    model, info = read_pretrained(str(folder), dtype, attention.PACKED)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), info
