"""The models that may be served, by name."""

import shutil
from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from serve.engines.catalogue import catalogue, examples_of


def test_a_run_brings_its_epochs_and_its_base(
    recipe: Recipe, base_dir: Path, brief_dir: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "tiny"
    run_dir.mkdir()
    recipe.save(run_dir / "recipe.yaml")
    with pytest.raises(UserError, match="has no export yet"):
        catalogue(str(run_dir))
    shutil.copytree(brief_dir, run_dir / "export")
    for epoch in ("01", "02"):
        shutil.copytree(brief_dir, run_dir / "epochs" / epoch)
    found = catalogue(str(run_dir))
    assert next(iter(found)) == "tiny" and found == catalogue(str(run_dir / "export"))
    assert found["base"] == str(base_dir) and {"tiny-01", "tiny-02"} < set(found)


def test_examples_are_never_training_rows(recipe: Recipe, brief_dir: Path, tmp_path: Path) -> None:
    run_dir, prompts = tmp_path / "tiny", tmp_path / "dev.jsonl"
    run_dir.mkdir()
    prompts.write_text('{"conversations": ["why does the moon read"]}\n')
    shutil.copytree(brief_dir, run_dir / "export")
    recipe.save(run_dir / "recipe.yaml")
    assert examples_of(run_dir / "export") == []
    for name in ("dev", "test"):
        recipe.override({f"data.{name}": str(prompts)}).save(run_dir / "recipe.yaml")
        assert examples_of(run_dir / "export") == ["why does the moon read"]


def test_several_models_are_named(brief_dir: Path, base_dir: Path) -> None:
    expected = {"aligned": str(brief_dir), "base": str(base_dir)}
    assert catalogue(f"aligned={brief_dir},base={base_dir}") == expected
    assert catalogue(expected) == expected
