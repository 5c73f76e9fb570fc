"""What cannot be traced ends in a `GraphError` that names the module or the parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph import trace

SHAPE = (3, 8, 8)


class Body(nn.Module):
    """A convolution, then a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x))


def net(function: Callable[[Tensor], Any]) -> nn.Module:
    return nn.Sequential(nn.Sequential(Body(function)), nn.Flatten(), nn.LazyLinear(4))


def failure(function: Callable[[Tensor], Any], message: str) -> None:
    module = nn.Sequential(nn.Sequential(Body(function)), nn.Flatten(), nn.Linear(192, 4))
    for device in ("cpu", "meta"):
        with pytest.raises(GraphError, match=message):
            trace(module.to(device), SHAPE)


DATA_DEPENDENT: dict[str, Callable[[Tensor], Any]] = {
    "__bool__": lambda x: x if x.sum() > 0 else -x,
    "item": lambda x: x * x.mean().item(),
    "__float__": lambda x: x * float(x.mean()),
    "__int__": lambda x: x[: int(x.sum())],
    "__index__": lambda x: x[: x.argmax().__index__()],
    "tolist": lambda x: x * x.flatten().tolist()[0],
    "numpy": lambda x: torch.from_numpy(x.numpy()),
    "__array__": lambda x: torch.from_numpy(np.asarray(x)),
    "nonzero": lambda x: x[x.nonzero()],
    "where": lambda x: torch.where(x > 0)[0],
    "unique": lambda x: x.unique(),
    "equal": lambda x: x if torch.equal(x, x) else -x,
    "masked_select": lambda x: x.masked_select(x > 0),
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_data_dependence(name: str) -> None:
    failure(DATA_DEPENDENT[name], rf"module '0\.0' \(Body\): `{name}` asks for the values of an activation")


def test_selecting_by_a_mask_depends_on_the_data() -> None:
    failure(lambda x: x[x > 0], r"module '0\.0' \(Body\)")


def test_a_module_without_parameters() -> None:
    with pytest.raises(GraphError, match=r"Flatten has no parameters"):
        trace(nn.Flatten(), SHAPE)


def test_not_a_module() -> None:
    with pytest.raises(GraphError, match=r"takes a torch\.nn\.Module, got function"):
        trace(lambda x: x, SHAPE)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (3, 0, 8), (3, -1, 8), "abc", None, (3, "x"), 5])
