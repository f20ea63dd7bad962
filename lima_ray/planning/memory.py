"""Memory of one worker at its peak: what DeepSpeed and PyTorch hold, counted from the shapes.

Several moments can be the peak of a step, and the plan is the largest of them:

- *forward*: in mixed precision, weights cast to bf16 before what recomputes drops them;
- *loss*: everything that the backward pass needs is there, and the loss head's own;
- *backward*: the gradients beside what is left of that;
- *update*: gradients flattened for AdamW, and no activations.

Sizes are bytes. What is counted is written at each formula; `benchmarks/memory.py` compares the sum
with measured peaks.
"""

from dataclasses import dataclass, field

from lima_ray.config.recipe import Recipe
from lima_ray.model.attention import head_width
from lima_ray.planning.sizes import Load, ModelShape
from lima_ray.training.zero import OPTIMIZER_BYTES, bucket_size

BF16, FP32, FP64 = 2, 4, 8
MOMENTS = 8
"""AdamW's two averages of a weight in fp32."""
GATHERED = 1_000_000_000
"""Elements that ZeRO 3 may hold whole because they are used again soon (DeepSpeed's default)."""
PREFETCHED = 50_000_000
"""Elements that ZeRO 3 gathers ahead (DeepSpeed's default)."""
ALL_REDUCED = 500_000_000
"""Elements of gradients that are reduced at a time without ZeRO (DeepSpeed's constant)."""
SUBGROUP = 1_000_000_000
"""Elements of a worker's part that ZeRO 3 updates at a time (DeepSpeed's default)."""


@dataclass(frozen=True)
class Memory:
    """What one worker holds at its peak."""

    moment: str
    """`forward`, `loss`, `backward` or `update`."""
    parts: dict[str, float]
    """Bytes by what they are for, at that moment."""
    host: dict[str, float] = field(default_factory=dict)
    """Bytes of the node's memory that this worker keeps beside the GPU's."""

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def host_bytes(self) -> float:
        return sum(self.host.values())


def plan_memory(recipe: Recipe, shape: ModelShape, load: Load, gpu: bool, precision: str) -> Memory:
    """Return a worker's memory at its peak.

    Args:
        recipe: with every `auto` resolved.
        gpu: it trains on a GPU, not on the CPU.
        precision: `bf16`, `mixed` or `fp32`, as `choose_precision` returns it.
    """
    return WorkerMemory(recipe, shape, load, gpu, precision).plan()


