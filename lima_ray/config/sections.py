"""The sections of a recipe; the string under a field is its help text.

The defaults are the values of the paper (LIMA section 3).
"""

import math
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lima_ray.config.paths import readable_path

Metric = Literal["grade", "win_rate"]
"""What the verdicts on a model's replies are counted as."""
ReadPath = Annotated[Path, AfterValidator(readable_path)]
"""A path that is read; of a bucket's URL what it names is fetched, and the copy's path taken."""
WeightFormat = Literal["auto", "fp32", "bf16", "int8"]
"""How an engine on a CPU holds a model's weights."""
Auto = Literal["auto"]
"""Chosen before a run starts, by what fits the memory of its workers (`lima_ray.plan`)."""
FINAL_FRACTION = 10
"""How much smaller the last step's learning rate is than the first's (LIMA section 3)."""


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
    """Rank of LoRA adapters on every linear layer, merged at export, with embeddings and head
    trained whole; 0 trains all weights."""
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
    def last_learning_rate(self) -> float:
        if self.final_learning_rate is not None:
            return self.final_learning_rate
        return float(Decimal(repr(self.learning_rate)) / FINAL_FRACTION)  # 1e-6 exactly of 1e-5


class Train(Section):
    """How the steps are computed; nothing here changes the mathematics beyond rounding.

    `auto` is resolved before a run starts: what is fastest of what fits (`lima_ray.plan` tells).
    """

    tokens_per_micro_batch: Annotated[int, Field(ge=2)] | Auto = 8192
    """Tokens of one forward pass on one worker; rows are packed without padding up to this."""
    precision: Literal["auto", "bf16", "mixed", "fp32"] = "auto"
    """Number format: bf16 of the weights in use, fp32, or mixed, which keeps weights in fp32 and
    multiplies in bf16, on a CPU alone. auto is bf16 on a GPU but for ZeRO 0, mixed on a CPU that
    multiplies bf16 itself, else fp32. AdamW keeps fp32 weights in any case."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO: what is split over workers. 1 optimizer, 2 and gradients, 3 and weights;
    auto is 2, or 3 where 2 does not fit, and 0 for one worker in fp32."""
    offload_optimizer: bool | Auto = False
    """Keep optimizer state in host memory and step on the CPU (ZeRO 1 and up)."""
    offload_params: bool | Auto = False
    """Keep weights in host memory between uses (ZeRO 3)."""
    activation_checkpointing: bool | Auto = False
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
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest reply alone, in tokens; none lets it go on as far as the context goes."""
    context: int = Field(default=2048, ge=2)
    """Longest prompt and reply together, in tokens; never more than the model's positions."""
    seed: int = 0
    """Seed of the draws; the same seed gives the same reply whatever else is in the batch."""


class Spending(Section):
    """What a command may spend on judges."""

    limit_usd: float = Field(default=5, ge=0)
    """Money that may be spent without asking a person, by the prices given."""
    yes: bool = False
    """Accept more than limit_usd."""

    @property
    def most_usd(self) -> float:
        """Money that may be spent without asking a person; infinite where more is accepted."""
        return math.inf if self.yes else self.limit_usd


class Decoding(Section):
    """How an engine of ours holds a model."""

    weights: WeightFormat = "auto"
    """How a CPU holds the weights: auto takes bf16 where it has the very values of the files, else
    fp32, so that no digit changes. bf16 rounds an fp32 export, and int8 (8 bits, a scale for each
    64) any: fewer bytes to read for each token, and slightly other replies. On a GPU only auto."""


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
    input_usd: float | None = Field(default=None, ge=0)
    """What it takes for a million tokens sent, in USD; none is not known."""
    output_usd: float | None = Field(default=None, ge=0)
    """What it takes for a million tokens received."""
    reference: str | None = None
    """Replies to data.dev of another model (a directory of replies, or a table) that each reply is
    compared with, in both orders; none has the endpoint's model grade replies from 1 to 6."""

    @property
    def metric(self) -> Metric:
        """What the verdicts are counted as."""
        return "win_rate" if self.reference else "grade"

    @property
    def judge_name(self) -> str:
        """Who judges, so that verdicts of different judges are never mixed."""
        name = self.endpoint_model if self.judge == "endpoint" else self.judge
        return f"{name}, against a reference" if self.reference else name


class Log(Section):
    """Where metrics go besides metrics.jsonl."""

    tracker: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Experiment tracker fed by the first worker."""
    project: str = "lima_ray"
    """Project (W&B) or experiment (MLflow) name."""
