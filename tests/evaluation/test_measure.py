"""One architecture: against the public functions in the plainest order, and with networks that break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset, Images
from ghnq.errors import SchemeError
from ghnq.evaluation.measure import BATCH, Bench, count_correct, one_torch_thread
from ghnq.graph.ir import ArchGraph
from ghnq.hypernet import GHN
from ghnq.quant import QuantScheme
from ghnq.spaces import convnets
from tests.evaluation.conftest import small_ghn

SCHEMES = ("float32", "w8a8", "w4a4", "w2")


def bench(ghn: GHN, digits: ImageDataset, protocol: str = "deploy") -> Bench:
    return Bench(ghn, digits, digits.test, digits.calibration(50, 3), protocol)


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_counts_equal_the_plain_way(ghn: GHN, digits: ImageDataset, protocol: str) -> None:
    for split, index in (("test", 3), ("bnfree", 1)):
        with one_torch_thread():
            rows = bench(ghn, digits, protocol).measure(split, index, SCHEMES)
            spec = convnets.spec(split, index)
            module = convnets.build(spec, in_channels=1, num_classes=10)
            # Layouts differ in the last bits of a sum, which 4-bit activations may turn into another answer.
            network = ghnq.initialize(module, ghn, (1, 8, 8)).to(memory_format=torch.channels_last)
            for row, scheme in zip(rows, SCHEMES, strict=True):
                quantized = ghnq.quantize(network, scheme, calibration=digits.calibration(50, 3), protocol=protocol)
                logits = quantized(digits.normalise(digits.test.pixels)).tolist()
                right = 0
                for scores, label in zip(logits, digits.test.labels.tolist(), strict=True):
                    right += max(range(10), key=lambda k, scores=scores: scores[k]) == label
                assert row["correct"] == right
                assert (row["split"], row["index"], row["scheme"]) == (split, index, scheme)
                assert (row["images"], row["nonfinite"], row["protocol"]) == (40, 0, protocol)
                assert row["structure_hash"] == spec.structure_hash
                assert row["parameters"] == sum(parameter.numel() for parameter in module.parameters())
                assert row["multiply_adds"] == ghnq.trace(module, (1, 8, 8)).multiply_adds


def test_rows_do_not_hang_on_the_company_of_other_schemes(ghn: GHN, digits: ImageDataset) -> None:
    alone = [bench(ghn, digits).measure("test", 5, (scheme,))[0] for scheme in SCHEMES]
    assert bench(ghn, digits).measure("test", 5, SCHEMES) == alone
    assert bench(ghn, digits).measure("test", 5, SCHEMES[::-1]) == alone[::-1]


class ReadsItsAnswer(nn.Module):
    """Logits that say what the first pixel says; some are broken on purpose."""

    def __init__(self, dataset: ImageDataset, broken: float = 0.0) -> None:
        super().__init__()
        self.dataset, self.broken = dataset, broken

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) <= BATCH
        first = (x[:, 0, 0, 0] * self.dataset.std[0] + self.dataset.mean[0]).mul(255).round().long()
        logits = nn.functional.one_hot(first, 10).float()
        if self.broken:
            logits[first == 3, 3] = self.broken  # argmax would still say 3
            logits[first == 4, 9] = -self.broken
        return logits


def answers(count: int) -> ImageDataset:
    """Images whose first pixel is a class number, right for every image but each seventh."""
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(count) % 10
    said = torch.where(torch.arange(count) % 7 == 0, (labels + 1) % 10, labels)
    pixels[:, 0, 0, 0] = said.to(torch.uint8)
    images = Images(pixels, labels)
    return ImageDataset.build("answers", images, images, tuple("abcdefghij"), flip=False)


@pytest.mark.parametrize("count", [1, 7, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 13])
def test_every_image_is_counted_once(count: int) -> None:
    dataset = answers(count)
    right = sum(index % 7 != 0 for index in range(count))
    result = count_correct(ReadsItsAnswer(dataset), dataset, dataset.test)
    assert (result.correct, result.nonfinite) == (right, 0)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_logits_that_are_no_numbers_count_as_wrong_and_are_counted(broken: float) -> None:
    dataset = answers(700)
    said = dataset.test.pixels[:, 0, 0, 0]
    affected = (said == 3) | (said == 4)
    result = count_correct(ReadsItsAnswer(dataset, broken), dataset, dataset.test)
    assert result.nonfinite == int(affected.sum())
    assert result.correct == int(((said == dataset.test.labels) & ~affected).sum())


class Scaled(GHN):
    """Predicts weights that are `factor` times what they should be."""

    factor = 1.0

    def predict(
        self, graph: ArchGraph, scheme: str | QuantScheme = "float32", *, channels_last: bool = False
    ) -> dict[str, Tensor]:
        predicted = super().predict(graph, scheme, channels_last=channels_last)
        return {name: tensor * self.factor for name, tensor in predicted.items()}


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e30])
def test_networks_that_overflow_are_measured_as_wrong(digits: ImageDataset, factor: float) -> None:
    plain = small_ghn()
    broken = Scaled(plain.config).eval()
    broken.load_state_dict(plain.state_dict())
    broken.factor = factor
    for index in range(20):  # the first without batch norm, which would take the factor out again
        if not any(
            isinstance(part, nn.BatchNorm2d) for part in convnets.build(convnets.spec("bnfree", index)).modules()
        ):
            break
    rows = bench(broken, digits).measure("bnfree", index, ("float32", "w8a8"))
    assert [(row["correct"], row["nonfinite"]) for row in rows] == [(0, 40), (0, 40)]


def test_errors_of_sound_networks_are_not_swallowed(
    ghn: GHN, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> nn.Module:
        raise SchemeError("not this one")

    monkeypatch.setattr("ghnq.quant.Prepared.quantize", refuse)
    with pytest.raises(SchemeError, match="not this one"):
        bench(ghn, digits).measure("test", 0, ("w8a8",))


def test_torch_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), one_torch_thread():
        raise KeyError
    assert torch.get_num_threads() == before
