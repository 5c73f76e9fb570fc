"""Norms that are not called as modules: their statistics and what is quantized behind them equal those of modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.deploy import export_onnx
from ghnq.deploy.onnx import runtime
from ghnq.quant import QuantScheme, estimate_batch_norm, prepare, quantize
from ghnq.torch_compat import BatchNorm
from tests.quant.nets import images, randomise

CALIBRATION, TEST = images(64), images(32, seed=2)


class OwnNorm(nn.Module):
    """A batch norm with buffers of its own, through one of the two functions there are."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.register_buffer("m", torch.zeros(8))
        self.register_buffer("v", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        m, v = self.get_buffer("m"), self.get_buffer("v")
        if self.function == "torch":
            return torch.batch_norm(x, self.weight, self.bias, m, v, self.training, 0.1, 1e-5, False)
        if self.function == "keywords":
            return F.batch_norm(input=x, running_var=v, running_mean=m, weight=self.weight, bias=self.bias)
        return F.batch_norm(x, m, v, self.weight, self.bias, self.training)


class Called(nn.Module):
    """Calls the forward of a norm itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm.forward(x)


class ByHand(nn.BatchNorm2d):
    """Computes its statistics without `F.batch_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.training:
            momentum = 0.0 if self.momentum is None else self.momentum
            self.running_mean.lerp_(x.mean((0, 2, 3)), momentum)
            self.running_var.lerp_(x.var((0, 2, 3)), momentum)
        gain = self.weight * (self.running_var + self.eps).rsqrt()
        return (x - self.running_mean[:, None, None]) * gain[:, None, None] + self.bias[:, None, None]


def net(norm: nn.Module) -> nn.Sequential:
    """Two convolutions with the norm in between, in which the second one sees what is normalised."""
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    for seed, layer in enumerate(made):
        if layer is not norm:
            randomise(layer, seed)
    for parameter, values in zip(norm.parameters(), ((0.5, 2), (-1, 1)), strict=True):
        parameter.data.copy_(torch.linspace(*values, 8))
    return made.eval()


def statistics(network: nn.Module) -> list[Tensor]:
    found = [buffer for buffer in network.buffers() if buffer.dim() == 1]
    return found[:2]


OTHERS = {
    "F": lambda: OwnNorm("F"),
    "keywords": lambda: OwnNorm("keywords"),
    "torch": lambda: OwnNorm("torch"),
    "forward": Called,
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("batch_size", [10, 64])
def test_statistics_are_those_of_a_norm_that_is_called(name: str, batch_size: int) -> None:
    expected = statistics(estimate_batch_norm(net(nn.BatchNorm2d(8)), CALIBRATION, batch_size))
    given = net(OTHERS[name]())
    before = [buffer.clone() for buffer in given.buffers()]
    assert all(map(torch.equal, statistics(estimate_batch_norm(given, CALIBRATION, batch_size)), expected))
    assert all(map(torch.equal, before, given.buffers()))


def test_a_norm_that_computes_its_statistics_itself() -> None:
    expected = statistics(estimate_batch_norm(net(nn.BatchNorm2d(8)), CALIBRATION, 10))
    for found, right in zip(statistics(estimate_batch_norm(net(ByHand(8)), CALIBRATION, 10)), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("scheme", ["w8a8", "w2a8"])
def test_the_quantized_network_is_that_of_a_norm_that_is_not_folded(name: str, scheme: str, tmp_path: Path) -> None:
    unfolded = QuantScheme.parse(scheme, fold=False)
    with torch.no_grad():
        expected = quantize(net(nn.BatchNorm2d(8)), unfolded, calibration=CALIBRATION)(TEST)
        assert torch.equal(quantize(net(OTHERS[name]()), scheme, calibration=CALIBRATION)(TEST), expected)
    if scheme == "w8a8":
        out = tmp_path / "net.onnx"
        export_onnx(net(OTHERS[name]()), scheme, calibration=CALIBRATION, out=out, batch_size=64)
        logits = runtime.run(runtime.session(out.read_bytes()), TEST)
        assert float((logits - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_statistics_that_are_kept_are_kept_in_buffers_too() -> None:
    given = net(OwnNorm("F"))
    before = [buffer.clone() for buffer in given.buffers()]
    assert all(map(torch.equal, before, prepare(given, CALIBRATION, keep_statistics=True).network.buffers()))
    assert not any(isinstance(module, BatchNorm) for module in given.modules())