def test_no_input_shape(shape: Any) -> None:
    with pytest.raises(GraphError, match=r"input_shape is .*; it must be positive integers"):
        trace(nn.Conv2d(3, 4, 3), shape)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_wrong_input_shape_names_the_module_and_the_shapes(device: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))).to(device)
    trace(module, SHAPE)
    with pytest.raises(GraphError) as caught:
        trace(module, (3, 9, 9))
    text = str(caught.value)
    assert "module '1.2' (Linear) failed on tensors of shapes (2, 196) and (10, 144) and (10,)" in text
    assert "for the input shape (3, 9, 9)" in text
    assert "takes 144 features" in text
    with pytest.raises(GraphError, match=r"module '0' \(Conv2d\) failed on .*\(2, 1, 8, 8\).*takes 3 channels, got 1"):
        trace(module, (1, 8, 8))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(5), (3, 8, 8)),
        (nn.BatchNorm2d(5, affine=False), (3, 8, 8)),
        (nn.BatchNorm2d(5), (3, 8)),
        (nn.GroupNorm(5, 5), (3, 8, 8)),
        (nn.GroupNorm(2, 6), (3, 8, 8)),
        (nn.LayerNorm(5), (3, 8, 8)),
        (nn.InstanceNorm2d(5, affine=True), (3, 8, 8)),
        (nn.PReLU(5), (3, 8, 8)),
        (nn.Conv2d(3, 4, 9), (3, 8, 8)),
        (nn.ConvTranspose2d(4, 3, 3), (3, 8, 8)),
        (nn.MaxPool2d(9), (3, 8, 8)),
        (nn.AvgPool2d(9), (3, 8, 8)),
        (nn.AdaptiveAvgPool2d((1, 2)), (8,)),
        (nn.ZeroPad2d(-4), (3, 8, 8)),
        (nn.Unflatten(1, (2, 2)), (3, 8, 8)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_layers_that_do_not_take_the_shape(layer: nn.Module, shape: tuple[int, ...]) -> None:
    module = nn.Sequential(nn.Identity(), layer, nn.Linear(1, 1))
    with pytest.raises(GraphError, match=rf"module '1' \({type(layer).__name__}\) failed"):
        trace(module, shape)


def test_shapes_that_do_not_fit_together() -> None:
    failure(
        lambda x: x + x[:, :2], r"module '0\.0' \(Body\) failed on tensors of shapes \(2, 3, 8, 8\) and \(2, 2, 8, 8\)"
    )
    failure(lambda x: torch.cat([x, x[:, :, :2]], 1), r"module '0\.0' \(Body\) failed")


def test_the_error_of_the_module_itself_is_the_cause() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("my own mistake")

    with pytest.raises(GraphError, match=r"module '0' \(Body\) failed, .*KeyError: 'my own mistake'") as caught:
        trace(net(broken)[0], SHAPE)  # type: ignore[index]
    assert isinstance(caught.value.__cause__, KeyError)


def test_uninitialised_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(GraphError, match=r"parameter '2\.weight' is not initialised yet"):
        trace(module, SHAPE)


@pytest.mark.parametrize("layer", [nn.LSTM(8, 4), nn.GRU(8, 4), nn.RNN(8, 4), nn.LSTMCell(8, 4)])
def test_recurrent_layers(layer: nn.Module) -> None:
    module = nn.ModuleDict({"stem": nn.Linear(8, 8), "memory": layer})
    with pytest.raises(GraphError, match=rf"module 'memory' \({type(layer).__name__}\) is a recurrent layer"):
        trace(module, SHAPE)


def test_recurrent_functions() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(12, 8))
            self.u = nn.Parameter(torch.zeros(12, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.gru_cell(x[:, 0, 0], torch.zeros(2, 3), self.w, self.u)

    with pytest.raises(GraphError, match=r"module '\(root\)' \(Cell\): `gru_cell` is recurrent"):
        trace(Cell(), SHAPE)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_compiled_modules() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.trace(nn.Linear(8, 8), torch.zeros(1, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    with pytest.raises(GraphError, match=r"module 'inner' \(\w+\) is compiled by TorchScript"):
        trace(Outer(), SHAPE)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_quantized_modules() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.first(x))  # type: ignore[no-any-return]

    quantized = type("Quantized", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.modules.linear"})
    with pytest.raises(GraphError, match=r"module 'inner' \(Quantized\) is quantized already"):
        trace(Outer(quantized(8, 8)), SHAPE)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (nn.Parameter(torch.arange(3), requires_grad=False), r"'p' is torch.int64; only floating-point"),
        (nn.Parameter(torch.zeros(2, dtype=torch.complex64)), r"'p' is torch.complex64; only floating-point"),
        (nn.Parameter(torch.zeros(0, 3)), r"'p' of shape \(0, 3\) has no elements"),
    ],
)
def test_parameters_that_cannot_be_predicted(parameter: nn.Parameter, message: str) -> None:
    module = nn.Conv2d(3, 4, 1)
    module.register_parameter("p", parameter)
    with pytest.raises(GraphError, match=message):
        trace(module, SHAPE)


def test_a_lazy_norm_without_parameters_is_refused_and_stays_lazy() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LazyBatchNorm2d(affine=False))
    with pytest.raises(GraphError, match=r"buffer '1\.running_mean' is not initialised yet"):
        trace(module, SHAPE)
    assert type(module[1]) is nn.LazyBatchNorm2d


def ends(x: Tensor) -> Tensor:
    raise SystemExit(0)


def test_huge_shapes_and_forwards_that_exit() -> None:
    with pytest.raises(GraphError, match="more than 4,294,967,296 elements"):
        trace(nn.Conv2d(3, 4, 1), (3, 10**9, 10**10))
    failure(ends, r"module '0\.0' \(Body\) ends the program \(exit code 0\)")


def test_the_line_in_the_users_code_is_named() -> None:
    def broken(x: Tensor) -> Tensor:
        return x.view(7, 7)

    line = broken.__code__.co_firstlineno + 1
    with pytest.raises(GraphError, match=rf"test_trace_errors\.py:{line}, for the input shape \(3, 8, 8\)"):
        trace(Body(broken), SHAPE)


def test_sparse_parameters() -> None:
    module = nn.Linear(8, 8)
    module.weight = nn.Parameter(torch.eye(8).to_sparse())
    with pytest.raises(GraphError, match="parameter 'weight' is sparse or quantized"):
        trace(module, SHAPE)


@pytest.mark.parametrize("output", [None, 3, "text", (), {}])
def test_outputs_without_a_tensor(output: Any) -> None:
    with pytest.raises(GraphError, match=rf"Body returned {type(output).__name__}, in which there is no tensor"):
        trace(Body(lambda x: output), SHAPE)


def test_outputs_that_do_not_depend_on_the_input() -> None:
    with pytest.raises(GraphError, match="does not depend on its input"):
        trace(Body(lambda x: torch.zeros(2, 10)), SHAPE)

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc.weight * 2

    with pytest.raises(GraphError, match="does not depend on the input"):
        trace(Alone(), SHAPE)
