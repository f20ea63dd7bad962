"""The recipe: every choice of a run in one frozen, typed model.

A recipe file (YAML) holds only what differs from the defaults below, which are the values of the
paper (LIMA section 3). Every step reads it the same way:

    python -m lima_ray.train [RECIPE] [--section.field value ...]

RECIPE is a file or the name of a recipe in `lima_ray/recipes`; without one it is the miniature.
"""

import hashlib
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lima_ray.config import flags
from lima_ray.config.errors import UserError
from lima_ray.config.flags import nearest

PACKAGE = Path(__file__).parent
RECIPES = PACKAGE / "recipes"
DEFAULT_RECIPE = "miniature"
POSITIONAL = (
    "RECIPE, first, is a file or one that ships: "
    f"{', '.join(sorted(path.stem for path in RECIPES.glob('*.yaml')))}; without it, "
    f"{DEFAULT_RECIPE}."
)
FINAL_FRACTION = 10
"""How much smaller the last step's learning rate is than the first's (LIMA section 3)."""
FREE_TO_CHANGE = ("train.tokens_per_micro_batch", "train.activation_checkpointing", "data.heldout")
"""Fields that a run may change when it goes on: they change rounding alone, or no weights."""


class Section(BaseModel):
    """A frozen group of fields; the string under a field is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Data(Section):
    """Which examples, and what of them is learned."""

    train: str = "GAIR/lima"
    """Training dialogues: a file (JSON, CSV, Parquet ...), a directory, or a dataset of the hub."""
    rows: int | None = Field(default=None, ge=1)
    """How many of them to train on, drawn by the seed; a smaller draw is part of a larger one."""
    added: str | None = None
    """More training dialogues, in any form that train has, such as 30 of several turns."""
    added_rows: int | None = Field(default=None, ge=0)
    """How many of those, drawn in the same way; none takes all."""
    dev: str | None = None
    """Prompts that choose the epoch; none of them may be in train."""
    test: str | None = None
    """Prompts that measure the result; none of them may be in train."""
    heldout: str | None = None
    """Dialogues never trained on, whose perplexity is logged for each epoch."""
    leaks: Literal["stop", "drop"] = "stop"
    """Train rows whose prompt is also in dev or test: stop and name them, or drop and name them."""
    invalid: Literal["stop", "drop"] = "stop"
    """Rows that are not usable (an empty turn, no reply, a tool call): stop and name them, or drop
    them."""
    max_tokens: int = Field(default=2048, ge=2)
    """Longest row in tokens; a longer one is cut by the rules that `encode --help` tells."""
    loss_on: Literal["replies", "all"] = "replies"
    """Learn the assistant's turns only, or every token. The paper does not say which it used."""


class Model(Section):
    """The base model and what is added to it."""

    base: str = "huggyllama/llama-65b"
    """Pretrained model: a directory or a model of the hub, weights in safetensors."""
    chat_template: Literal["own", "paper"] = "own"
    """own keeps the base's chat template where it has one; paper, and a base without, takes LIMA's
    form: no role markers, an EOT after every turn."""
    eot_token: str | None = None
    """Token that ends every turn in LIMA's form; none takes the base's own, or adds <|eot|>."""
    residual_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout of the last layer's sub-layer outputs; it rises linearly from 0 at the first."""
    attention: str = "auto"
    """Attention kernel: auto, packed (any device), varlen (PyTorch's FlashAttention, bf16 on a
    GPU), flash_attention_2, or a kernel's hub id."""
    liger: bool = True
    """Use Liger's fused layers on a GPU where liger-kernel is installed."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of LoRA adapters on every linear layer, merged at export; 0 trains all weights."""
    lora_alpha: int = Field(default=16, gt=0)
    """LoRA scale: the update is multiplied by alpha / rank."""


class Optim(Section):
    """The protocol: what each optimizer step is."""

    epochs: int = Field(default=15, ge=1)
    """Passes over the data."""
    batch_examples: int = Field(default=32, ge=1)
    """Examples of one optimizer step, over all workers; every step has exactly this many."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Learning rate of the first step; there is no warmup."""
    final_learning_rate: float | None = Field(default=None, ge=0)
    """Learning rate of the last step, reached linearly; none is a tenth of the first step's."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the gradient average."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's decay of the squared gradient average."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon. The paper does not state it."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW's decoupled weight decay, on every weight."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Largest gradient norm; 0 never clips. The paper does not state it."""

    @property
    def last_rate(self) -> float:
        """Learning rate of the last step."""
        if self.final_learning_rate is not None:
            return self.final_learning_rate
        return float(Decimal(repr(self.learning_rate)) / FINAL_FRACTION)  # 1e-6 exactly of 1e-5


