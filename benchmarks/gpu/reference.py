"""The optimizer step of plain PyTorch, which ours is compared with.

Nothing of the plan's packing, of DeepSpeed or of our attention is used: one row at a time through
the untouched model, losses summed, PyTorch's own gradients and AdamW.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn.functional import cross_entropy

from lima_ray.config.sections import Optim
from lima_ray.data.packing import Step
from lima_ray.data.rows import Rows
from lima_ray.model.parameters import gathered
from lima_ray.training.metrics import StepResult

Tensors = dict[str, torch.Tensor]
AVERAGES = ("exp_avg", "exp_avg_sq")


def plain_gradients(model: Any, rows: Rows, step: Step) -> tuple[Tensors, float]:
    """Gradients of the mean loss over a step's supervised tokens, and that loss.

    Args:
        model: any causal language model, left with no gradients.
        rows: the encoded rows.
        step: whose rows count, each as often as it is in it.
    """
    device = next(model.parameters()).device
    supervised = float(sum(rows.row(r)[1].sum() for r in step.rows))
    model.zero_grad(set_to_none=True)
    total = 0.0
    for r in step.rows:
        ids_T, mask_T = (torch.from_numpy(part).to(device) for part in rows.row(r))
        logits_TV = model(input_ids=ids_T.long()[None], use_cache=False).logits[0].float()
        learned_T = mask_T[1:]
        loss = cross_entropy(
            logits_TV[:-1][learned_T], ids_T.long()[1:][learned_T], reduction="sum"
        )
        (loss / supervised).backward()
        total += loss.item() / supervised
    found = {n: p.grad.detach().float().clone() for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found, total


@dataclass(frozen=True)
class AdamState:
    """What AdamW holds of every trained weight, gathered from all workers, in fp32."""

    weights: Tensors
    averages: Tensors
    """Decayed averages of the clipped gradients."""
    squares: Tensors
    """Decayed averages of their squares."""

    @classmethod
    def of(cls, engine: Any, steps: int) -> Self:
        """Read it from a DeepSpeed engine that has done so many steps."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        weights, averages, squares = {}, {}, {}
        partitioned = engine.zero_optimization_stage() > 0
        for name, p in engine.module.named_parameters():
            if not p.requires_grad:
                continue
            weight = safe_get_full_fp32_param(p) if partitioned else p.detach()
            pair: list[Any] = [None, None]  # DeepSpeed makes the averages in the first step
            if steps and partitioned:
                pair = [safe_get_full_optimizer_state(p, key) for key in AVERAGES]
            elif steps:
                pair = [engine.optimizer.state[p][key] for key in AVERAGES]
            assert weight is not None, name
            weights[name] = weight.detach().float().clone()
            averages[name], squares[name] = (
                torch.zeros_like(weights[name]) if x is None else x.detach().float().clone()
                for x in pair
            )
        return cls(weights, averages, squares)

    def change(self, before: Self) -> Tensors:
        """What the step from `before` added to the weights."""
        return {name: weight - before.weights[name] for name, weight in self.weights.items()}

    def gradients(self, before: Self, optim: Optim) -> Tensors:
        """The clipped gradients of the step from `before` to this state."""
        return {
            name: (average - optim.beta1 * before.averages[name]) / (1 - optim.beta1)
            for name, average in self.averages.items()
        }

    def expected(self, before: Self, optim: Optim, steps: int, rate: float) -> Self:
        """What AdamW makes of `before` with this step's own gradients.

        Args:
            before: the state before the step.
            optim: the recipe's.
            steps: steps done, this one included.
            rate: learning rate of this step.
        """
        weights, squares = {}, {}
        for name, g in self.gradients(before, optim).items():
            squares[name] = optim.beta2 * before.squares[name] + (1 - optim.beta2) * g**2
            average = self.averages[name] / (1 - optim.beta1**steps)
            scale = (squares[name] / (1 - optim.beta2**steps)).sqrt() + optim.eps
            decayed = before.weights[name] * (1 - rate * optim.weight_decay)
            weights[name] = decayed - rate * average / scale
        return type(self)(weights, self.averages, squares)


def step_errors(
    result: StepResult,
    after: AdamState,
    before: AdamState,
    expected: AdamState,
    gradients: Tensors,
    loss: float,
    optim: Optim,
) -> dict[str, dict[str, float]]:
    """How far a step is from the plain one, relative to what each error is of.

    Args:
        result: what the training loop told of the step.
        after: AdamW's state after it.
        before: that before it.
        expected: what `AdamState.expected` makes of both.
        gradients: the plain ones, not clipped.
        loss: the plain one.
        optim: the recipe's.
    """
    taken = after.gradients(before, optim)
    return {
        "loss": {"all": abs(result.loss - loss) / loss},
        "gradient": distance(taken, clipped(gradients, optim.clip_norm)),
        "squares": distance(after.squares, expected.squares),
        "update": distance(after.change(before), expected.change(before)),
    }


def clipped(gradients: Tensors, largest: float) -> Tensors:
    """Gradients whose norm together is at most `largest`; 0 leaves them."""
    norm = float(torch.stack([g.norm() for g in gradients.values()]).norm())
    factor = min(1.0, largest / norm) if largest else 1.0
    return {name: g * factor for name, g in gradients.items()}


def full_weights(model: Any) -> Tensors:
    """Copies of all weights in use, gathered where they are partitioned."""
    found = {}
    for name, parameter in model.named_parameters():
        with gathered(parameter):
            found[name] = parameter.detach().clone()
    return found


def distance(ours: Tensors, reference: Tensors) -> dict[str, float]:
    """||ours - reference|| / ||reference|| of each tensor, and of all together as `all`."""
    found, error, norm = {}, 0.0, 0.0
    for name, there in reference.items():
        difference = float((ours[name].to(there) - there).norm())
        size = float(there.norm())
        found[name] = difference / max(size, 1e-30)
        error, norm = error + difference**2, norm + size**2
    return found | {"all": (error / norm) ** 0.5}
