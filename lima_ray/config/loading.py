"""Recipes and other YAML files, read by path or by the name of one that ships."""

from pathlib import Path
from typing import Any

import yaml

from lima_ray.config.errors import UserError
from lima_ray.config.flags import did_you_mean
from lima_ray.config.paths import RECIPES, absolute_reference
from lima_ray.config.recipe import Recipe, validate_recipe

DEFAULT_RECIPE = "miniature"


def load_recipe(reference: str = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe by file or shipped name; refuse a wrong one, naming every bad key and value."""
    path, tree = read_yaml(reference, RECIPES, "recipe", may_be_empty=True)
    return validate_recipe(tree if tree.get("name") else tree | {"name": path.stem}, str(path))


def read_yaml(
    reference: str, shipped: Path, what: str, may_be_empty: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Return a YAML mapping, by file or by the name of one in a folder, and where it stands.

    Args:
        what: it is, such as `recipe`, for messages.
        may_be_empty: an empty file is an empty mapping.
    """
    path = Path(reference)
    if not path.is_file():
        path = shipped / f"{reference}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in shipped.glob("*.yaml"))
        raise UserError(
            f"no {what} {reference!r}: no such file, and the {what}s that ship are "
            f"{', '.join(names)}{did_you_mean(reference, names)}"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    tree = {} if tree is None and may_be_empty else tree
    if tree is None:
        raise UserError(f"{path} is empty; a {what} is a mapping of sections")
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds a {type(tree).__name__}; a {what} is a mapping of sections")
    return path, tree


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with base and files named as processes in other directories find them."""
    data = recipe.data
    named = {"model.base": recipe.model.base, "data.dev": data.dev, "data.heldout": data.heldout}
    named |= {"select.reference": recipe.select.reference}
    return recipe.override(
        {name: value and absolute_reference(value) for name, value in named.items()}
    )
