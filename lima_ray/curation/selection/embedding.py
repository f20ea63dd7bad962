"""Static embeddings of texts, offline: the mean of the token vectors that WordLlama's wheel ships.

vectors_ND = embed(["Why is the sky blue?", "How do I bake bread?"])
"""

import importlib
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import distribution
from typing import TypeAlias, cast

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from lima_ray.config.errors import UserError

Embedder: TypeAlias = Callable[[list[str]], np.ndarray]
"""Returns a vector for each text, (N, D)."""
STATIC = "wordllama"
WEIGHTS = "wordllama/weights/l2_supercat_256.safetensors"
TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
TEXTS_AT_ONCE = 256


def load_embedder(name: str) -> Embedder:
    """Return what makes vectors of texts.

    Args:
        name: `wordllama`, or a function as `module:function`.

    Raises:
        UserError: there is no such function.
    """
    if name == STATIC:
        return embed
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"embedder {name} is not there: {error}; it is {STATIC}, or module:function of a "
            "module that Python finds (PYTHONPATH=. for one in this folder)"
        ) from error
    if not callable(found):
        raise UserError(f"embedder {name} is no function")
    return cast(Embedder, found)


def embed(texts: list[str]) -> np.ndarray:
    """Return the texts' vectors of length 1, (N, 256) in float32.

    The dot product of two is their cosine similarity. A text without a token has the zero vector.
    """
    tokens_VD, tokenizer = load_static()
    vectors_ND = np.zeros((len(texts), tokens_VD.shape[1]), dtype=np.float32)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = tokenizer.encode_batch(
            texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False
        )
        for row, encoding in enumerate(batch, start):
            if encoding.ids:
                vectors_ND[row] = tokens_VD[encoding.ids].mean(axis=0, dtype=np.float32)
    return to_unit_length(vectors_ND)


def to_unit_length(vectors_ND: np.ndarray) -> np.ndarray:
    """Return vectors divided by their length; the zero vector stays."""
    length_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(length_N1 > 0, length_N1, 1)


@lru_cache
def load_static() -> tuple[np.ndarray, Tokenizer]:
    """Return the vectors of all tokens, (32000, 256) in float16, and the tokenizer."""
    # WordLlama's own loader looks for the tokenizer in another folder than the wheel has, and so
    # fetches it from the hub; and its import sets up the root logger.
    wheel = distribution("wordllama")
    tokenizer = Tokenizer.from_file(str(wheel.locate_file(TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return load_file(str(wheel.locate_file(WEIGHTS)))["embedding.weight"], tokenizer
