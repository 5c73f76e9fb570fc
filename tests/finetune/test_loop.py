"""Fine-tuning runs on a small network: what they reach, write, resume and refuse."""

from __future__ import annotations

import io
import json
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset
from ghnq.errors import CheckpointError, GhnqWarning, SchemeError, TrainingError
from ghnq.finetune import Settings, statistics
from ghnq.finetune.learner import Learner
from ghnq.finetune.measure import accuracy
from ghnq.finetune.statistics import statistics_images
from ghnq.prediction import Network, StoredWeights
from ghnq.prediction.held_out import hold_out
from ghnq.runs.interrupt import Interrupted
from ghnq.runs.state_files import STATE
from tests.finetune.conftest import Go, small_module


def log(run: Path, key: str = "loss") -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


@pytest.mark.parametrize("scheme", ["float32", "w4a8"])
def test_a_run_learns_and_its_files_hold_what_it_reports(go: Go, network: Network, tmp_path: Path, scheme: str) -> None:
    result = go(scheme, epochs=12)
    assert result.before["float32"] < 40
    assert result.after[scheme] > 80
    assert result.steps == round(12 * 270 / 32)  # 30 of 300 images are held out
    assert result.val is not None
    # The file loads strictly, and what it holds has the reported accuracy as ghnq deploys it.
    tensors = load_file(tmp_path / "run" / "weights.safetensors")
    small_module().load_state_dict(tensors, strict=True)
    stored = replace(network, weights=StoredWeights.read(tmp_path / "run"))
    quantized = stored.quantized(ghnq.QuantScheme.parse(scheme))
    assert accuracy(quantized, network.dataset, network.dataset.test) == result.after[scheme]
    with safe_open(tmp_path / "run" / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["data_sha256"] == network.dataset.content_hash
    assert metadata["input_shape"] == "1,8,8"
    assert metadata["scheme"] == scheme
    assert metadata["init"] == "kaiming"
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["after"] == result.after
    losses = log(tmp_path / "run")
    assert losses[-1][1] < losses[0][1]


def test_norms_end_with_the_statistics_of_the_weights_at_the_end(go: Go, network: Network, tmp_path: Path) -> None:
    result = go(epochs=0.3, lr=0.5)  # so few steps that running averages would be older than the run
    assert result.steps == 3
    tensors = load_file(tmp_path / "run" / "weights.safetensors")
    trained_on = hold_out(network.dataset)[0]
    images = [trained_on.train_batch(step, 32, 0)[0] for step in range(3, 3 + 4096 // 32)]
    outputs = nn.functional.conv2d(torch.cat(images).double(), tensors["0.weight"].double(), padding=1)
    torch.testing.assert_close(tensors["1.running_mean"].double(), outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(tensors["1.running_var"].double(), outputs.var((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_a_run_that_makes_the_network_worse_says_so(go: Go, network: Network, tmp_path: Path) -> None:
    go(epochs=12, out=tmp_path / "good")
    with pytest.warns(
        GhnqWarning, match=r"1 steps have made .* worse at float32: .* lower rate than --lr 50"
    ) as caught:
        go(weights=StoredWeights.read(tmp_path / "good"), epochs=0.1, lr=50.0, out=tmp_path / "worse")
    assert len(caught) == 1


def test_large_images_are_fewer(digits: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(statistics_images(digits, Settings(batch_size=32), 5)) == 4096
    monkeypatch.setattr(statistics, "MAX_VALUES", 100 * 64)
    images = statistics_images(digits, Settings(batch_size=32), 5)
    assert len(images) == 96  # whole batches
    assert torch.equal(images[:32], digits.train_batch(5, 32, 0)[0])
    assert len(statistics_images(digits, Settings(batch_size=200), 5)) == 200  # one at least


def test_equal_arguments_give_equal_weights_and_other_seeds_others(go: Go, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        go(out=tmp_path / name, epochs=1, seed=seed, lr=None)
    a, b, c = (load_file(tmp_path / name / "weights.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


class Stop:
    """Sends this process a signal in a step."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number = at, number

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        step = Learner.step

        def stopping(learner: Learner, number: int, lr: float, *, last: bool = False) -> object:
            if number == self.at:
                signal.raise_signal(self.number)
            return step(learner, number, lr, last=last)

        monkeypatch.setattr(Learner, "step", stopping)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_state_and_the_resumed_run_is_the_uninterrupted_one(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = go("w4a4", out=whole, epochs=4)
    with monkeypatch.context() as patch:
        Stop(13, number).install(patch)
        with pytest.raises(Interrupted) as stop:
            go("w4a4", out=broken, epochs=4)
    assert stop.value.signal == number
    assert not (broken / "weights.safetensors").exists()
    result = go("w4a4", out=broken, epochs=4, resume=True)
    assert log(broken) == log(whole)
    assert log(broken, "val/accuracy") == log(whole, "val/accuracy")
    assert result.after == expected.after
    a, b = (load_file(run / "weights.safetensors") for run in (whole, broken))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_budget_of_time_is_kept(go: Go) -> None:
    result = go(epochs=None, max_minutes=0.05, lr=None)
    assert result.steps > 1
    assert result.seconds < 60  # 3 s, and more on a machine that is busy


class Exploding(nn.Module):
    """A network whose loss is not finite where its weights are larger than a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.body, self.limit = small_module(), limit

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        if self.training and float(self.body[8].weight.detach().abs().max()) > self.limit:
            return logits * float("inf")
        return logits


class Fragile(Exploding):
    """A network whose loss is not finite once its weights have changed at all."""

    def __init__(self) -> None:
        super().__init__(float("inf"))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.limit == float("inf"):
            self.limit = float(self.body[8].weight.detach().abs().max())
        return super().forward(x) if self._is_first() else self.body(x) * float("inf")

    def _is_first(self) -> bool:
        return not self.training or float(self.body[8].weight.detach().abs().max()) == self.limit


def test_a_loss_that_is_not_finite_halves_the_rate_and_says_so(go: Go, tmp_path: Path) -> None:
    said = io.StringIO()
    result = go(module=Exploding(1.0), lr=2.0, epochs=3, console=Console(file=said))
    assert 1 <= result.rollbacks <= 2
    assert result.lr == 2 * 0.5**result.rollbacks
    assert "back to step 0, and on with half the learning rate (up to 1)" in said.getvalue()
    assert all(torch.isfinite(t).all() for t in load_file(result.weights).values())


def test_a_loss_that_stays_not_finite_ends_the_run_with_what_to_do(go: Go, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"for the third time.* lower --lr"):
        go(module=Fragile())
    assert (tmp_path / "run" / STATE).exists()


def test_a_loss_that_is_not_finite_from_the_start_is_not_blamed_on_the_rate(go: Go, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"before the first update, so no learning rate helps"):
        go(module=Exploding(0.0))
    assert (tmp_path / "run" / STATE).exists()


def test_a_teacher_is_imitated(go: Go, network: Network, tmp_path: Path) -> None:
    go(out=tmp_path / "teacher", epochs=10)
    teacher = replace(network, weights=StoredWeights.read(tmp_path / "teacher")).prepared(
        ghnq.QuantScheme.parse("float32")
    )
    images = network.dataset.normalise(network.dataset.test.pixels)

    def divergence(run: Path) -> float:
        module = small_module()
        module.load_state_dict(load_file(run / "weights.safetensors"))
        with torch.no_grad():
            own, target = (net.eval()(images).log_softmax(1) for net in (module, teacher.network))
            return float(nn.functional.kl_div(own, target, reduction="batchmean", log_target=True))

    go(out=tmp_path / "alone", epochs=2)
    go(out=tmp_path / "taught", epochs=2, teacher=teacher.network, teacher_share=1.0)
    assert divergence(tmp_path / "taught") < divergence(tmp_path / "alone")


def test_a_folder_with_a_run_is_only_continued_when_that_is_asked_for(go: Go, tmp_path: Path) -> None:
    result = go(epochs=1)
    with pytest.raises(TrainingError, match="already holds a run; add --resume"):
        go(epochs=1)
    assert go(epochs=1, resume=True).after == result.after  # finished: measured again
    with pytest.raises(TrainingError, match=r"--epochs \(was 1, now 2\)"):
        go(epochs=2, resume=True)
    with pytest.raises(TrainingError, match=r"--scheme \(was float32, now w4a8\)"):
        go("w4a8", epochs=1, resume=True)
    with pytest.raises(CheckpointError, match="does not fit small, which has changed"):
        go(epochs=1, resume=True, module=nn.Sequential(*small_module()[:-1], nn.Linear(64, 12)))
    with pytest.raises(CheckpointError, match="no training state"):
        go(out=tmp_path / "other", resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "--epochs 0 leaves nothing to train"),
        ({"epochs": None, "max_minutes": -1}, "--max-minutes -1 leaves nothing"),
        ({"epochs": 1, "max_minutes": 1}, "two budgets"),
        ({"batch_size": 1}, "at least 2 images"),
        ({"lr": 0}, "--lr is 0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"start": "warm"}, "no start 'warm'"),
    ],
)
def test_settings_that_make_no_sense(go: Go, tmp_path: Path, settings: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        go(**settings)
    assert not (tmp_path / "run").exists()


def test_a_scheme_that_the_network_cannot_have_leaves_no_files(go: Go, tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match="matches no layer"):
        go("w4a8+head=w8a8")
    assert not (tmp_path / "run").exists()


def test_a_frozen_network_is_refused(go: Go) -> None:
    with pytest.raises(TrainingError, match="nothing to train"):
        go(module=small_module().requires_grad_(False))
