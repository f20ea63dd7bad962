"""The models that may be served, by name."""

import shutil
from pathlib import Path

import pytest
from served import hosted

from benchmarks.local_servers.s3_server import s3_store
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage import whole_folders
from lima_ray.config.storage.changing_files import push
from lima_ray.config.storage.working_copy import CACHE, local_path, storage_folder
from lima_ray.records.run import Run
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


def test_a_run_in_a_bucket_is_served_from_there(
    brief_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "disk"))
    with s3_store() as store:
        run = Run(local_path(store.url("runs/one")))
        for folder in (run.export_dir, run.epoch_dir(5)):
            shutil.copytree(brief_dir, folder)
            whole_folders.publish(folder)
        Recipe(name="one").save(run.recipe_file)
        push(run.recipe_file)
        shutil.rmtree(storage_folder())
        found = catalogue(store.url("runs/one"))
        assert found == {
            "one": store.url("runs/one/export"),
            "one-05": store.url("runs/one/epochs/05"),
        }
        assert not list(storage_folder().rglob("*.safetensors"))  # a head need not hold them
        with pytest.raises(UserError, match=r"no model at s3://.*/runs/two"):
            catalogue(store.url("runs/two"))
        url = store.url("runs/one/export")
        asked = {
            "messages": [{"role": "user", "content": "the cat"}],
            "model": "one",
            "max_tokens": 4,
        }
        with hosted({"one": url}) as host, host.client() as client:
            answer = client.post("/v1/chat/completions", json=asked)
            assert answer.status_code == 200, answer.text
            assert len(list(storage_folder().rglob("*.safetensors"))) == 1
