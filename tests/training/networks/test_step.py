"""A step's gradient against one autograd graph through hypernetwork and networks; streams and schedules."""

import math
from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from ghnq.data import load
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.model import GHN
from ghnq.spaces import convnets
from ghnq.training.networks.architecture_stream import BLOCK, ArchitectureStream
from ghnq.training.networks.step import accumulate_gradients
from ghnq.training.recipe import Schedule
from ghnq.training.run.lr_schedule import rate_factor


def stream(**changes: int) -> ArchitectureStream:
    options = {"size": 3, "seed": 0, "reuse": 1} | changes
    return ArchitectureStream(input_shape=(1, 8, 8), num_classes=10, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cutting_the_graph_between_hypernetwork_and_networks_changes_nothing(smoothing: float) -> None:
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3)))
    batch = stream().meta_batch_at(0)
    pixels, labels = load("digits").train_batch(0, 24, 0)
    images, targets = torch.split(pixels, 8), torch.split(labels, 8)

    predicted = ghn(batch.graphs)
    logits = [functional_call(m, p, (x,)) for m, p, x in zip(batch.modules, predicted, images, strict=True)]
    losses = [F.cross_entropy(z, y, label_smoothing=smoothing) for z, y in zip(logits, targets, strict=True)]
    loss = torch.stack(losses).mean()
    wanted = torch.autograd.grad(loss, list(ghn.parameters()), allow_unused=True)

    result_of_step = accumulate_gradients(ghn, batch, images, targets, label_smoothing=smoothing)
    assert float(result_of_step.loss) == pytest.approx(loss.item(), rel=1e-5)
    right = [(z.argmax(1) == y).float().mean().item() for z, y in zip(logits, targets, strict=True)]
    assert float(result_of_step.accuracy) == pytest.approx(100 * sum(right) / 3, abs=1e-4)
    largest = max(float(w.abs().max()) for w in wanted if w is not None)
    for parameter, expected in zip(ghn.parameters(), wanted, strict=True):
        if expected is not None:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("encoder", ["graphormer", "mlp"])
def test_a_step_stays_on_its_device(encoder: Literal["graphormer", "mlp"]) -> None:
    """`meta` stands in for a device that is not here: it refuses tensors that were left on the CPU.

    `gatedgnn` is not among them: its loops over levels are the CPU's, whatever the device.
    """
    meta = torch.device("meta")
    ghn = GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3), encoder=encoder)).to(meta)
    batch = stream().meta_batch_at(0)
    images, labels = torch.empty(8, 1, 8, 8, device=meta), torch.empty(8, dtype=torch.long, device=meta)
    moved = replace(batch, graphs=batch.graphs.to(meta))
    result_of_step = accumulate_gradients(ghn, moved, (images,) * 3, (labels,) * 3)
    assert (result_of_step.loss.device, result_of_step.accuracy.device) == (meta, meta)
    with pytest.raises(RuntimeError, match="is not on the expected device"):
        accumulate_gradients(ghn, moved, (torch.empty(8, 1, 8, 8),) * 3, (labels,) * 3)


def test_the_stream_is_a_pure_function_of_the_step() -> None:
    forward, jumping = stream(reuse=3), stream(reuse=3)
    seen = [forward.indices(step) for step in range(12)]
    assert [jumping.indices(step) for step in reversed(range(12))] == seen[::-1]
    assert stream(reuse=3, seed=1).indices(5) != seen[5]


@pytest.mark.parametrize("reuse", [1, 4])
def test_architectures_are_used_as_often_as_asked_and_never_twice_in_a_step(reuse: int) -> None:
    source, steps = stream(size=5, reuse=reuse), 3 * BLOCK * reuse
    used = Counter(i for step in range(steps) for i in source.indices(step))
    assert set(used.values()) == {reuse}
    assert set(used) == set(range(3 * BLOCK * 5))
    assert all(len(set(source.indices(step))) == 5 for step in range(steps))


