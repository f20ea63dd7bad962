"""Read a sweep file: which recipes a study trains, how often, and what is measured of them.

    recipe: miniature
    set:                                   # holds for every point
      optim.epochs: 10
    axes:
      model.residual_dropout: {grid: [0, 0.1, 0.3]}
      optim.learning_rate: {loguniform: [1.0e-4, 1.0e-3]}
    points: 8                              # draws of the axes that are no grid
    seeds: [0, 1, 2]

An axis is a dotted name of the recipe, data included. Its values may have labels,
`{filtered: curated.jsonl, raw: unfiltered.jsonl}`; an axis of another name has labels whose values
are mappings of dotted names, to change several fields at once. `files` gives data files short
names. A `setting` (a file, or a name in `tune/settings`) holds what a sweep says the same on one
base and its data, so that another base is one line.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from lima_ray.config.differences import flatten
from lima_ray.config.errors import UserError, describe_invalid
from lima_ray.config.flags import did_you_mean
from lima_ray.config.loading import DEFAULT_RECIPE, read_yaml
from lima_ray.config.loading import load_recipe as load_recipe
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Section
from tune.axis import Axis, label, short

HERE = Path(__file__).parent
SWEEPS, SETTINGS = HERE / "sweeps", HERE / "settings"
DATA_FIELDS = ("data.train", "data.added", "data.dev", "data.test", "data.heldout")
"""Fields that a name of `files` may stand in."""
WITHOUT_EFFECT = ("cluster.", "log.")
ONLY = "the recipe"
"""Name of the only point of a sweep without axes."""
OURS = ("name", "runs_dir", "seed")
"""Fields that the sweep itself gives every training."""


class Expectation(Section):
    """A claim that the points can show: one group of them is better than another, or equal."""

    better: dict[str, Any] = Field(default_factory=dict)
    """Axis labels of the points that should be better."""
    than: dict[str, Any] = Field(default_factory=dict)
    """Axis labels of those they are compared with, paired over the axes not named."""
    within: float | None = None
    """Claim instead that the two differ by no more than this."""


class Sweep(Section):
    """A study over a recipe."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")
    """Folder of the sweep under `sweeps/` of the recipe's runs_dir; empty takes the file's name."""
    setting: str = ""
    """File, or name in tune/settings, of the fields that this file does not hold itself."""
    recipe: str = DEFAULT_RECIPE
    """Recipe that every training starts from: a file, or the name of one that ships."""
    files: dict[str, str] = Field(default_factory=dict)
    """Short names of data files."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted fields of the recipe that differ in the whole sweep."""
    axes: dict[str, Axis] = Field(default_factory=dict)
    """What varies."""
    points: int = Field(default=1, ge=1)
    """Draws for each point of the grid, where axes are random; or Optuna's budget."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """Every point is trained once with each."""
    search: Literal["random", "optuna"] = "random"
    """Who draws random axes."""
    asha: bool = False
    """Stop points whose early epochs reply worse than most (asynchronous successive halving)."""
    asha_from_epoch: int = Field(default=2, ge=1)
    """First epoch that ASHA compares."""
    asha_keep: int = Field(default=3, ge=2)
    """ASHA goes on with one point of so many at each rung."""
    metric: Literal[
        "grade", "excellent", "accepted", "stopped", "safe", "dialogues", "win_rate", "perplexity"
    ] = "grade"
    """What the report compares: mean grade (1 to 6); the share of replies that are excellent,
    accepted (excellent or pass), stopped, or safe; or of dialogues accepted in every turn.
    win_rate (0 to 1) compares each reply with a reference's: 1 where the judge prefers it in both
    orders, 0 where it prefers the reference's in both, and 0.5 else.
    perplexity needs no judge: it compares the loss on dialogues never trained on (`prompts`, or the
    recipe's data.heldout), which does not track the quality of replies."""
    prompts: str = ""
    """Prompts that measure: a name of `files` or a path; empty takes the recipe's data.test, and
    for perplexity its data.heldout."""
    reference: str | None = None
    """Replies to those prompts that replies are compared with, by win_rate: a name of `files` or a
    path; none takes the recipe's select.reference."""
    group: str = ""
    """Measure only the prompts of this group."""
    samples: int = Field(default=1, ge=1)
    """Replies measured for each prompt; the paper takes 5."""
    every_epoch: bool = False
    """Compare the epochs of a training by their dev replies, instead of points."""
    concurrent: int = Field(default=0, ge=0)
    """Trainings at once; 0 takes as many as the cluster has room for."""
    retries: int = Field(default=1, ge=0)
    """How often a training that failed is tried again."""
    keep: Literal["all", "chosen", "none"] = "chosen"
    """Weights kept of a finished training: every epoch's, the chosen one's, or none."""
    claim: str = ""
    """What the paper says."""
    paper: dict[str, Any] = Field(default_factory=dict)
    """The paper's figures: of a label, a number, or several by name."""
    expect: Expectation | None = None
    """The claim as a comparison."""

    @property
    def random(self) -> bool:
        """Whether some axis is drawn."""
        return any(axis.kind != "grid" for axis in self.axes.values())

    def file(self, reference: Any) -> Any:
        """Return a data file by its short name, or what was given."""
        return self.files.get(reference, reference) if isinstance(reference, str) else reference


@dataclass(frozen=True)
class Point:
    """One combination of values, a value on each axis."""

    number: int
    labels: dict[str, str]
    """Label of the value on each axis."""
    values: dict[str, Any] = field(hash=False)
    """Dotted fields of the recipe."""

    @property
    def name(self) -> str:
        """Name in tables."""
        return ", ".join(f"{short(axis)} {text}" for axis, text in self.labels.items()) or ONLY


def load(reference: str, setting: str = "") -> Sweep:
    """Read a sweep by file or name in `tune/sweeps`, `setting` replacing its own; name bad keys."""
    path, tree = read_yaml(reference, SWEEPS, "sweep")
    tree |= {"setting": setting} if setting else {}
    beside(path, tree, "setting", "recipe")
    if tree.get("setting"):
        file, base = read_yaml(str(tree["setting"]), SETTINGS, "setting")
        beside(file, base, "recipe")
        wrong = sorted(set(base) - {"recipe", "files", "set", "metric", "studies"})
        if wrong:
            raise UserError(
                f"the setting {tree['setting']} holds {', '.join(wrong)}; it may hold recipe, "
                "files, set, metric and studies"
            )
        studies = base.pop("studies", None) or {}
        shipped = studies.get(path.stem) or {} if path.parent == SWEEPS else {}
        if "metric" in base:  # a judge that only grades has no other
            tree = tree | {"metric": base["metric"]}
        both = {key: (base.get(key) or {}) | (tree.get(key) or {}) for key in ("files", "set")}
        tree = base | tree | both | shipped
    return validated(tree if tree.get("name") else tree | {"name": path.stem}, reference)


def beside(file: Path, tree: dict[str, Any], *keys: str) -> None:
    """Replace names of files that stand beside the file that names them by their paths."""
    for key in keys:
        named_there = file.parent / str(tree.get(key, ""))
        if tree.get(key) and not Path(tree[key]).is_file() and named_there.is_file():
            tree[key] = str(named_there)


def validated(tree: dict[str, Any], origin: str) -> Sweep:
    """Build a sweep from plain values; an error names `origin` and every wrong key or value."""
    try:
        return Sweep.model_validate(tree)
    except ValidationError as error:
        raise UserError(describe_invalid(error, origin, unknown_key)) from error


def unknown_key(name: str, value: Any) -> str:
    """Say that a sweep has no such key, and which one is nearest."""
    *section, key = name.split(".")
    keys = list((Axis if section[:1] == ["axes"] else Sweep).model_fields)
    return f"{name} is {value!r}: unknown key{did_you_mean(key, keys)}"


def base_recipe(sweep: Sweep) -> Recipe:
    """Return the recipe that all points share; refuse where `set` does not fit it."""
    return load_recipe(sweep.recipe).override(resolved(sweep, sweep.set))


def check_names(sweep: Sweep) -> None:
    """Refuse names that no recipe has, with the nearest right ones, before points are made."""
    fields = flatten(Recipe().model_dump())
    problems = []
    for axis, spec in sweep.axes.items():
        values: list[Any] = [*spec.values.values()] if spec.listed else [None]
        if axis in fields:
            names = [axis]
        elif all(isinstance(value, dict) for value in values):
            names = list(dict.fromkeys(name for value in values for name in value))
        else:
            problems.append(f"axes: unknown field {axis}{did_you_mean(axis, list(fields))}")
            continue
        for name in names:
            if name not in fields:
                problem = f"unknown field {name}{did_you_mean(name, list(fields))}"
            elif name in OURS:
                problem = f"{name} cannot vary; the sweep gives it itself (see seeds)"
            elif name.startswith(WITHOUT_EFFECT):
                problem = f"{name} changes no result, so it cannot vary; put it in `set`"
            else:
                continue
            problems.append(f"axes.{axis}: {problem}")
    problems += unmatched(sweep)
    problems += [
        f"set: unknown field {name}{did_you_mean(name, list(fields))}"
        for name in sweep.set
        if name not in fields
    ]
    if problems:
        raise UserError("\n  ".join([f"{sweep.name}: {problem}" for problem in problems]))


def unmatched(sweep: Sweep) -> list[str]:
    """List what `expect` names that no point has."""
    problems = []
    expect = sweep.expect or Expectation()
    for axis, value in (*expect.better.items(), *expect.than.items()):
        spec = sweep.axes.get(axis)
        if spec is None:
            problems.append(
                f"expect: there is no axis {axis}{did_you_mean(axis, list(sweep.axes))}"
            )
        elif spec.listed and not {str(value), label(value)} & {*spec.values}:
            problems.append(f"expect: {axis} has no {value!r}, only {', '.join(spec.values)}")
    return problems


def points(sweep: Sweep) -> list[Point]:
    """Return a sweep's points, its grid times its draws; the same file gives the same points."""
    grid = {name: axis for name, axis in sweep.axes.items() if axis.kind == "grid"}
    drawn = {name: axis.domain() for name, axis in sweep.axes.items() if axis.kind != "grid"}
    generator = np.random.RandomState(0)
    made = []
    for _ in range(sweep.points if drawn else 1):
        for labels in itertools.product(*(axis.values for axis in grid.values())):
            chosen = dict(zip(grid, labels, strict=True))
            for name, domain in drawn.items():
                chosen[name] = domain.sample(random_state=generator)
            made.append(point(sweep, len(made), chosen))
    return made


def point(sweep: Sweep, number: int, chosen: dict[str, Any]) -> Point:
    """Make the point of a label (of a grid or choice) or a number on each axis."""
    labels, values = {}, {}
    for name, axis in sweep.axes.items():
        value = chosen[name]
        if axis.listed:
            labels[name], value = value, axis.values[value]
        else:
            labels[name] = label(value)
        values |= resolved(sweep, value if isinstance(value, dict) else {name: value})
    return Point(number, labels, values)


def resolved(sweep: Sweep, fields: dict[str, Any]) -> dict[str, Any]:
    """Replace the short names of data files in fields of the recipe."""
    return {k: sweep.file(value) if k in DATA_FIELDS else value for k, value in fields.items()}
