"""Settings of files: by the names of any version, and as hashes know them."""

import pytest

from lima_ray.config.command_line import RecipeCommand, parse_command
from lima_ray.config.differences import hashed_sampling, with_current_names
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.sections import Sampling

OLD = {
    "temperature": 0.7,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "penalise_prompt": False,
    "max_tokens": 256,
    "seed": 0,
}
"""Sampling as versions wrote it in which one field was both limits."""
NEW = Sampling(context=256)
REFUSED = (
    r"; sampling\.max_tokens is now sampling\.context \(prompt and reply together\) and "
    r"sampling\.max_new_tokens \(the reply alone\)$"
)


def test_what_earlier_versions_wrote_is_read_by_todays_names() -> None:
    assert with_current_names({"sampling": OLD}) == {"sampling": NEW.model_dump()}
    there = Sampling(max_new_tokens=256).model_dump()
    asked = {"sampling": OLD, "endpoint": {"url": "http://h/v1"}}
    assert with_current_names(asked) == asked | {"sampling": there}
    sweep = {
        "sweep": {"set": {"sampling.max_tokens": 9}, "axes": {"sampling.max_tokens": {"grid": {}}}},
        "points": [{"values": {"sampling.max_tokens": 9}, "labels": {"sampling.max_tokens": "9"}}],
        "recipe": {"data": {"max_tokens": 64}, "sampling": OLD},
    }
    assert with_current_names(sweep) == {
        "sweep": {"set": {"sampling.context": 9}, "axes": {"sampling.context": {"grid": {}}}},
        "points": [{"values": {"sampling.context": 9}, "labels": {"sampling.context": "9"}}],
        "recipe": {"data": {"max_tokens": 64}, "sampling": NEW.model_dump()},
    }
    assert OLD["max_tokens"] == 256


def test_what_this_version_writes_is_read_as_it_is() -> None:
    tree = Recipe(sampling=Sampling(max_new_tokens=7)).model_dump()
    assert with_current_names(tree) == tree


def test_a_hash_of_sampling_is_that_of_earlier_versions() -> None:
    assert hashed_sampling(NEW) == OLD
    limited = NEW.model_copy(update={"max_new_tokens": 9})
    assert hashed_sampling(limited) == OLD | {"max_new_tokens": 9}


def test_an_earlier_name_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(UserError, match=rf"no flag --sampling\.max_tokens{REFUSED}"):
        parse_command(RecipeCommand, "prog", None, ["--sampling.max_tokens", "256"])
    named = rf"unknown key sampling\.max_tokens \(value 256\){REFUSED}"
    with pytest.raises(UserError, match=f"my_recipe.yaml: {named}"):
        validate_recipe({"sampling": {"max_tokens": 256}}, "my_recipe.yaml")
    with pytest.raises(UserError, match=named):
        Recipe().override({"sampling.max_tokens": 256})