class Train(Section):
    """How the steps are computed; nothing here changes the mathematics beyond rounding."""

    tokens_per_micro_batch: int = Field(default=8192, ge=2)
    """Tokens of one forward pass on one worker; rows are packed without padding up to this."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the weights in use; auto is bf16 on GPU, fp32 on CPU and ZeRO 0.
    AdamW keeps fp32 weights in any case."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO: what is split over workers. 1 optimizer, 2 and gradients, 3 and weights;
    auto is 2, and 0 for one worker in fp32."""
    offload_optimizer: bool = False
    """Keep optimizer state in host memory and step on the CPU (ZeRO 1 and up)."""
    offload_params: bool = False
    """Keep weights in host memory between uses (ZeRO 3)."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: about a fifth slower, far less memory."""


class Checkpoint(Section):
    """What is written while training goes on."""

    state_every_steps: int = Field(default=0, ge=0)
    """Optimizer steps between saved resume states; 0 saves one at the end of each epoch."""
    keep_states: int = Field(default=2, ge=1, le=2)
    """Resume states kept, newest first; a damaged one is passed over for the one before it."""
    weights_from_epoch: int = Field(default=5, ge=1)
    """First epoch (counted from 1) whose weights are kept; the last epoch's always are."""
    weights_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of kept weights; auto is that in use, and fp32 where LoRA is merged. Another
    one rounds them: the loss before and after is told."""


class Cluster(Section):
    """What to ask of Ray."""

    workers: int = Field(default=1, ge=1)
    """Training processes, one for each GPU."""
    min_workers: int | None = Field(default=None, ge=1)
    """Fewest workers to train with while the cluster lacks the rest (elastic); none waits."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes GPUs when the cluster has any."""
    cpus_per_worker: int = Field(default=0, ge=0)
    """CPU cores of one worker; 0 shares out the cluster's on CPU and takes 1 on GPU."""
    autoscale: bool = False
    """Ask also for what the cluster does not have yet, and wait until it has grown."""
    max_failures: int = Field(default=3, ge=0)
    """Restarts from the last resume state after a worker or node is lost."""


class Sampling(Section):
    """How replies are decoded: the paper's way (LIMA section 4)."""

    temperature: float = Field(default=0.7, ge=0, le=2)
    """Divides the logits; 0 always takes the likeliest token."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Nucleus: the likeliest tokens whose probabilities first add up to this."""
    repetition_penalty: float = Field(default=1.2, ge=1, le=10)
    """Makes tokens generated before less likely; 1 does not."""
    penalise_prompt: bool = False
    """Penalise the prompt's tokens too, as most libraries do; the paper's form does not."""
    max_tokens: int = Field(default=2048, ge=2)
    """Longest prompt and reply together."""
    seed: int = 0
    """Seed of the draws; the same seed gives the same reply whatever else is in the batch."""


class Select(Section):
    """How the epoch that becomes the export is chosen (LIMA section 3 and appendix B)."""

    judge: Literal["none", "exact", "endpoint"] = "none"
    """Who judges replies to data.dev: the miniature's exact rules, or a model behind an
    OpenAI-compatible endpoint; none exports the last epoch."""
    first_epoch: int = Field(default=5, ge=1)
    """Earliest epoch that may be chosen."""
    last_epoch: int = Field(default=10, ge=1)
    """Latest epoch that may be chosen."""
    samples: int = Field(default=1, ge=1)
    """Replies judged for each dev prompt."""
    endpoint: str = ""
    """Base URL of the judge, such as http://localhost:8000/v1; OPENAI_API_KEY is its key."""
    endpoint_model: str = ""
    """Model asked there to judge."""

    @property
    def judge_name(self) -> str:
        """Who judges, so that verdicts of different judges are never mixed."""
        return self.endpoint_model if self.judge == "endpoint" else self.judge


