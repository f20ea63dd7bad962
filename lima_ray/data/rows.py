"""Encoded rows: token ids and loss masks end to end, and the file that workers read them from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file


@dataclass(frozen=True)
class Rows:
    """R encoded rows, their N tokens end to end."""

    ids_N: np.ndarray
    """Token ids, int32."""
    mask_N: np.ndarray
    """True for the tokens whose prediction is learned."""
    starts_R1: np.ndarray
    """Where each row starts in the N tokens, and N itself at the end."""
    cut_R: np.ndarray
    """True for rows that were longer than `max_tokens`."""

    def __len__(self) -> int:
        return len(self.starts_R1) - 1

    @property
    def lengths_R(self) -> np.ndarray:
        return np.diff(self.starts_R1)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self.starts_R1[number], self.starts_R1[number + 1])
        return self.ids_N[span], self.mask_N[span]

    @cached_property
    def supervised_R(self) -> np.ndarray:
        """Supervised tokens of each row; a row's first token has no prediction and never counts."""
        return np.add.reduceat(self.mask_N.astype(np.int64), self.starts_R1[:-1])

    def save(self, path: Path) -> None:
        save_file(
            {
                "ids": self.ids_N,
                "mask": self.mask_N.astype(np.uint8),
                "starts": self.starts_R1,
                "cut": self.cut_R.astype(np.uint8),
            },
            path,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        t = load_file(path)
        return cls(t["ids"], t["mask"].astype(bool), t["starts"], t["cut"].astype(bool))
