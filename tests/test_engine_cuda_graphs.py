"""What a GPU would record, computed on a CPU."""

from pathlib import Path

import pytest
import torch
from engines import GREEDY, answer, in_slots, prompts

from lima_ray.engine import cuda_graphs
from lima_ray.engine.cuda_graphs import CudaGraphForward, SyncDetector, power_of_two
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_forward_of_a_gpu_answers_as_that_of_a_cpu(base_dir: Path) -> None:
    """What a GPU would record, computed here: rows are slots, shapes are power_of_two up."""
    alone, as_on_gpu = Engine(base_dir, slots=5), Engine(base_dir, slots=5)
    model = in_slots(base_dir)
    as_on_gpu.forward = CudaGraphForward(model, 5)
    requests = [
        Request(
            str(size),
            (prompts(2, seed=size)[1] * size)[:size],
            GREEDY.model_copy(update={"max_new_tokens": 60}),
        )
        for size in (1, 33, 300, 511, 600, 7, 650)
    ]
    mine, theirs = answer(alone, requests), answer(as_on_gpu, requests)
    assert {k: v.ids for k, v in mine.items()} == {k: v.ids for k, v in theirs.items()}


def test_a_cache_of_a_gpu_that_runs_out_of_memory_as_it_grows_stays_valid(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_slots(base_dir)
    forward, plain = CudaGraphForward(model, 2), cuda_graphs.widen
    ids = [5 + n % 100 for n in range(400)]
    with torch.inference_mode():
        forward.prefill(0, 0, ids[:200])
        before = forward.logits([(0, 200, 7)])
        grown: list[torch.Tensor] = []

        def widen(old_SGCD: torch.Tensor, capacity: int) -> torch.Tensor:
            if len(grown) == 2:
                raise torch.OutOfMemoryError("no memory")
            grown.append(plain(old_SGCD, capacity))
            return grown[-1]

        monkeypatch.setattr(cuda_graphs, "widen", widen)
        with pytest.raises(torch.OutOfMemoryError):
            forward.prefill(1, 256, ids[256:])
        assert torch.equal(forward.logits([(0, 200, 7)]), before)
        monkeypatch.setattr(cuda_graphs, "widen", plain)
        forward.prefill(1, 0, ids[:256])
        forward.prefill(1, 256, ids[256:])
        after = forward.logits([(1, 400, 9)])
        expected = model(torch.tensor([[*ids, 9]]), use_cache=False, slot_cache=Plain())
    torch.testing.assert_close(after[0], expected.logits[0, -1], rtol=1e-4, atol=1e-4)


class Plain:
    """Causal attention without slots."""

    def attend(
        self, _: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        grouped = query.shape[1] != key.shape[1]
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
        )
        return out.transpose(1, 2)


def test_shapes_of_a_gpu_are_powers_of_two() -> None:
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 31, 32, 33)] == [1, 2, 4, 4, 8, 32, 32, 64]
    assert [power_of_two(n, 256) for n in (1, 256, 257)] == [256, 256, 512]


@pytest.mark.parametrize("mask", [True, False])
def test_what_a_graph_cannot_have_is_noticed(base_dir: Path, mask: bool) -> None:
    model = in_slots(base_dir)
    forward = CudaGraphForward(model, 4)
    forward.cache.grow(256)
    with torch.inference_mode(), SyncDetector() as syncs:
        forward.compute((2, 1, 256), torch.tensor([5, 6, 0, 0, 0, 1]))
        if not mask:
            places_B1 = torch.tensor([[0], [0]])
            model(places_B1, position_ids=places_B1, use_cache=False, slot_cache=forward.cache)
    assert bool(syncs.found) != mask