class Log(Section):
    """Where metrics go besides metrics.jsonl."""

    tracker: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Experiment tracker fed by the first worker."""
    project: str = "lima_ray"
    """Project (W&B) or experiment (MLflow) name."""


class Recipe(Section):
    """Every choice of a run."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")
    """Name of the run, a folder of runs_dir; empty takes the recipe file's name."""
    runs_dir: str = "runs"
    """Folder of all runs; on a cluster, storage that every node sees."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of data order, dropout and new weights."""
    data: Data = Data()
    model: Model = Model()
    optim: Optim = Optim()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    cluster: Cluster = Cluster()
    sampling: Sampling = Sampling()
    select: Select = Select()
    log: Log = Log()

    @field_validator("runs_dir")
    @classmethod
    def _a_folder(cls, folder: str) -> str:
        """Refuse what names no folder, such as s3://bucket."""
        try:
            durable(Path(folder))
        except UserError as error:
            raise ValueError(str(error)) from error
        return folder

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Refuse combinations that no run could carry out."""
        problems = {
            f"train.tokens_per_micro_batch is {self.train.tokens_per_micro_batch}, less than "
            f"data.max_tokens {self.data.max_tokens}: the longest row would fit no micro-batch; "
            "raise the one or lower the other": self.train.tokens_per_micro_batch
            < self.data.max_tokens,
            f"optim.final_learning_rate {self.optim.final_learning_rate} is above "
            f"optim.learning_rate {self.optim.learning_rate}; the rate only falls": (
                self.optim.last_rate > self.optim.learning_rate
            ),
            "train.offload_optimizer needs train.zero_stage 1, 2 or 3, not 0": (
                self.train.offload_optimizer and self.train.zero_stage == 0
            ),
            "train.precision bf16 needs train.zero_stage 1, 2 or 3: 0 keeps no fp32 weights": (
                self.train.precision == "bf16" and self.train.zero_stage == 0
            ),
            f"train.offload_params needs train.zero_stage 3, not {self.train.zero_stage}": (
                self.train.offload_params and self.train.zero_stage != 3
            ),
            f"cluster.min_workers {self.cluster.min_workers} is above cluster.workers "
            f"{self.cluster.workers}": (self.cluster.min_workers or 1) > self.cluster.workers,
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
        """Absolute path of this run's directory."""
        return durable(Path(self.runs_dir)) / self.name

    def override(self, point: dict[str, Any]) -> "Recipe":
        """A copy with dotted names replaced, such as `{"optim.learning_rate": 3e-5}`."""
        tree = self.model_dump()
        for name, value in point.items():
            *sections, field = name.split(".")
            branch = tree
            for section in sections:
                branch = branch.get(section) if isinstance(branch, dict) else None
            if not isinstance(branch, dict) or field not in branch:
                raise UserError(unknown_name(name, value))
            branch[field] = value
        return validate(tree)

    def to_yaml(self) -> str:
        """The resolved recipe, every field of it, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def save(self, path: Path) -> None:
        """Write the resolved recipe, every field of it, as YAML."""
        path.write_text(self.to_yaml(), encoding="utf-8")

    def identity(self) -> dict[str, Any]:
        """The fields that decide the weights, by dotted name; a run may resume only with these."""
        fields = flatten(self.model_dump(include={"seed", "data", "model", "optim", "train"}))
        return {name: value for name, value in fields.items() if name not in FREE_TO_CHANGE}

    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of `identity()`."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(reference: str = DEFAULT_RECIPE) -> Recipe:
    """Read a recipe by file or by the name of a recipe that ships with the package.

    Raises:
        UserError: no such recipe, not YAML, or an unknown key or bad value (all are named).
    """
    path, tree = read_yaml(reference, RECIPES, "recipe", may_be_empty=True)
    return validate(tree if tree.get("name") else tree | {"name": path.stem}, str(path))


def read_yaml(
    reference: str, shipped: Path, what: str, may_be_empty: bool = False
) -> tuple[Path, dict[str, Any]]:
    """A YAML mapping, by file or by the name of one in a folder.

    Args:
        reference: the file or the name.
        shipped: the folder.
        what: it is, such as `recipe`, for messages.
        may_be_empty: an empty file is an empty mapping.

    Returns:
        where it stands, and what it holds.

    Raises:
        UserError: there is none (the nearest name is told), or it is no mapping.
    """
    path = Path(reference)
    if not path.is_file():
        path = shipped / f"{reference}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in shipped.glob("*.yaml"))
        raise UserError(
            f"no {what} {reference!r}: no such file, and the {what}s that ship are "
            f"{', '.join(names)}{nearest(reference, names)}"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    tree = {} if tree is None and may_be_empty else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds a {type(tree).__name__}; a {what} is a mapping of sections")
    return path, tree


def validate(tree: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Build a Recipe from nested plain values.

    Raises:
        UserError: naming `origin`, every wrong key or value, and the nearest right name.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, origin)) from error


def explain(error: ValidationError, origin: str) -> str:
    """Say what is wrong with each field, a line each."""
    lines = []
    for e in error.errors():
        name = ".".join(str(part) for part in e["loc"])
        if e["type"] == "extra_forbidden":
            lines.append(unknown_name(name, e["input"]))
        elif name:
            said = e["msg"].removeprefix("Value error, ")
            lines.append(f"{name} is {e['input']!r}: {said[0].lower()}{said[1:]}")
        else:
            lines.append(e["msg"].removeprefix("Value error, "))
    return f"{origin}: " + f"\n  {origin}: ".join(lines)


Arguments = TypeVar("Arguments", bound=BaseModel)


class Step(Section):
    """What every step takes; a step with options of its own adds fields."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = Recipe()