@dataclass(frozen=True)
class WorkerMemory:
    """The formulas, all in bytes of one worker."""

    recipe: Recipe
    shape: ModelShape
    load: Load
    gpu: bool
    precision: str

    @property
    def width(self) -> int:
        """Bytes of a weight in use, and of an element of the residual stream."""
        return BF16 if self.precision == "bf16" else FP32

    @property
    def product(self) -> int:
        """Bytes of an element that a matrix product takes and gives."""
        return FP32 if self.precision == "fp32" else BF16

    @property
    def recomputes(self) -> bool:
        return bool(self.recipe.train.activation_checkpointing)

    @property
    def stage(self) -> int:
        assert self.recipe.train.zero_stage != "auto"
        return self.recipe.train.zero_stage

    @property
    def part(self) -> float:
        """Trained elements that one worker updates."""
        return self.shape.trained / (self.recipe.cluster.workers if self.stage else 1)

    def plan(self) -> Memory:
        states, gradients = self.states(), self.gradients()
        waiting = gradients if self.load.several else 0.0
        gathered = self.gathered()
        casts, cached, layer = self.casts(), 0.0, 0.0
        if self.recomputes:
            own = BF16 * self.shape.matrices * (self.precision == "mixed")
            layer = self.layer() + own / self.shape.layers
            # What autocast keeps of weights that train, where `multiply_in_bf16` lets it.
            if not self.recipe.model.lora_rank and self.stage != 3:
                cached = own
        all_layers = self.activations()
        moments = {
            "forward": {
                "weights gathered": gathered,
                "weights in bf16": cached,
                "gradients": waiting,
                "activations": all_layers,
            },
            "loss": {
                "weights gathered": gathered,
                "weights in bf16": casts,
                "gradients": waiting,
                "activations": all_layers,
                "loss head": self.head(),
            },
            "backward": {
                "weights gathered": gathered,
                "weights in bf16": casts,
                "gradients": waiting + self.new_gradients(),
                "activations": all_layers + layer,
                "gradients of a layer": self.layer_gradients(),
                "buckets": self.buckets(),
            },
            "update": {"gradients": gradients, "AdamW's step": self.update()},
        }
        moments = {name: states | parts for name, parts in moments.items()}
        moment = max(moments, key=lambda name: sum(moments[name].values()))
        return Memory(moment, moments[moment], self.host())

    def states(self) -> dict[str, float]:
        """Weights in use, and AdamW's: its averages, and fp32 weights from stage 1 on."""
        train, shape, workers = self.recipe.train, self.shape, self.recipe.cluster.workers
        weights = self.width * shape.parameters
        if self.stage == 3:
            weights = weights / workers * (not train.offload_params)
        optimizer = (OPTIMIZER_BYTES if self.stage else MOMENTS) * self.part
        return {"weights": weights, "AdamW": optimizer * (not train.offload_optimizer)}

    def gradients(self) -> float:
        """Gradients that wait for the optimizer's step."""
        whole = self.shape.trained
        if self.stage == 0:
            return FP32 * whole
        if self.stage == 1:
            return (self.width + FP32) * whole if self.width < FP32 else FP32 * whole
        if self.stage == 3 and self.recipe.train.offload_optimizer:
            return 0.0
        return FP32 * self.part

    def gathered(self) -> float:
        """Weights that ZeRO 3 holds whole for a while."""
        return self.width * min(self.shape.parameters, GATHERED) * (self.stage == 3)

    def casts(self) -> float:
        """Weights in bf16 that products in mixed precision keep for the backward pass."""
        vocabulary = self.shape.config.vocab_size * self.shape.hidden  # no layer's
        kept = vocabulary if self.recomputes else self.shape.matrices
        kept *= self.stage != 3  # its linear layers keep the weights themselves
        return BF16 * kept * (self.precision == "mixed")

    def new_gradients(self) -> float:
        """A micro-batch's own gradients, before they are added to those that wait."""
        if self.stage == 2 and self.width == FP32:
            return FP32 * self.part
        return 0.0 if self.load.several or self.stage < 2 else self.gradients()

    def update(self) -> float:
        """Gradients flattened or in the format that workers exchange; the largest norm in fp64."""
        norm = FP64 * min(self.shape.largest, self.part)
        if self.recipe.train.offload_optimizer:
            return norm
        if self.stage == 0:
            return FP32 * min(self.shape.trained, ALL_REDUCED)
        if self.stage == 1:
            return self.width * self.shape.trained if self.width < FP32 else FP32 * self.part
        if self.stage == 2:
            return FP32 * self.part if self.width == FP32 else norm
        return FP32 * min(self.part, SUBGROUP)

    def buckets(self) -> float:
        """Buffers in which DeepSpeed reduces gradients."""
        if not self.stage:
            return 0.0
        bucket, trained = bucket_size(self.shape.trained), self.shape.trained
        buffers = {1: 1, 2: 2, 3: 1}[self.stage]  # stage 2 fills one while the other is reduced
        return self.width * (buffers * bucket + min(bucket, trained))

    def activations(self) -> float:
        """What all layers keep for the backward pass, with the last norm and the positions."""
        tokens = self.load.tokens
        each = self.width * self.shape.hidden * tokens if self.recomputes else self.layer()
        return each * self.shape.layers + tokens * (self.last_norm() + self.positions())

    def last_norm(self) -> float:
        """What the norm after the layers keeps for a token: its input, and in bf16 that in fp32,
        beside what its weight multiplies where it trains."""
        fused = self.recipe.model.liger if self.gpu else self.width == FP32  # by `cpu_layers`
        if fused:
            return self.width * self.shape.hidden
        trains = not self.recipe.model.lora_rank
        return self.width * self.shape.hidden * ((1 if self.width == FP32 else 2) + trains)

    def positions(self) -> float:
        """Cosines and sines of the rotary embedding for a token, which all layers share."""
        return self.width * 2 * head_width(self.shape.config)

    def layer(self) -> float:
        """What one layer keeps for its backward pass, where nothing is recomputed.

        Of each norm its input and its output; the queries, keys, values and the attended values;
        of the MLP gate, up and their product. Kernels that are not fused keep more.
        """
        shape, fused = self.shape, self.gpu and self.recipe.model.liger
        hidden, query, key, mlp = shape.hidden, shape.query, shape.key, shape.mlp
        attended = 2 * query + 2 * key
        if not self.gpu:
            attended += query  # rows attended one by one, and all of them together
        gated = (3 if fused else 4) * mlp
        dropped = 0.0
        if self.recipe.model.residual_dropout:
            dropped = 2 * hidden * (1 / self.width if self.gpu else 1)
        elements = attended + gated + dropped + shape.lora_outputs / shape.layers
        sums = FP32 * shape.config.num_attention_heads
        return self.load.tokens * (self.norms() + self.product * elements + sums)

    def norms(self) -> float:
        """What a layer's two norms keep for a token, with what the products take of them."""
        hidden = self.shape.hidden
        if self.precision == "mixed":
            # Autocast makes an input of each product its own: queries, keys, values; gate and up.
            return hidden * (2 * FP32 + 5 * BF16)
        if self.width == FP32 or (self.gpu and self.recipe.model.liger):
            return self.width * 2 * 2 * hidden
        # The input is kept in fp32, and where the norm's weight trains, what it multiplies.
        return self.width * 2 * (3 if self.recipe.model.lora_rank else 4) * hidden

    def head(self) -> float:
        """Logits in fp32 as log-softmax, its gradient and the loss's, and the hidden states."""
        vocab = self.shape.config.vocab_size
        return self.load.supervised * (3 * FP32 * vocab + 2 * self.width * self.shape.hidden)

    def layer_gradients(self) -> float:
        """Gradients of the MLP's activations as they are computed, and of one of its weights."""
        moved = self.load.tokens * 2 * (self.shape.mlp + self.shape.hidden)
        weight = 0 if self.recipe.model.lora_rank else self.shape.hidden * self.shape.mlp
        mixed = self.precision == "mixed"  # where a weight's are cast to its own fp32
        return self.product * moved + (self.width + BF16 * mixed) * weight

    def host(self) -> dict[str, float]:
        """What a GPU's worker keeps in its node's memory."""
        train, workers = self.recipe.train, self.recipe.cluster.workers
        host: dict[str, float] = {}
        if train.offload_optimizer:
            host["AdamW"] = (OPTIMIZER_BYTES + FP32 + self.width) * self.part
            if self.stage == 3:
                host["gradients"] = FP32 * self.part
        if train.offload_params:
            host["weights"] = self.width * self.shape.parameters / workers
        return host
