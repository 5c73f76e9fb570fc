"""The parts of a fine-tuning run, each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ghnq.data import ImageDataset
from ghnq.errors import CheckpointError, GraphError, SchemeError
from ghnq.finetune.build import trainable_network
from ghnq.finetune.job import Settings
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.learner import Learner
from ghnq.finetune.rate import HIGHEST, LOWEST, find_rate, rate_of_predicted
from ghnq.finetune.schedule import LAST, RISE, Plan, one_cycle, steps_within
from ghnq.graph import trace
from ghnq.prediction import Network, StoredWeights
from ghnq.prediction.held_out import MAX_HELD_OUT, hold_out
from ghnq.quant import QuantScheme
from ghnq.runs.distributed.worker_group import WorkerGroup
from tests.finetune.conftest import small_module

FLOAT32 = QuantScheme.parse("float32")


def test_the_rate_rises_and_falls_once() -> None:
    rates = [one_cycle(i / 1000) for i in range(1001)]
    top = rates.index(max(rates))
    assert top == 1000 * RISE
    assert max(rates) == 1
    assert rates[-1] == pytest.approx(LAST)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(st.integers(2, 500), st.lists(st.tuples(st.integers(1, 499), st.integers(0, 600)), max_size=5))
def test_a_corrected_plan_goes_on_where_it_was_and_ends_at_one(total: int, corrections: list[tuple[int, int]]) -> None:
    plan = Plan(total)
    for step, new in sorted(corrections):
        if plan.since < step < plan.total:
            before = plan.progress(step)
            plan = plan.corrected(step, new)
            assert plan.progress(step) == pytest.approx(before)
            assert plan.total > step
    done = [plan.progress(step) for step in range(plan.since, plan.total + 1)]
    assert done == sorted(done)
    assert done[-1] == 1


def test_time_is_translated_into_steps() -> None:
    assert steps_within(10, 0.5) == 20
    assert steps_within(0.1, 5) == 1
    assert steps_within(-1, 5) == 1


@pytest.mark.parametrize(
    ("settings", "images", "steps"),
    [
        (Settings(epochs=2, batch_size=100), 1000, 20),
        (Settings(epochs=0.001), 1000, 1),
        (Settings(batch_size=100), 50_000, 2500),
        (Settings(batch_size=100), 1000, 500),
    ],
)
def test_steps_of_a_budget(settings: Settings, images: int, steps: int) -> None:
    assert settings.steps(images) == steps


def test_held_out_images_are_balanced_and_not_trained_on(digits: ImageDataset) -> None:
    train, val = hold_out(digits)
    assert val is not None
    assert (len(train.train), len(val)) == (270, 30)
    assert val.labels.bincount(minlength=10).tolist() == [3] * 10
    rows = {tuple(image.flatten().tolist()) for image in train.train.pixels}
    assert not rows & {tuple(image.flatten().tolist()) for image in val.pixels}
    assert MAX_HELD_OUT < 50_000 // 10


def learner(network: Network, scheme: str = "float32") -> Learner:
    trainable = trainable_network(network, QuantScheme.parse(scheme), "identity")
    return Learner(trainable, network.dataset, Settings(batch_size=32), None, WorkerGroup())


@pytest.mark.filterwarnings("ignore:.*untested:ghnq.errors.GhnqWarning")
@pytest.mark.parametrize("scheme", ["float32", "w4a8"])
def test_computed_weights_are_refused_before_the_training(network: Network, scheme: str) -> None:
    module = network.module
    assert isinstance(module, nn.Sequential)
    module[3] = nn.utils.parametrizations.weight_norm(module[3])
    with pytest.raises(SchemeError, match=r"'3\.parametrizations\.weight\.original0' \(weight_norm"):
        learner(network, scheme)


def test_a_range_test_finds_a_usable_rate_and_changes_nothing(network: Network) -> None:
    student = learner(network)
    before = student.snapshot()
    found = find_rate(student, max_seconds=None)
    assert LOWEST < found.lr < HIGHEST
    after = student.snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_rate_of_predicted_weights_grows_with_the_budget_and_the_batch() -> None:
    rates = [rate_of_predicted(steps, 128) for steps in (1, 70, 351, 700, 1000, 10**6)]
    assert rates == sorted(rates)
    assert rates[2] == pytest.approx(0.1, rel=0.01)  # 45,000 images
    assert rates[0] == pytest.approx(rates[2] / 351)
    assert rates[-2:] == [0.2, 0.2]
    assert rate_of_predicted(10**6, 64) == 0.1
    assert rate_of_predicted(100, 64) == rate_of_predicted(50, 128) / 2  # as many images


def test_the_step_is_nesterovs_on_the_augmented_batch_with_decay_of_weights_only(network: Network) -> None:
    student = learner(network)
    reference = trainable_network(network, FLOAT32, "identity")
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in reference.parameters() if p.dim() > 1], "weight_decay": 5e-4},
            {"params": [p for p in reference.parameters() if p.dim() == 1]},
        ],
        lr=0.05, momentum=0.9, nesterov=True,
    )  # fmt: skip
    for number in range(3):
        images, labels = network.dataset.train_batch(number, 32, 0)
        loss = nn.functional.cross_entropy(reference(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 2.0)
        optimizer.step()
        report = student.step(number, 0.05)
        assert report.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for own, expected in zip(student.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


class TestKaiming:
    """Random weights."""

    def test_scale_and_seed(self) -> None:
        module = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64 * 36, 10))
        graph = trace(module, (32, 8, 8))
        first, again, other = (KaimingWeights(s).network(module, graph, FLOAT32) for s in (0, 0, 1))
        assert torch.equal(first[0].weight, again[0].weight)
        assert not torch.equal(first[0].weight, other[0].weight)
        assert float(first[0].weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
        assert not torch.equal(first[0].weight, module[0].weight)
        assert torch.equal(first[1].weight, torch.ones(64))

    def test_meta(self) -> None:
        with torch.device("meta"):
            module = small_module()
        network = KaimingWeights().network(module, trace(module, (1, 8, 8)), FLOAT32)
        assert network(torch.zeros(2, 1, 8, 8)).isfinite().all()

    def test_a_parameter_without_an_initial_value_is_refused(self) -> None:
        class Scale(nn.Module):
            """Has a parameter and no reset_parameters."""

            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.scale

        with torch.device("meta"):
            module = nn.Sequential(nn.Conv2d(1, 2, 3), Scale(), nn.Flatten(), nn.Linear(72, 10))
        graph = trace(small_module(), (1, 8, 8))  # any graph: it is not looked at
        with pytest.raises(GraphError, match=r"'1' \(Scale\) has no reset_parameters"):
            KaimingWeights().network(module, graph, FLOAT32)


class TestStoredWeights:
    """Weights of files that do not fit."""

    def stored(self, tmp_path: Path) -> StoredWeights:
        module = small_module()
        StoredWeights.of(module, module, {"num_classes": "10"}).save(tmp_path / "net.safetensors")
        return StoredWeights.read(tmp_path / "net.safetensors")

    def test_other_names(self, tmp_path: Path) -> None:
        module = nn.Sequential()
        for name, child in small_module().named_children():
            module.add_module("head" if name == "8" else name, child)
        with pytest.raises(CheckpointError, match=r"net.safetensors' has no 'head.weight'.*another model"):
            self.stored(tmp_path).network(module, trace(module, (1, 8, 8)), FLOAT32)

    def test_other_shapes(self, tmp_path: Path) -> None:
        module = small_module()
        module[8] = nn.Linear(64, 11)
        with pytest.raises(CheckpointError, match=r"'8.weight' has shape \(10, 64\).*\(11, 64\) in the model"):
            self.stored(tmp_path).network(module, trace(module, (1, 8, 8)), FLOAT32)

    def test_missing_file(self, tmp_path: Path) -> None:
        self.stored(tmp_path)
        with pytest.raises(CheckpointError, match=r"did you mean 'net.safetensors'"):
            StoredWeights.read(tmp_path / "nett.safetensors")

    def test_not_safetensors(self, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            StoredWeights.read(tmp_path / "a.safetensors")
