"""What a window of a page shows, as the browser keeps it: a restarted server goes on with it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Place:
    """What a browser sends with every press; a page adds its own fields and says which fit."""

    @property
    def fits(self) -> bool:
        """Whether the fields, which anybody may have written, are of their kinds."""
        raise NotImplementedError

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a browser says; what is no place begins anew."""
        try:
            said: dict[str, Any] = json.loads(text)
            place = cls(**{name: said[name] for name in cls.__dataclass_fields__ if name in said})
        except (ValueError, TypeError, RecursionError):
            return cls()
        return place if place.fits else cls()

    def to_text(self) -> str:
        """Return what `parse` reads."""
        return json.dumps(asdict(self))
