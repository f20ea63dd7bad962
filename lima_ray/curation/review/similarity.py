"""Near-repeats: the candidates whose texts are most like one's own."""

import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from scipy import sparse

BUCKETS = 2**18
MAX_WORDS = 500
"""Of a text, its first ones, that are compared."""
WAIT_S = 5.0
WORD = re.compile(r"\w+")
Embedder = Callable[[Sequence[str]], np.ndarray]
"""Returns a row for each text, (texts, size)."""


class Neighbours:
    """Vectors of all texts: cosine of tf-idf over words and pairs of words, or of embeddings."""

    def __init__(
        self, texts: Sequence[str], embedder: Embedder | None = None, wait_s: float = WAIT_S
    ) -> None:
        """Compute the vectors, in a thread, so that a review of many candidates begins at once.

        Args:
            texts: of all candidates.
            embedder: makes the vectors; without one they are tf-idf.
            wait_s: for them here.
        """
        self.vectors: Any = None

        def compute() -> None:
            self.vectors = tf_idf(texts) if embedder is None else unit(embedder(texts))

        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        thread.join(wait_s)

    def nearest(self, place: int, most: int = 3) -> list[tuple[int, float]] | None:
        """Return the places of the texts most like one, each with its cosine, best first.

        None while the vectors are being computed.
        """
        if self.vectors is None:
            return None
        row = self.vectors[[place]]
        likeness = self.vectors @ row.T
        cosines = np.asarray(likeness.todense() if sparse.issparse(likeness) else likeness).ravel()
        cosines[place] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(most, len(cosines) - 1)]
        return [(int(other), float(cosines[other])) for other in best]


def tf_idf(texts: Sequence[str]) -> sparse.csr_array:
    """Return unit rows of hashed words and pairs of words, (texts, BUCKETS).

    A word counts 1 + log of its occurrences, times log of the share of texts that hold it.
    """
    counts = [bucket_counts(text) for text in texts]
    starts = np.cumsum([0, *map(len, counts)])
    columns = np.fromiter((c for row in counts for c in row), np.int32, starts[-1])
    values = np.fromiter((v for row in counts for v in row.values()), np.float32, starts[-1])
    holding = np.bincount(columns, minlength=BUCKETS)
    weights = (1 + np.log(values)) * np.log((1 + len(texts)) / (1 + holding))[columns]
    lengths = np.sqrt(np.add.reduceat(np.append(weights, 0) ** 2, starts[:-1]))
    lengths[(np.diff(starts) == 0) | (lengths == 0)] = 1
    weights = weights / np.repeat(lengths, np.diff(starts))
    shape = (len(texts), BUCKETS)
    return sparse.csr_array((weights.astype(np.float32), columns, starts), shape)


def bucket_counts(text: str) -> Counter[int]:
    """Return how often each bucket's words and pairs of words occur."""
    words = [found[0] for found in islice(WORD.finditer(text.lower()), MAX_WORDS)]
    terms = Counter(words) + Counter(map(" ".join, pairwise(words)))
    found: Counter[int] = Counter()
    for term, count in terms.items():
        found[zlib.crc32(term.encode()) % BUCKETS] += count
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
