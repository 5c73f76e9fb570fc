"""One network: what is done once, what is done for each scheme, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.data import ImageDataset
from ghnq.errors import DataError
from ghnq.graph import ArchGraph
from ghnq.hypernet import GHN, with_parameters
from ghnq.prediction import Network, PredictedWeights, WeightSource
from ghnq.quant import QuantScheme

FLOAT32, W4A8 = QuantScheme.parse("float32"), QuantScheme.parse("w4a8")


def small_module(outputs: int = 10) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, outputs))


class Fixed:
    """Parameters that are there already, as those of a file would be."""

    def __init__(self, module: nn.Module, depends_on_scheme: bool = False) -> None:
        self.parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
        self.depends_on_scheme = depends_on_scheme
        self.standardise = self.keep_statistics = False
        self.trained_through = None
        self.schemes: list[str] = []

    def check_dataset(self, dataset: ImageDataset) -> None:
        if dataset.num_classes != 10:
            raise DataError("ten classes")

    def network(self, module: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> nn.Module:
        assert graph.num_parameters == sum(tensor.numel() for tensor in self.parameters.values())
        self.schemes.append(str(scheme))
        return with_parameters(module, self.parameters)


def network(weights: WeightSource, digits: ImageDataset, module: nn.Module | None = None) -> Network:
    return Network(module or small_module(), weights, digits, digits.calibration(40, 0))


def logits(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(images)
    return result


@pytest.mark.parametrize("scheme", [FLOAT32, W4A8])
def test_quantized_is_what_the_public_functions_give(ghn: GHN, digits: ImageDataset, scheme: QuantScheme) -> None:
    module, images = small_module(), digits.normalise(digits.test.pixels)
    expected = ghnq.quantize(
        ghnq.initialize(module, ghn, (1, 8, 8)), scheme, calibration=digits.calibration(40, 0)
    )  # fmt: skip
    quantized = network(PredictedWeights(ghn), digits, module).quantized(scheme)
    torch.testing.assert_close(logits(quantized, images), logits(expected, images), rtol=0, atol=0)


def test_any_source_of_parameters_will_do(digits: ImageDataset) -> None:
    module, images = small_module(), digits.normalise(digits.test.pixels)
    expected = ghnq.quantize(module, W4A8, calibration=digits.calibration(40, 0))
    quantized = network(Fixed(module), digits, module.to("meta")).quantized(W4A8)
    torch.testing.assert_close(logits(quantized, images), logits(expected, images), rtol=0, atol=0)


@pytest.mark.parametrize(("depends", "asked"), [(False, ["float32"]), (True, ["w4a8", "float32", "w4a8"])])
def test_parameters_are_asked_for_as_often_as_they_change(
    digits: ImageDataset, depends: bool, asked: list[str]
) -> None:
    module = small_module()
    weights = Fixed(module, depends)
    one = network(weights, digits, module)
    for scheme in (W4A8, FLOAT32, W4A8):
        one.prepared(scheme)
    assert weights.schemes == asked


def test_images_that_the_weights_are_not_meant_for_are_refused(digits: ImageDataset) -> None:
    two = ImageDataset.build("two", digits.train, digits.test, (*digits.class_names, "none"), flip=False)
    with pytest.raises(DataError, match="ten classes"):
        network(Fixed(small_module()), two)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small_module(4), "The model has 4 outputs, 'few digits' has 10 classes"),
        (lambda: nn.Sequential(*list(small_module())[:-2]), r"a tensor of shape \[2, 4, 6, 6\]"),
    ],
)
def test_outputs_that_are_not_logits_are_refused(
    digits: ImageDataset, build: Callable[[], nn.Module], message: str
) -> None:
    module = build()
    with pytest.raises(DataError, match=message):
        network(Fixed(module), digits, module).prepared(W4A8)