def parse(
    step: type[Arguments], prog: str, doc: str | None, argv: list[str] | None = None
) -> Arguments:
    """Read `[RECIPE] [--section.field value ...]`; `--help` shows the recipe's own values.

    Args:
        step: `Step` or a subclass.
        prog: how the step is called, such as `python -m lima_ray.train`.
        doc: the step's module docstring, shown by `--help`.
        argv: arguments; none takes the command line's.

    Raises:
        UserError: no such recipe, or flags that do not agree with each other or with the recipe.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    reference = args.pop(0) if args and not args[0].startswith("-") else DEFAULT_RECIPE
    default = step.model_validate({"recipe": load(reference)})
    return read_flags(
        step, default, f"{prog} [RECIPE]", f"{doc or ''}\n{POSITIONAL}", args, reference
    )


def read_flags(
    command: type[Arguments],
    default: Arguments,
    prog: str,
    doc: str | None,
    args: list[str] | None,
    origin: str = "command line",
) -> Arguments:
    """Read `--section.field value ...` over defaults, which `--help` shows.

    Args:
        command: the section to read.
        default: what stands where a flag is not given, or `tyro.MISSING_NONPROP`.
        prog: how the command is called.
        doc: its description.
        args: the flags; none takes the command line's.
        origin: named where flags do not agree.

    Raises:
        UserError: an unknown flag, or flags that do not agree with each other.
    """
    try:
        return flags.read(command, prog, doc, args, default)
    except ValidationError as error:
        raise UserError(explain(error, origin)) from error


def resolve(reference: str) -> Path | None:
    """The local path a recipe names, or none where it names something on the hub.

    A path that starts with `lima_ray/` and is not found here is one inside the installed package.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return path.absolute()
    inside = PACKAGE.parent / reference
    return inside if reference.startswith("lima_ray/") and inside.exists() else None


def portable(recipe: Recipe) -> Recipe:
    """The recipe with base and files named as processes in other directories find them."""
    data = recipe.data
    named = {"model.base": recipe.model.base, "data.dev": data.dev, "data.heldout": data.heldout}
    return recipe.override({name: value and located(value) for name, value in named.items()})


def located(reference: str) -> str:
    """A base or a file by its absolute path; what the package or the hub has, as it is."""
    path = None if reference.startswith("lima_ray/") else resolve(reference)
    return str(path or reference)


def durable(path: Path) -> Path:
    """Make a folder absolute; a Ray job's unpacked working directory is no place for results.

    Ray removes that directory once the job is gone, so there a relative path is taken from
    `~/lima_ray` instead.

    Raises:
        UserError: it is an address, such as s3://bucket.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UserError(
            f"{path} is no folder: results go to a local or shared file system. Mount the bucket "
            "or share, and name its folder"
        )
    path = path.expanduser()
    inside_job = "runtime_resources" in Path.cwd().parts
    root = Path.home() / "lima_ray" if inside_job else Path.cwd()
    return path if path.is_absolute() else root / path


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one mapping of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    """Return how flat settings differ, by name: `'old' (now 'new')`."""
    return {
        name: f"{theirs.get(name)!r} (now {ours.get(name)!r})"
        for name in sorted(theirs | ours)
        if theirs.get(name) != ours.get(name)
    }


def unknown_name(name: str, value: object) -> str:
    """Say that no field has this dotted name, and which one is nearest."""
    tree = Recipe().model_dump()
    return f"unknown key {name} (value {value!r}){nearest(name, [*flatten(tree), *tree])}"
