"""Duplicates: rows whose text equals an earlier row's, or nearly does.

deduplicator = Deduplicator(threshold=0.7)
for row in rows:
    found = deduplicator.earlier(row.id, row.text)  # ("near_duplicate", "beer/17")
"""

import re
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b

# Compiled, without type hints.
from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

from lima_ray.data.examples import normalise_text

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""Letters and digits, with the apostrophes inside: `don't` is one word."""
APOSTROPHES = str.maketrans("", "", "'’")
SHINGLE_WORDS = 5
PERMUTATIONS = 128
"""The estimate of a similarity s has a standard deviation of sqrt(s * (1 - s) / 128), 0.04."""
SEED = 1
RECALL = 0.99
"""Least share of pairs at the threshold that the index must compare."""


class Deduplicator:
    """The rows kept so far, and whether another one repeats one of them.

    Equal texts are found by a hash of the normalised text. Texts that are nearly equal are found by
    MinHash (Broder, 1997) of their sets of word 5-grams: an index of bands proposes earlier rows,
    and one counts where the estimated Jaccard similarity reaches the threshold, so a pair within
    some 0.1 of it may fall on either side. Texts of fewer than 5 words are compared as a whole
    alone. The same rows in the same order give the same answers in any process.

    A row takes about 4 KB: half a KB for its signature, the rest for its id and the bands.
    """

    def __init__(self, threshold: float) -> None:
        """Prepare an empty set of rows.

        Args:
            threshold: Jaccard similarity, above 0, from which a row is a near-duplicate; 1 finds
                equal texts alone.

        Raises:
            ValueError: it is not above 0 and at most 1.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold is {threshold}; it is above 0 and at most 1")
        self.threshold = threshold
        self.equal: dict[bytes, str] = {}
        self.rows: list[tuple[str, RMinHash]] = []
        self.index = RMinHashLSH(threshold, PERMUTATIONS, count_bands(threshold))

    def earlier(self, id: str, text: str) -> tuple[str, str] | None:
        """Return how a row repeats an earlier one, and that one's id; else remember the row.

        Args:
            id: the row's.
            text: what is compared, all of its turns.

        Returns:
            `duplicate` or `near_duplicate`, and the id of the most similar row kept so far.
        """
        digest = blake2b(normalise_text(text).encode("utf-8", "replace"), digest_size=16).digest()
        if digest in self.equal:
            return "duplicate", self.equal[digest]
        if self.threshold < 1:
            shingles = list(word_ngrams(split_words(text), SHINGLE_WORDS))
            if shingles:
                signature = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
                signature.update(shingles)
                near = self.most_similar(signature)
                if near is not None:
                    return "near_duplicate", near
                self.index.insert(len(self.rows), signature)
                self.rows.append((id, signature))
        self.equal[digest] = id
        return None

    def most_similar(self, signature: RMinHash) -> str | None:
        """Return the id of the most similar row at the threshold or above, the earliest of ties."""
        best, found = self.threshold, None
        for number in sorted(self.index.query(signature)):
            id, other = self.rows[number]
            similarity = signature.jaccard(other)
            if similarity > best or (found is None and similarity >= best):
                best, found = similarity, id
        return found


def count_bands(threshold: float) -> int:
    """Return the fewest bands that propose 99 % of the pairs at the threshold.

    Signatures of similarity s share a band of r values with probability s ** r, and one of b bands
    with 1 - (1 - s ** r) ** b. Few, long bands propose fewer pairs that are not similar.
    """
    bands = 1
    while bands < PERMUTATIONS:
        if 1 - (1 - threshold ** (PERMUTATIONS // bands)) ** bands >= RECALL:
            break
        bands *= 2
    return bands


def split_words(text: str) -> list[str]:
    """Return a text's words without case, punctuation and white space."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [word.translate(APOSTROPHES) for word in WORD.findall(plain)]


def word_ngrams(words: list[str], n: int) -> Iterator[str]:
    """Yield every run of n words."""
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])
