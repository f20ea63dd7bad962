"""The models that may be served: their names, directories, and example prompts."""

from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path, resolve
from lima_ray.config.storage.bucket import is_url, list_objects
from lima_ray.config.storage.changing_files import pull
from lima_ray.config.storage.whole_folders import manifest_file, read_manifest
from lima_ray.config.storage.working_copy import local_path, location, reference
from lima_ray.data.examples import read_examples
from lima_ray.records.lineage import check_base
from lima_ray.records.run import Run, model_name

SHOWN_EXAMPLES = 4
MAX_EXAMPLE_CHARACTERS = 200


def catalogue(model: str | dict[str, str]) -> dict[str, str]:
    """Return names of the models to serve, the default one first, and their paths or URLs.

    A run (or the export in it) brings along its epochs, by `NAME-05`, and its base, by `base`.

    Args:
        model: a directory of a run or a model, or a bucket's URL of one; several as
            `NAME=DIR,NAME=DIR`, or as a mapping.
    """
    if isinstance(model, str) and "=" in model and not is_url(model):
        pairs = [pair.partition("=") for pair in model.split(",")]
        model = {name.strip(): path.strip() for name, _, path in pairs}
    if isinstance(model, dict):
        if not model or not all(model) or not all(model.values()):
            raise UserError(f"model is {model!r}; several models are given as NAME=DIR,NAME=DIR")
        paths = {name: model_at(path) for name, path in model.items()}
    else:
        path = model_at(model)
        paths = {model_name(path): path} | relatives(path)
    for path in paths.values():
        check_model(path)
    return {name: reference(path) for name, path in paths.items()}


def model_at(given: str) -> Path:
    """Return the directory of a model, of a run its export's; what is in a bucket stays there."""
    if is_url(given):
        path = local_path(given, "read")
        pull(path / "recipe.yaml")
        export = path / "export"
        return export if (path / "recipe.yaml").exists() else path
    path = resolve(given) or output_path(Path(given))
    if not path.is_dir():
        raise UserError(f"no model at {given}: {path} is no directory")
    if (path / "recipe.yaml").exists():
        path = path / "export"
        if not path.is_dir():
            raise UserError(f"{given} has no export yet; training has not ended")
    return path


def check_model(path: Path) -> None:
    """Refuse what is no model; of one in a bucket, by the names of its files alone."""
    if (at := location(path)) is None:
        check_base(str(path))
        return
    pull(manifest_file(path))
    made = read_manifest(path)
    names = made["files"] if made else list_objects(at)
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"no model at {at}: there is no config.json with weights in *.safetensors")


def fetched_model(given: str) -> str:
    """Return the path of a model on this machine, where what a bucket holds is fetched."""
    return str(resolve(given) or given)


def relatives(path: Path) -> dict[str, Path]:
    """Return the other models of an export's run: its kept epochs and its base."""
    run = Run(path.parent)
    run.refresh()
    if path.name != "export" or not run.recipe_file.exists():
        return {}
    found = {model_name(run.epoch_dir(e)): run.epoch_dir(e) for e in run.kept_epochs()}
    base = run.recipe().model.base
    there = local_path(base, "read") if is_url(base) else resolve(base)
    return found | ({"base": there} if there else {})


def examples_of(given: str | Path) -> list[str]:
    """Return test or dev prompts to try; never a run's training rows: anyone may read these."""
    path = local_path(str(given), "read") if is_url(str(given)) else Path(given)
    for parent in path.parents[:2]:
        pull(parent / "recipe.yaml")
    run = next((Run(p) for p in path.parents[:2] if Run(p).recipe_file.exists()), None)
    if run is None:
        return []
    data = run.recipe().data
    prompts = data.test or data.dev
    if prompts is None:
        return []
    try:
        rows = read_examples(prompts, "test", dialogues=False)
    except UserError:  # the rows need not be where the model is served
        return []
    short = [row for row in rows if len(row.prompt) <= MAX_EXAMPLE_CHARACTERS]
    by_source = {row.source: row.prompt for row in reversed(short)}
    prompts = [*reversed(by_source.values()), *(row.prompt for row in short)]
    return list(dict.fromkeys(prompts))[:SHOWN_EXAMPLES]
