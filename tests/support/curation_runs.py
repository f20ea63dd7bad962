"""Runs of one source of a recipe in this process, and what came of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lima_ray.curation.candidate import Candidate, Part
from lima_ray.curation.funnel import Funnel, count_funnel
from lima_ray.curation.pipeline import Damaged, run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.registry import make_reader


class SourceRun:
    """A source's parts after all stages."""

    def __init__(self, inputs: Path, damaged: Damaged = "stop", seed: int = 0, **section: Any):
        self.curation = Curation(inputs=str(inputs), seed=seed, sources={"it": section})  # pyright: ignore[reportArgumentType]  # pydantic makes the section
        work = inputs.parent / f"{inputs.name}-work"
        self.parts: Sequence[Part] = run_stages(self.curation, work, 0, damaged)["it"]

    @property
    def candidates(self) -> list[Candidate]:
        """Every candidate, in order."""
        return [candidate for part in self.parts for candidate in part.candidates()]

    @property
    def dropped(self) -> dict[str, str]:
        """Reason of each dropped row by its id."""
        rows = [row for part in self.parts for row in part.read("dropped").to_pylist()]
        return {row["id"]: row["reason"] for row in rows}

    @property
    def funnel(self) -> Funnel:
        """Its funnel before anything is chosen."""
        reader = make_reader(self.curation.sources["it"], self.curation)
        return count_funnel("it", reader.filters, self.parts, {}, len(self.candidates))

    def check_funnel(self) -> None:
        """Require that every row seen is a candidate or was dropped for one reason."""
        steps = self.funnel.steps()
        left = steps[-1][2] if steps else self.funnel.seen
        assert left == len(self.candidates)
