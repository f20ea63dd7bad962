"""One axis of a sweep: what varies along it, and how it is drawn and called."""

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from ray import tune
from ray.tune.search.sample import Domain

from lima_ray.config.paths import resolve
from lima_ray.config.sections import Section
from lima_ray.config.storage.bucket import is_url, parse_url


class Axis(Section):
    """What varies along one axis: exactly one of these."""

    grid: list[Any] | dict[str, Any] | None = None
    """Every one of these values."""
    choice: list[Any] | dict[str, Any] | None = None
    """One of these at random."""
    uniform: tuple[float, float] | None = None
    """A number between two."""
    loguniform: tuple[float, float] | None = None
    """A number between two, its logarithm uniform."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to below the second."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Require exactly one kind, which holds something."""
        given = [kind for kind, value in self if value is not None]
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(f"an axis has one of {kinds}; this has {', '.join(given) or 'none'}")
        if not getattr(self, given[0]):
            raise ValueError(f"{given[0]} is empty")
        ends = self.uniform or self.loguniform or self.randint
        if ends and not (ends[0] < ends[1] and (ends[0] > 0 or not self.loguniform)):
            raise ValueError(f"{given[0]} {list(ends)} needs a lower and a higher end")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind, value in self if value is not None)

    @property
    def listed(self) -> bool:
        """Whether its values are listed, not drawn between two ends."""
        return self.kind in ("grid", "choice")

    @property
    def values(self) -> dict[str, Any]:
        """The values of a grid or a choice by label."""
        listed = self.grid if self.grid is not None else self.choice
        if isinstance(listed, dict):
            return {str(name): value for name, value in listed.items()}
        brief = {label(v): v for v in listed or []}
        return brief if len(brief) == len(listed or []) else {str(v): v for v in listed or []}

    def domain(self) -> Domain:
        """Return what Tune draws from; labels where there are any."""
        if self.listed:
            return tune.choice(list(self.values))
        return getattr(tune, self.kind)(*getattr(self, self.kind))


def label(value: Any) -> str:
    """Write a value as tables show it: numbers short, files by their name."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and is_url(value):
        return Path(parse_url(value).name).stem
    if isinstance(value, str) and resolve(value) is not None:
        return Path(value).stem
    return str(value)


def short(axis: str) -> str:
    """Write an axis without its section: `learning rate`."""
    if axis == "data.train":
        return "data"
    return axis.rsplit(".", 1)[-1].replace("_", " ")
