"""Networks that cannot be quantized and invalid arguments: the error names what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ghnq.errors import DataError, SchemeError
from ghnq.quant import quantize
from tests.quant.nets import CALIBRATION, TEST, images, network, quant_layers


class Own(nn.Conv2d):
    """A convolution with a forward pass of its own, whose weight depends on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight * x.mean())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.inner(tokens, tokens, tokens)[0]


@pytest.mark.parametrize(
    ("odd", "part"),
    [
        (Own(3, 4, 3), "conv2d in 'inner': Own overrides `forward`"),
        (Attention(), "inner.inner"),
    ],
)
def test_functions_with_weights_are_refused_unless_in_float(odd: nn.Module, part: str) -> None:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 3, 1))
    net.add_module("inner", odd)
    with pytest.raises(SchemeError, match=part):
        quantize(net, "w8a8", calibration=images(4))
    with torch.no_grad():
        assert quantize(net, "float32", calibration=images(4))(images(2)).isfinite().all()


def test_layers_that_never_run_remain_in_float() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.aux(x) if self.training else self.main(x)

    simulated = quantize(Auxiliary(), "w8a8", calibration=images(4))
    assert [name for name, _ in quant_layers(simulated)] == ["main"]
    with pytest.raises(SchemeError, match="'aux' matches no layer"):
        quantize(Auxiliary(), "w8a8+aux=w4", calibration=images(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    net = network()
    with torch.no_grad():
        net.get_submodule("3.conv2").weight[2, 0, 1, 1] = value
    with pytest.raises(SchemeError, match=r"layer '3.conv2': 1 of 72 values of its weight"):
        quantize(net, "w8a8", calibration=CALIBRATION)


def test_activations_that_are_not_finite_are_refused() -> None:
    class Explodes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0

    net = nn.Sequential(nn.Conv2d(3, 4, 1), Explodes(), nn.Conv2d(4, 4, 1))
    with pytest.raises(SchemeError, match="layer '2': its input"):
        quantize(net, "w8a8", calibration=CALIBRATION)
    net.append(nn.BatchNorm2d(4))
    with pytest.raises(SchemeError, match=r"layer '3'.*running_mean"):
        quantize(net, "w8a8", calibration=CALIBRATION)
    with torch.no_grad():  # in float it runs as it is, and shows it
        assert bool(quantize(net, "float32", calibration=CALIBRATION)(TEST).isnan().any())


@pytest.mark.parametrize(
    ("calibration", "part"),
    [
        (torch.zeros(4, 1, 16, 16), r"cannot run.*\(4, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16), r"\[B, C, H, W\]"),
        (torch.zeros(0, 3, 16, 16), "at least 2"),
        (torch.full((4, 3, 16, 16), float("nan")), "NaN"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.int64), "normalised floats"),
    ],
)
def test_invalid_calibration_images_are_refused(calibration: Tensor, part: str) -> None:
    with pytest.raises(DataError, match=part):
        quantize(network(), "w8a8", calibration=calibration)


class ForBatches(nn.Module):
    """Runs a fixed number of images only, and raises an error of its own for others."""

    def __init__(self, refuse: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.refuse = nn.Linear(768, 10), refuse

    def forward(self, x: Tensor) -> Tensor:
        self.refuse(x)
        return self.layer(x.flatten(1))


def insist(right: bool) -> None:
    assert right


@pytest.mark.parametrize(
    ("refuse", "count", "says"),
    [
        (lambda x: x.reshape(2, 768), 3, "shape"),
        (lambda x: x.sum((1, 2, 3)) + torch.zeros(2), 3, "must match"),
        (lambda x: insist(len(x) == 2), 3, ""),
        (lambda x: insist(len(x) == 3), 2, ""),
        (lambda x: x[3], 3, "out of bounds"),
        (lambda x: x.reshape(64, 768), 3, "shape"),
    ],
)
@pytest.mark.parametrize("scheme", ["w8a8", "float32"])
def test_networks_with_a_fixed_batch_size_are_refused(
    refuse: Callable[[Tensor], object], count: int, says: str, scheme: str
) -> None:
    with pytest.raises(DataError, match=rf"cannot run {count} of .*{says}.*in any number"):
        quantize(ForBatches(refuse), scheme, calibration=CALIBRATION)


def test_two_images_are_enough_to_calibrate() -> None:
    assert quantize(network(), "w8a8", calibration=CALIBRATION[:2])(TEST).shape == (len(TEST), 10)


def test_other_invalid_arguments_are_refused() -> None:
    with pytest.raises(SchemeError, match="did you mean 'paper'"):
        quantize(network(), "w8a8", calibration=CALIBRATION, protocol="papr")
    with pytest.raises(SchemeError, match="no convolution or linear layer"):
        quantize(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), "w8a8", calibration=CALIBRATION)
    assert quantize(nn.Sequential(nn.ReLU()), "float32", calibration=CALIBRATION)(TEST).shape == TEST.shape
    with pytest.raises(SchemeError, match="meta device"):
        quantize(network().to("meta"), "w8a8", calibration=CALIBRATION)
    with pytest.raises(DataError, match="batch_size"):
        quantize(network(), "w8a8", calibration=CALIBRATION, batch_size=0)


def test_a_network_that_is_one_layer_is_refused() -> None:
    """A quantized layer replaces a child of the network, so the network itself cannot be replaced."""
    images = torch.randn(8, 3, 8, 8)
    with pytest.raises(SchemeError, match=r"is a layer itself; put it into nn\.Sequential"):
        quantize(nn.Conv2d(3, 10, 8), "w8a8", calibration=images)
    assert quantize(nn.Conv2d(3, 10, 8), "float32", calibration=images)(images).shape == (8, 10, 1, 1)