def test_an_architecture_comes_back_in_another_order_and_all_new_ones_come_at_once() -> None:
    source = stream(size=5, reuse=3)
    passes = [[source.indices(step) for step in range(i * BLOCK, (i + 1) * BLOCK)] for i in range(4)]
    first, second, third, new = [{i for step in each for i in step} for each in passes]
    assert first == second == third
    assert not first & new
    assert passes[0] != passes[1] != passes[2]


def test_with_a_fixed_assignment_every_process_has_equally_many_networks() -> None:
    parts = [stream(size=6, reuse=2, rank=rank, world_size=3, fixed_assignment=True) for rank in range(3)]
    assert {len(part.positions(step)) for part in parts for step in range(40)} == {2}
    owners = [{i: rank for rank, part in enumerate(parts) for i in part.meta_batch_at(s).indices} for s in range(32)]
    for index in {i for step in owners for i in step}:
        assert len({step[index] for step in owners if index in step}) == 1


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_the_meta_batch_of_one(world: int) -> None:
    whole = stream(size=5, reuse=2)
    parts = [stream(size=5, reuse=2, rank=rank, world_size=world) for rank in range(world)]
    for step in range(20):
        batches = [part.meta_batch_at(step) for part in parts]
        assert sorted(p for batch in batches for p in batch.positions) == list(range(5))
        found = {p: i for batch in batches for p, i in zip(batch.positions, batch.indices, strict=True)}
        assert tuple(found[p] for p in range(5)) == whole.indices(step)
        assert all(len(batch.modules) == len(batch.positions) >= 1 for batch in batches)


def test_the_stream_starts_over_at_the_end_of_the_split() -> None:
    steps = convnets.SPLITS["train"] // 3 + 1
    assert all(0 <= i < convnets.SPLITS["train"] for i in stream().indices(steps))


def test_the_rate_rises_then_falls() -> None:
    schedule = Schedule(name="cosine", warmup=10, final=0.1)
    assert rate_factor(schedule, step=0, progress=0) == pytest.approx(0.1)
    assert rate_factor(schedule, step=9, progress=0) == pytest.approx(1.0)
    assert rate_factor(schedule, step=500, progress=0.5) == pytest.approx(0.1 + 0.9 * 0.5)
    assert rate_factor(schedule, step=500, progress=1.0) == pytest.approx(0.1)
    assert rate_factor(schedule, step=500, progress=7.0) == pytest.approx(0.1)
    linear = Schedule(name="linear", warmup=0, final=0.0)
    assert rate_factor(linear, step=0, progress=0.25) == pytest.approx(0.75)
    assert math.isclose(rate_factor(Schedule(name="constant", warmup=0), step=3, progress=0.9), 1.0)


def test_the_rate_may_fall_in_the_last_part_alone() -> None:
    schedule = Schedule(name="linear", warmup=0, final=0.0, fall=0.25)
    assert [rate_factor(schedule, step=9, progress=p) for p in (0, 0.5, 0.75, 0.875, 1.0)] == pytest.approx(
        [1, 1, 1, 0.5, 0]
    )
    cosine = Schedule(name="cosine", warmup=0, final=0.1, fall=0.5)
    assert [rate_factor(cosine, step=9, progress=p) for p in (0.25, 0.75, 1.0)] == pytest.approx([1, 0.55, 0.1])


def test_the_rate_is_multiplied_at_milestones() -> None:
    """GHN-2: 300 epochs, divided by 10 after 200 and 250; the oracle is PyTorch's MultiStepLR, one step an epoch."""
    schedule = Schedule(name="step", warmup=0, milestones=(0.66666667, 0.83333333))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[200, 250], gamma=0.1)
    for epoch in range(300):
        # Not at a milestone itself, which is written with eight digits.
        if epoch not in (200, 250):
            assert rate_factor(schedule, step=epoch, progress=epoch / 300) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert rate_factor(schedule, step=300, progress=1.0) == pytest.approx(0.01)
    assert rate_factor(Schedule(name="step", warmup=10, milestones=(0.5,), gamma=0.2), step=4, progress=0.6) == (
        pytest.approx(0.5 * 0.2)
    )
