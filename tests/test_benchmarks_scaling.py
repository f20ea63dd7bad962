"""The arithmetic of simulated steps, and what DeepSpeed really sends beside its formulas."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from process_group import in_process_group
from torch import distributed as dist

from benchmarks.page.result import Recording
from benchmarks.scaling import measured, simulation
from benchmarks.scaling.__main__ import exponent
from benchmarks.scaling.collectives import Collectives
from benchmarks.scaling.traffic import INFINIBAND, NETWORKS, NVLINK, Network, traffic

P = 1000


@pytest.mark.parametrize(("stage", "times"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_the_papers_volumes_are_2p_and_in_stage_3_3p(stage: int, times: int) -> None:
    moved = traffic(stage, P, 1, "paper")
    assert moved.gradients + moved.weights == times * P


def test_what_deepspeed_sends_grows_with_micro_batches_from_stage_2_on() -> None:
    sent = {
        stage: [sum(vars(traffic(stage, P, m, "deepspeed")).values()) / P for m in (1, 2, 4)]
        for stage in range(4)
    }
    assert sent == {0: [2, 2, 2], 1: [3, 3, 3], 2: [3, 5, 9], 3: [3, 6, 12]}


def test_a_ring_sends_the_share_of_the_others() -> None:
    moved = traffic(0, P, 1, "deepspeed")
    assert [moved.sent(n, width=2) for n in (1, 2, 4)] == [0, 2 * P, 3 * P]


def test_nodes_are_as_fast_as_their_nics_and_never_faster_than_nvlink() -> None:
    eight, one = NETWORKS
    assert eight.bandwidth(8) == one.bandwidth(8) == NVLINK
    assert one.bandwidth(16) == INFINIBAND
    assert eight.bandwidth(16) == min(NVLINK, 8 * INFINIBAND)
    assert Network("four", 4).bandwidth(64) == 4 * INFINIBAND


def test_a_step_is_arithmetic_update_and_communication() -> None:
    speed = simulation.Speed(flops=100.0, update=10.0)
    one = simulation.step_time(speed, 300.0, 40, stage=2, workers=4, sent_bytes=8, bandwidth=4)
    assert (one.arithmetic, one.update, one.communication) == (3.0, 1.0, 2.0)
    assert (one.hidden, one.exposed) == (4.0, 6.0)
    whole = simulation.step_time(speed, 300.0, 40, stage=0, workers=4, sent_bytes=8, bandwidth=4)
    assert whole.update == 4.0


def test_one_simulated_gpu_is_the_measured_one() -> None:
    """Of the batch that was measured, whose rows are drawn again: within a tenth."""
    speed, said = simulation.measured_speed()
    base = simulation.MODELS["LLaMA 7B"]
    shape = simulation.read_shape(simulation.recipe_of(base, simulation.BATCH, 1, 2))
    rows, steps = simulation.rows_of(base), simulation.planned(base, 1)
    one = simulation.simulate_step(speed, shape, rows, steps, 2, 1, NETWORKS[0])
    tokens = float(rows.lengths_R.mean()) * simulation.BATCH / one.exposed
    told = float(said.split(" tokens/s")[0].split()[-1].replace(",", ""))
    assert one.communication == 0
    assert tokens == pytest.approx(told, rel=0.1)


def test_more_gpus_are_never_more_than_so_many_times_as_fast() -> None:
    recording = Recording("simulation")
    simulation.simulate(recording)
    for title in simulation.MODELS:
        speeds = [f for f in recording.figures if f.what == f"{title}, training speed"]
        least = {f.who: min(g.x or 1 for g in speeds if g.who == f.who) for f in speeds}
        first = {f.who: f for f in speeds if f.x == least[f.who]}
        assert len(speeds) > 4
        for figure in speeds:
            begin, x = first[figure.who], figure.x or 1
            assert figure.high <= begin.high * x / least[figure.who] * 1.01
            assert figure.low <= figure.high
    fits = [f for f in recording.figures if f.what == "LLaMA 65B, training speed"]
    assert min(f.x or 0 for f in fits) > 8, "65B with AdamW in fp32 fits no 8 H200"


def test_exponents_of_exact_powers_are_found() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    slope, half = exponent(x, [3 * v**1.5 for v in x])
    assert slope == pytest.approx(1.5)
    assert half == pytest.approx(0, abs=1e-6)
    noisy = [3 * v * f for v, f in zip(x, (1.1, 0.9, 1.1, 0.9), strict=True)]
    slope, half = exponent(x, noisy)
    assert slope - half < 1 < slope + half


def test_collectives_are_counted() -> None:
    for sent, seconds in in_process_group(2, count_collectives):
        assert sent == 2 * 10 + 8  # an all-reduce of 10, an all-gather of 4 from each of two
        assert seconds > 0


def count_collectives() -> tuple[float, float]:
    collectives = Collectives()
    collectives.install()
    dist.all_reduce(torch.zeros(10))
    work = dist.all_gather_into_tensor(torch.zeros(8), torch.zeros(4), async_op=True)
    assert work
    work.wait()
    return collectives.sent, collectives.seconds


@pytest.mark.slow
def test_deepspeed_sends_what_the_formulas_say(tmp_path: Path) -> None:
    [smallest, *_] = measured.HIDDENS
    bases = measured.build_bases(tmp_path, [smallest])
    for one in measured.measure_workers(bases[smallest], 2, 1):
        moved = traffic(one.stage, one.parameters, one.micro_batches, "deepspeed")
        said = moved.gradients + moved.weights
        assert one.sent == pytest.approx(said, rel=0.02), f"ZeRO {one.stage}"


def test_the_slowest_worker_is_the_one_of_most_operations() -> None:
    config = SimpleNamespace(
        hidden_size=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        num_hidden_layers=1,
        vocab_size=32,
    )
    rows = SimpleNamespace(lengths_R=np.array([10, 20, 5]), supervised_R=np.array([5, 5, 5]))
    step = SimpleNamespace(ranks=(((0,), (2,)), ((1,), ())))
    found = simulation.slowest(config, rows, (step,))  # pyright: ignore[reportArgumentType]
    each = [simulation.worker_flops(config, rows, rank) for rank in step.ranks]
    assert found.tolist() == [max(each)] == [each[1]]
