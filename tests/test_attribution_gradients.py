"""Projected gradients of rows: against plain autograd, and what the projection changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import dialogues

from lima_ray.attribution.cache import load_or_compute
from lima_ray.attribution.gradients import RowGradients, linear_layers
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Data
from lima_ray.data.encoding import encode
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.model.loss import forward_packed, load_packed

pytestmark = pytest.mark.usefixtures("one_thread")
WHOLE = 10**9
"""Values of a gradient that nothing is projected in."""


@pytest.fixture(scope="module")
def model(brief_dir: Path) -> Any:
    return load_packed(brief_dir, torch.float32)[0]


@pytest.fixture(scope="module")
def rows(base_dir: Path) -> Rows:
    return encode(dialogues(12), load_tokenizer(str(base_dir)), Data(max_tokens=256))


@pytest.fixture(scope="module")
def exact(brief_dir: Path, rows: Rows) -> list[list[torch.Tensor]]:
    """Each row's gradient by autograd, of each layer's weight, flat."""
    plain = load_packed(brief_dir, torch.float32)[0]
    weights = [layer.weight for layer in linear_layers(plain).values()]
    found = []
    for number in range(len(rows)):
        loss_sum, _ = forward_packed(plain, (number,), rows)
        found.append([g.flatten() for g in torch.autograd.grad(loss_sum, weights)])
    return found


def compute_all(model: Any, rows: Rows, values: int, seed: int = 0) -> np.ndarray:
    with RowGradients(model, values, seed) as computed:
        return np.concatenate([computed.compute((r, r + 1), rows) for r in range(0, len(rows), 2)])


def layer_cosines(exact: list[list[torch.Tensor]]) -> np.ndarray:
    """Return the mean over layers of the cosine of each row's gradient with each."""
    layers = zip(*exact, strict=True)
    units = [torch.nn.functional.normalize(torch.stack(layer), dim=1) for layer in layers]
    return torch.stack([unit @ unit.T for unit in units]).mean(dim=0).numpy()


def test_packed_rows_have_the_gradients_that_autograd_gives_each(
    model: Any, rows: Rows, exact: list[list[torch.Tensor]]
) -> None:
    with RowGradients(model, WHOLE) as computed:
        found = computed.compute_layers((5, 0, 3), rows)
    assert len(found) == len(exact[0]) == 21
    for place, row in enumerate((5, 0, 3)):
        for layer, right in zip(found, exact[row], strict=True):
            torch.testing.assert_close(layer[place], right, rtol=1e-4, atol=1e-5)


def test_dot_products_are_the_mean_of_the_layers_cosines(
    model: Any, rows: Rows, exact: list[list[torch.Tensor]]
) -> None:
    found = compute_all(model, rows, WHOLE)
    np.testing.assert_allclose(found @ found.T, layer_cosines(exact), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_projection_keeps_cosines_the_better_the_wider_it_is(
    model: Any, rows: Rows, exact: list[list[torch.Tensor]]
) -> None:
    right = layer_cosines(exact)
    pairs = np.triu_indices(len(rows), k=1)
    errors = {}
    for width in (4, 16):
        by_seed = [
            compute_all(model, rows, width * width * len(exact[0]), seed) for seed in range(3)
        ]
        assert by_seed[0].shape[1] == width * width * len(exact[0])
        wrong = np.array([(found @ found.T - right)[pairs] for found in by_seed])
        errors[width] = float(np.sqrt((wrong**2).mean()))
    # One side of one layer errs by up to sqrt(2 / width) of the lengths (Johnson-Lindenstrauss),
    # both by twice that; the mean over layers by less.
    for width, error in errors.items():
        assert error < 2 * (2 / width) ** 0.5 / len(exact[0]) ** 0.5
    assert errors[16] < 0.7 * errors[4]


def test_the_same_seed_projects_alike_and_another_one_otherwise(model: Any, rows: Rows) -> None:
    first, again = compute_all(model, rows, 500), compute_all(model, rows, 500)
    np.testing.assert_array_equal(first, again)
    assert first.shape[1] <= 500
    assert np.abs(first - compute_all(model, rows, 500, seed=1)).max() > 1e-3


def test_a_model_is_left_as_it_was(model: Any, rows: Rows) -> None:
    with RowGradients(model, 500) as computed:
        computed.compute((0,), rows)
        assert all(p.grad is None for p in model.parameters())
    hooks = [m for m in model.modules() if m._forward_hooks or m._backward_hooks]
    assert not hooks


def test_a_gradient_that_is_not_finite_is_refused(brief_dir: Path, rows: Rows) -> None:
    broken = load_packed(brief_dir, torch.float32)[0]
    broken.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.inf
    with RowGradients(broken, 500) as computed, pytest.raises(UserError, match="not finite"):
        computed.compute((0,), rows)


def test_computing_goes_on_where_it_was_stopped(model: Any, rows: Rows, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole.npy", tmp_path / "run" / "stopped.npy"
    told: list[int] = []

    def stop(done: int) -> None:
        told.append(done)
        if done >= 4:
            raise KeyboardInterrupt

    with RowGradients(model, 500) as computed:
        expected = np.array(load_or_compute(computed, rows, whole, budget=256))
        with pytest.raises(KeyboardInterrupt):
            load_or_compute(computed, rows, stopped, budget=256, advance=stop)
        assert not stopped.exists() and told[0] == 0
        partial = np.lib.format.open_memmap(stopped.with_name(f".{stopped.name}.partial"), "r+")
        torn = int(np.flatnonzero(np.isfinite(partial).all(axis=1))[0])
        partial[torn, -1] = np.nan  # a row that the kill cut in the middle
        partial.flush()
        done = told[-1] - 1
        told.clear()
        found = load_or_compute(computed, rows, stopped, budget=256, advance=told.append)
        assert told[0] == done and told[-1] == len(rows)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        told.clear()
        load_or_compute(computed, rows, stopped, budget=256, advance=told.append)
        assert told == [len(rows)]


def test_layers_that_do_not_see_every_token_are_refused(
    model: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp = model.model.layers[0].mlp
    original = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: torch.cat([original(x[:, 1:]), x[:, :1]], 1))
    with RowGradients(model, 500) as computed, pytest.raises(UserError, match="--method text"):
        computed.compute((0,), rows)
