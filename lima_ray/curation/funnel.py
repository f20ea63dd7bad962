"""Funnels: how many rows each filter left, and why the others went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lima_ray.curation.candidate import Part


@dataclass(frozen=True)
class Funnel:
    """What became of one source's rows."""

    source: str
    """Name in the recipe."""
    seen: int
    """Questions, articles or submissions in the dump."""
    dropped: Mapping[str, int]
    """Rows that went, by filter, in the order of the filters; 0 where none did."""
    chosen: int
    notes: Mapping[str, int]
    """What else was found, such as fabricated rows."""
    damage: Sequence[str] = ()
    """Where the dump is damaged and was read no further."""

    def steps(self) -> list[tuple[str, int, int]]:
        """Return each filter with the rows it dropped and the rows left after it."""
        left, steps = self.seen, []
        for name, count in self.dropped.items():
            left -= count
            steps.append((name, count, left))
        return steps


def count_funnel(
    source: str,
    filters: Sequence[str],
    parts: Sequence[Part],
    later: Mapping[str, int],
    chosen: int,
) -> Funnel:
    """Return a source's funnel.

    Args:
        source: its name in the recipe.
        filters: its own, in order.
        parts: what its stages wrote.
        later: rows dropped after the stages, by reason, in order.
        chosen: rows of the dataset.
    """
    counts = [part.counts for part in parts]
    dropped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for count in counts:
        dropped.update(count["dropped"])
        notes.update(count["notes"])
    seen = sum(count["seen"] for count in counts)
    ordered = {name: dropped.pop(name, 0) for name in filters} | dict(dropped) | dict(later)
    damage = tuple(dict.fromkeys(c["damage"] for c in counts if c.get("damage")))
    return Funnel(source, seen, ordered, chosen, dict(notes), damage)
