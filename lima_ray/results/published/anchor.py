"""A published figure beside what our statistics make of the same data."""

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SLICES = Path(__file__).parent


@dataclass(frozen=True)
class Anchor:
    source: str
    figure: str
    got: float
    published: str
    """As it is printed, or the range in which it lies."""
    low: float
    """Ends between which `got` counts as equal."""
    high: float
    decimals: int

    @property
    def equal(self) -> bool:
        return self.low <= self.got <= self.high


@dataclass(frozen=True)
class Missing:
    """A source whose files are not there."""

    source: str
    file: Path


def printed(source: str, figure: str, got: float, published: float, decimals: int) -> Anchor:
    """Return a figure that is equal if it rounds to what was printed."""
    # A hair wider: what ends in a 5 may be rounded either way, and has no exact binary fraction.
    half = 0.5 * 10**-decimals * (1 + 1e-9)
    text = f"{published:.{decimals}f}"
    return Anchor(source, figure, got, text, published - half, published + half, decimals)


def bounded(source: str, figure: str, got: float, low: float, high: float, decimals: int) -> Anchor:
    """Return a figure that is equal if it lies within what was published."""
    text = f"{low:g} to {high:g}" if math.isfinite(low) else f"at most {high:g}"
    return Anchor(source, figure, got, text, low, high, decimals)


def read_rows(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV, gzipped or not; lines that begin with # are left out."""
    content = file.read_bytes()
    text = gzip.decompress(content) if file.suffix == ".gz" else content
    lines = text.decode("utf-8-sig").splitlines()
    yield from csv.DictReader(line for line in lines if not line.startswith("#"))
