"""The keys that the API asks for."""

from pathlib import Path

from lima_ray.errors import UserError


def read_keys(name: str | None) -> frozenset[str]:
    """The keys of a file, a line each; blank lines and `#` comments are passed over.

    Raises:
        UserError: the file has none.
    """
    if name is None:
        return frozenset()
    lines = (line.strip() for line in Path(name).read_text().splitlines())
    keys = frozenset(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UserError(f"{name} has no key; write one a line")
    return keys
