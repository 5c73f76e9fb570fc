"""One architecture: against the public functions in the plainest order, and with networks that break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset
from ghnq.errors import SchemeError
from ghnq.evaluation.evaluator import Evaluator
from ghnq.graph.ir import ArchGraph
from ghnq.hypernet import GHN
from ghnq.quant import QuantScheme, prepare
from ghnq.spaces import convnets
from ghnq.torch_threads import one_torch_thread
from tests.small_networks import small_ghn

SCHEMES = ("float32", "w8a8", "w4a4", "w2")


def evaluator(ghn: GHN, digits: ImageDataset, protocol: str = "deploy") -> Evaluator:
    return Evaluator(ghn, digits, digits.test, digits.calibration(50, 3), protocol)


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
def test_counts_equal_those_of_the_public_functions(ghn: GHN, digits: ImageDataset, protocol: str) -> None:
    for split, index in (("test", 3), ("bnfree", 1)):
        with one_torch_thread():
            rows = evaluator(ghn, digits, protocol).measure(split, index, SCHEMES)
            spec = convnets.spec(split, index)
            module = convnets.build(spec, in_channels=1, num_classes=10)
            # Layouts differ in the last bits of a sum, which 4-bit activations may turn into another answer.
            network = ghnq.initialize(module, ghn, (1, 8, 8)).to(memory_format=torch.channels_last)
            prepared = prepare(network, digits.calibration(50, 3), standardise=True)
            for row, scheme in zip(rows, SCHEMES, strict=True):
                quantized = prepared.quantize(scheme, protocol=protocol)
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


def test_rows_do_not_depend_on_the_other_schemes(ghn: GHN, digits: ImageDataset) -> None:
    alone = [evaluator(ghn, digits).measure("test", 5, (scheme,))[0] for scheme in SCHEMES]
    assert evaluator(ghn, digits).measure("test", 5, SCHEMES) == alone
    assert evaluator(ghn, digits).measure("test", 5, SCHEMES[::-1]) == alone[::-1]


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
    rows = evaluator(broken, digits).measure("bnfree", index, ("float32", "w8a8"))
    assert [(row["correct"], row["nonfinite"]) for row in rows] == [(0, 40), (0, 40)]


def test_errors_of_sound_networks_are_not_swallowed(
    ghn: GHN, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> nn.Module:
        raise SchemeError("not this one")

    monkeypatch.setattr("ghnq.quant.Prepared.quantize", refuse)
    with pytest.raises(SchemeError, match="not this one"):
        evaluator(ghn, digits).measure("test", 0, ("w8a8",))
