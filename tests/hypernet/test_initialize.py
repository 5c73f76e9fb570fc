"""What `initialize` returns behaves as a module that was built in the ordinary way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph import trace
from ghnq.hypernet import GHN, GHNConfig, initialize

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def ghn() -> GHN:
    torch.manual_seed(0)
    return GHN(GHNConfig(hidden=8, max_shape=(4, 5, 3, 3))).eval()


def convolutions() -> nn.Sequential:
    same = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *same, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))


def step(parameter: Tensor) -> None:
    assert parameter.grad is not None
    with torch.no_grad():
        parameter.add_(parameter.grad, alpha=-0.1)


def test_an_optimizer_may_step_inside_the_backward_pass(ghn: GHN) -> None:
    network = initialize(convolutions(), ghn, SHAPE)
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    network(torch.rand(2, *SHAPE)).sum().backward()
    versions = [p._version for p in network.parameters()]
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert [p._version for p in network.parameters()][1:] == versions[1:]


class Mixed(nn.Module):
    """Weights that are stored transposed, in five dimensions, as a table and as a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.deep = nn.ConvTranspose2d(3, 6, 2, 2), nn.Conv3d(6, 4, (1, 3, 3))
        self.table = nn.Parameter(torch.zeros(1, 4, 14, 14))
        self.matrix = nn.Parameter(torch.zeros(4, 7))

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(self.up(x).unsqueeze(2)).squeeze(2) + self.table
        return y.mean((2, 3)) @ self.matrix  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore::ghnq.errors.GhnqWarning")
def test_it_can_be_saved(ghn: GHN, tmp_path: Path) -> None:
    network = initialize(Mixed(), ghn, SHAPE)
    assert all(p.is_contiguous() for p in network.parameters())
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    again = load_file(tmp_path / "net.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_keeps_the_type_of_the_parameters(ghn: GHN, dtype: torch.dtype) -> None:
    network = initialize(convolutions().to(dtype), ghn, SHAPE)
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert network.eval()(torch.rand(2, *SHAPE, dtype=dtype)).dtype == dtype


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ghnq.errors.GhnqWarning")
def test_weights_computed_by_a_hook(ghn: GHN) -> None:
    module = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 5))
    network = initialize(module, ghn, SHAPE)
    images = torch.rand(2, *SHAPE)
    assert torch.equal(network(images), network(images))
    assert not torch.equal(network(images), module(images))


def test_what_cannot_be_copied_is_named(ghn: GHN) -> None:
    module = convolutions()
    object.__setattr__(module, "lock", threading.Lock())
    with pytest.raises(GraphError, match=r"Sequential\.lock cannot be copied"):
        initialize(module, ghn, SHAPE)


def test_tensors_that_are_plain_attributes_stay() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.average = nn.Linear(192, 4), torch.ones(1)

        def forward(self, x: Tensor) -> Tensor:
            self.average.mul_(0.9)
            return self.fc(x.flatten(1) * self.average)  # type: ignore[no-any-return]

    module = Counting()
    trace(module, SHAPE)
    assert float(module.average) == 1.0


@pytest.mark.filterwarnings("ignore:.*untested:ghnq.errors.GhnqWarning")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("training", [True, False])
def test_spectral_norms_are_those_of_the_predicted_weights(
    norm: Callable[[nn.Module], nn.Module], training: bool, ghn: GHN
) -> None:
    module = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(nn.Linear(8, 10)))
    network = initialize(module.train(training), ghn, (3, 16, 16))
    assert [child.training for child in network.modules()] == [child.training for child in module.modules()]
    network.eval()(torch.randn(2, 3, 16, 16))
    for layer in (network[0], network[3]):  # type: ignore[index]
        largest = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert 0.99 < largest < 1.1
