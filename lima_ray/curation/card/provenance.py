"""What tells a dataset from others, and how it is made again, as a section of its card."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lima_ray.results.page.blocks import Block, Code, Inline, Preformatted, Table, text
from lima_ray.results.units import format_number

CARD = "data_card.json"


def provenance_blocks(facts: Mapping[str, Any]) -> Iterator[Block]:
    """Yield what tells this dataset from others, and how it is made again."""
    yield text(
        "The value of ", Code("recipe"), f" in {CARD} is the whole recipe: saved as recipe.yaml "
        "(JSON is YAML), it makes the same rows of the same dumps."
    )  # fmt: skip
    yield Preformatted(f"python -m lima_ray.curate recipe.yaml{flags_of(facts)}")
    file = facts["rows_file"]
    rows: list[list[Inline]] = [
        ["rows", Code(file["name"])],
        ["bytes", format_number(file["bytes"])],
        ["SHA-256", Code(file["sha256"])],
        ["recipe", Code(facts["recipe_digest"])],
        ["seed", str(facts["seed"])],
    ]
    rows += [[name, describe_value(value)] for name, value in facts["made"].items() if value]
    yield Table(["what", "value"], rows, text_columns=2)


def flags_of(facts: Mapping[str, Any]) -> str:
    """Return the flags that the command needs to make the same rows once more."""
    damaged = any(source["damage"] for source in facts["sources"].values())
    return " --too_few take" * bool(facts["made"].get("too_few")) + " --damaged keep" * damaged


def describe_value(value: Any) -> str:
    """Return a value of `made` in words."""
    match value:
        case dict():
            return "; ".join(f"{key} {describe_value(inner)}" for key, inner in value.items())
        case list() | tuple():
            return "; ".join(map(describe_value, value))
        case str():
            return value
        case _:
            return json.dumps(value, default=str)
