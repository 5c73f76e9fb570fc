"""What tracing and quantization both say about a network: random functions, layers in plain lists, float products."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ghnq
from ghnq.errors import GhnqWarning, SchemeError
from ghnq.quant import quantize
from tests.quant.nets import images
from tests.small_networks import small_ghn

CALIBRATION = images(16)


class Body(nn.Module):
    """A convolution, a function, and a linear layer."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x),
    "dropout ": lambda x: F.dropout(x, 0.1, inplace=False),
    "dropout  ": lambda x: torch.dropout(x, 0.5, True),
    "dropout2d": lambda x: F.dropout2d(x, p=0.2),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, True),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.3, True),
    "rand_like": lambda x: x * torch.rand_like(x),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.1),
}


@pytest.mark.parametrize("name", RANDOM)
def test_functions_that_are_random_in_eval_mode_are_named(name: str) -> None:
    said = rf"Body: random in eval mode as well: `{name.strip()}` in the network;"
    with pytest.warns(GhnqWarning, match=said):
        ghnq.trace(Body(RANDOM[name]), (3, 16, 16))
    with pytest.warns(GhnqWarning, match=said):
        quantize(Body(RANDOM[name]), "w8a8", calibration=CALIBRATION)


QUIET: dict[str, Callable[[Tensor], Tensor]] = {
    "not training": lambda x: F.dropout(x, 0.5, False),
    "keyword": lambda x: F.dropout2d(x, training=False),
    "p = 0": lambda x: F.dropout(x, 0.0),
    "default": lambda x: F.alpha_dropout(x),
    "rrelu": lambda x: F.rrelu(x),
    "module": nn.Dropout(0.5).eval(),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", QUIET)
def test_functions_that_are_not_random_are_not_named(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ghnq.trace(Body(QUIET[name]), (3, 16, 16))
        quantize(Body(QUIET[name]), "w8a8", calibration=CALIBRATION)


class Functional(nn.Module):
    """A norm by function, in a submodule."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.inner, self.head = Body(function), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))  # type: ignore[no-any-return]


BATCH: dict[str, Callable[[Tensor], Tensor]] = {
    "no statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "by position": lambda x: F.batch_norm(x, None, None, None, None, True),
    "of torch": lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False),
    "with statistics": lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8), training=True),
}


@pytest.mark.parametrize("name", BATCH)
def test_norms_by_function_with_the_statistics_of_the_batch_are_named(name: str) -> None:
    said = r"statistics of the batch in eval mode as well: `batch_norm` in 'inner'; the result for an image depends on"
    with pytest.warns(GhnqWarning, match=rf"Functional: normalised with the {said}"):
        ghnq.trace(Functional(BATCH[name]), (3, 16, 16))
    with pytest.warns(GhnqWarning, match=said):
        quantize(Functional(BATCH[name]), "w8a8", calibration=CALIBRATION)


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight by batch norm, as BiT does."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, 8, -1), None, None, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


@pytest.mark.parametrize(
    "norm",
    [
        Standardised(8, 8, 3),
        lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8)),
        lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8), training=False),
        lambda x: torch.batch_norm(x, None, None, torch.zeros(8), torch.ones(8), False, 0.1, 1e-5, False),
        lambda x: F.instance_norm(x),
        nn.BatchNorm2d(8, track_running_stats=False).eval(),
        nn.BatchNorm2d(8).eval(),
    ],
)
def test_other_norms_are_not_named(norm: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ghnq.trace(Functional(norm), (3, 16, 16))
        quantize(Functional(norm), "w8a8", calibration=CALIBRATION)


class Listed(nn.Module):
    """Layers that are in use and in a plain list, one that is not in use, and a list of registered layers."""

    def __init__(self, layers: object) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        self.blocks = layers
        self.all = [self.conv, self.head]
        self.teacher = [nn.Linear(2, 2)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for layer in self.blocks.values() if isinstance(self.blocks, dict) else self.blocks:  # type: ignore[attr-defined]
            x = layer(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("container", [list, tuple, lambda layers: dict(enumerate(layers)), lambda layers: [*layers]])
def test_layers_in_a_plain_container_are_named(container: Callable[[list[nn.Module]], object]) -> None:
    network = Listed(container([nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8).eval()]))
    said = r"not registered in the network: Conv2d in attribute 'blocks' of the network, BatchNorm2d in attribute"
    with pytest.warns(GhnqWarning, match=said):
        ghnq.trace(network, (3, 16, 16))
    with pytest.warns(GhnqWarning, match=said):
        ghnq.initialize(network, small_ghn(), (3, 16, 16))
    with pytest.warns(GhnqWarning, match=said), pytest.raises(SchemeError, match="conv2d in the network"):
        quantize(network, "w8a8", calibration=CALIBRATION)


def test_registered_layers_are_not_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ghnq.trace(Listed(nn.ModuleList([nn.Conv2d(8, 8, 1)])), (3, 16, 16))
        quantize(Listed(nn.ModuleList([nn.Conv2d(8, 8, 1)])), "w8a8", calibration=CALIBRATION)


class Product(nn.Module):
    """Multiplies by a parameter of its own."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        self.inner = nn.Module()
        self.inner.w = nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.w
        assert isinstance(weight, Tensor)
        return self.head(self.function(torch.relu(self.conv(x).mean((2, 3))), weight))  # type: ignore[no-any-return]


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda x, w: x @ w,
    "matmul ": lambda x, w: torch.matmul(x, w.t()),
    "mm": lambda x, w: x.mm((w * 2).T),
    "einsum": lambda x, w: torch.einsum("bi,ij->bj", x, w),
    "addmm": lambda x, w: torch.addmm(x, x, w),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_parameters_stay_in_float_and_are_named(name: str, tmp_path: Path) -> None:
    network = Product(PRODUCTS[name])
    said = (
        rf"scheme w2a8: these products with parameters stay in float: `\w*{name.strip()}\w*` with 'inner\.w' in the net"
    )
    with pytest.warns(GhnqWarning, match=said):
        quantize(network, "w2a8", calibration=CALIBRATION)
    if name == "matmul":
        with pytest.warns(GhnqWarning, match=said):
            ghnq.export_onnx(network, "w2a8", calibration=CALIBRATION, out=tmp_path / "a.onnx", batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(network, "float32", calibration=CALIBRATION)


def test_products_of_activations_and_scales_are_not_named() -> None:
    network = Product(lambda x, w: ((x[:, None] @ x[:, :, None]) * w[0] + w[1])[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(network, "w2a8", calibration=CALIBRATION)
