"""The recipe: every choice of a run in one frozen, typed model."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lima_ray.config import sections
from lima_ray.config.differences import flatten
from lima_ray.config.errors import UserError, describe_invalid, dotted
from lima_ray.config.flags import did_you_mean
from lima_ray.config.paths import stored_path
from lima_ray.config.sections import Section

FREE_TO_CHANGE = ("train.tokens_per_micro_batch", "train.activation_checkpointing", "data.heldout")
"""Fields that a run may change when it goes on: they change rounding alone, or no weights."""
TYPES = ("int", "bool", "constrained-int", "literal['auto']")
DEFAULT_BUDGET = int(sections.Train.model_fields["tokens_per_micro_batch"].default)


class Recipe(Section):
    """Every choice of a run."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")
    """Name of the run, a folder of runs_dir; empty takes the recipe file's name."""
    runs_dir: str = "runs"
    """Folder of all runs, or a place in a bucket (s3://, gs://); on a cluster, storage that every
    node sees."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of data order, dropout and new weights."""
    data: sections.Data = sections.Data()
    model: sections.Model = sections.Model()
    optim: sections.Optim = sections.Optim()
    train: sections.Train = sections.Train()
    checkpoint: sections.Checkpoint = sections.Checkpoint()
    cluster: sections.Cluster = sections.Cluster()
    sampling: sections.Sampling = sections.Sampling()
    select: sections.Select = sections.Select()
    log: sections.Log = sections.Log()

    @field_validator("runs_dir")
    @classmethod
    def _a_folder(cls, folder: str) -> str:
        try:
            stored_path(folder)
        except UserError as error:
            raise ValueError(str(error)) from error
        return folder

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        problems = {
            f"train.tokens_per_micro_batch is {self.train.tokens_per_micro_batch}, less than "
            f"data.max_tokens {self.data.max_tokens}: the longest row would fit no micro-batch; "
            "raise the one or lower the other": self.token_budget < self.data.max_tokens,
            f"optim.final_learning_rate {self.optim.final_learning_rate} is above "
            f"optim.learning_rate {self.optim.learning_rate}; the rate only falls": (
                self.optim.last_learning_rate > self.optim.learning_rate
            ),
            "train.offload_optimizer needs train.zero_stage 1, 2 or 3, not 0": (
                self.train.offload_optimizer is True and self.train.zero_stage == 0
            ),
            "train.precision bf16 needs train.zero_stage 1, 2 or 3: 0 keeps no fp32 weights": (
                self.train.precision == "bf16" and self.train.zero_stage == 0
            ),
            f"train.offload_params needs train.zero_stage 3, not {self.train.zero_stage}": (
                self.train.offload_params is True and self.train.zero_stage != 3
            ),
            f"cluster.min_workers {self.cluster.min_workers} is above cluster.workers "
            f"{self.cluster.workers}": (self.cluster.min_workers or 1) > self.cluster.workers,
            "select.input_usd and select.output_usd go together: one price alone tells no cost": (
                (self.select.input_usd is None) != (self.select.output_usd is None)
            ),
            f"data.added_rows is {self.data.added_rows}, but data.added names no rows": (
                bool(self.data.added_rows) and self.data.added is None
            ),
            f"optim.batch_examples {self.optim.batch_examples} is smaller than cluster.workers "
            f"{self.cluster.workers}: some workers would have no example in a step; "
            "use fewer workers": self.optim.batch_examples < self.cluster.workers,
        }
        for problem, found in problems.items():
            if found:
                raise ValueError(problem)
        return self

    @property
    def run_dir(self) -> Path:
        """Absolute path of this run's directory, or of its working copy of a bucket."""
        return stored_path(self.runs_dir) / self.name

    @property
    def token_budget(self) -> int:
        """Tokens of a micro-batch; of an unresolved `auto` the default, or the longest row."""
        asked = self.train.tokens_per_micro_batch
        if asked == "auto":
            return max(DEFAULT_BUDGET, self.data.max_tokens)
        return asked

    def unresolved(self) -> list[str]:
        """Return the fields of `train` that are `auto` and chosen before a run starts."""
        return [
            f"train.{name}" for name, value in self.train if value == "auto" and name != "precision"
        ]

    def is_resolved(self) -> bool:
        """Return whether it can train; workers themselves resolve the ZeRO stage."""
        return not set(self.unresolved()) - {"train.zero_stage"}

    def override(self, point: dict[str, Any]) -> "Recipe":
        """Return a copy with dotted names replaced, such as `{"optim.learning_rate": 3e-5}`."""
        tree = self.model_dump()
        for name, value in point.items():
            *parents, field = name.split(".")
            branch = tree
            for section in parents:
                branch = branch.get(section) if isinstance(branch, dict) else None
            if not isinstance(branch, dict) or field not in branch:
                raise UserError(describe_unknown_key(name, value))
            branch[field] = value
        return validate_recipe(tree)

    def to_yaml(self) -> str:
        """Return the resolved recipe, every field of it, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def save(self, path: Path) -> None:
        path.write_text(self.to_yaml(), encoding="utf-8")

    def identity(self) -> dict[str, Any]:
        """Return the fields by dotted name that decide the weights and so may not change."""
        fields = flatten(self.model_dump(include={"seed", "data", "model", "optim", "train"}))
        return {name: value for name, value in fields.items() if name not in FREE_TO_CHANGE}

    def hash(self) -> str:
        """Return the first 12 hex digits of the SHA-256 of `identity()`."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def validate_recipe(tree: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Build a Recipe of plain values; an error names `origin`, every wrong key, and the nearest."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(describe_errors(error, origin)) from error


def describe_errors(error: ValidationError, origin: str) -> str:
    """Say what is wrong with each field, a line each, and the nearest right name."""
    return describe_invalid(error, origin, describe_unknown_key, field_name)


def field_name(keys: Sequence[int | str]) -> str:
    """Return the dotted name of a field; pydantic adds the type it tried, where it has several."""
    return dotted([key for key in keys if key not in TYPES])


def describe_unknown_key(name: str, value: object) -> str:
    tree = Recipe().model_dump()
    return f"unknown key {name} (value {value!r}){did_you_mean(name, [*flatten(tree), *tree])}"
