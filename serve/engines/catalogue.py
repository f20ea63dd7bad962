"""The models that may be served: their names, directories, and example prompts."""

from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path, resolve
from lima_ray.data.examples import read_examples
from lima_ray.records.lineage import check_base
from lima_ray.records.run import Run, model_name

SHOWN_EXAMPLES = 4
MAX_EXAMPLE_CHARACTERS = 200


def catalogue(model: str | dict[str, str]) -> dict[str, str]:
    """Return names and absolute paths of the models to serve, the default one first.

    A run (or the export in it) brings along its epochs, by `NAME-05`, and its base, by `base`.

    Args:
        model: a directory of a run or a model; several as `NAME=DIR,NAME=DIR`, or as a mapping.
    """
    if isinstance(model, str) and "=" in model:
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
        check_base(str(path))
    return {name: str(path) for name, path in paths.items()}


def model_at(reference: str) -> Path:
    """Return the directory of a model, which for a run is its export's."""
    path = resolve(reference) or output_path(Path(reference))
    if not path.is_dir():
        raise UserError(f"no model at {reference}: {path} is no directory")
    if (path / "recipe.yaml").exists():
        path = path / "export"
        if not path.is_dir():
            raise UserError(f"{reference} has no export yet; training has not ended")
    return path


def relatives(path: Path) -> dict[str, Path]:
    """Return the other models of an export's run: its kept epochs and its base."""
    run = Run(path.parent)
    if path.name != "export" or not run.recipe_file.exists():
        return {}
    found = {model_name(run.epoch_dir(e)): run.epoch_dir(e) for e in run.kept_epochs()}
    base = resolve(run.recipe().model.base)
    return found | ({"base": base} if base else {})


def examples_of(path: Path) -> list[str]:
    """Return test or dev prompts to try; never a run's training rows: anyone may read these."""
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
