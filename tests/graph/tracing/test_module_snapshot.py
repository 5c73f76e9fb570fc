"""Tracing leaves the module, the random state and the global modes as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.graph import trace


class Meddler(nn.Module):
    """A module whose forward writes wherever a forward can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.fc = nn.Linear(4, 10)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("table", torch.zeros(2, 2))
        self.last: Any = None
        self.seen: list[Any] = ["before"]
        self.cache: dict[str, Any] = {}
        self.known = {1, 2}
        self.frozen = nn.Linear(2, 2)
        self.frozen.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.calls = self.calls + 1
        self.table[0].fill_(3.0)
        self.table.view(-1)[1] = 7
        self.conv.weight.data.clamp_(-0.01, 0.01)
        with torch.no_grad():
            self.conv.weight.mul_(2)
        x = self.drop(F.relu_(self.norm(self.bn(self.conv(x)))))
        self.average.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        self.last = x
        self.seen.append(x)
        self.cache["x"] = x
        self.known.clear()
        self.register_forward_hook(lambda *_: None)
        self.conv.register_forward_pre_hook(lambda *_: None)
        self.bn._forward_hooks.clear()
        self.bn._forward_pre_hooks.clear()
        self.extra = torch.rand(3)
        self.new_buffer = x
        keep = torch.rand(x.shape[0], 1, 1, 1) > 0.5
        x = x * keep
        return self.fc(x.mean((2, 3)))


def state(module: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, child in module.named_modules():
        for key, value in child.__dict__.items():
            if key not in ("_parameters", "_buffers", "_modules"):
                found[f"{path}/{key}"] = (id(value), repr(value))
        for name, tensor in (*child._parameters.items(), *child._buffers.items()):
            found[f"{path}:{name}"] = None if tensor is None else (
                id(tensor), tensor.device, tensor.requires_grad, tensor.grad is None, tensor._version,
                None if tensor.is_meta else tensor.detach().clone().numpy().tobytes(),
            )  # fmt: skip
    return found


@pytest.mark.filterwarnings("ignore:.*random in eval mode:ghnq.errors.GhnqWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_forward_changes_is_restored(device: str, training: bool) -> None:
    module = Meddler().to(device).train(training)
    del module.frozen
    module.conv.register_forward_hook(lambda *_: None)
    module.bn.register_forward_pre_hook(lambda *_: None)
    before, keys = state(module), list(module.state_dict())
    trace(module, (3, 8, 8))
    assert state(module) == before
    assert list(module.state_dict()) == keys
    assert all(child.training is training for child in module.modules())


def test_what_a_failing_forward_changes_is_restored() -> None:
    module = Meddler()
    module.fc = nn.Linear(5, 10)
    before = state(module)
    with pytest.raises(GraphError, match="'fc'"):
        trace(module, (3, 8, 8))
    assert state(module) == before


def test_gradients_stay() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    module(torch.rand(1, 3, 8, 8)).sum().backward()
    grads = [p.grad for p in module.parameters()]
    values = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    trace(module, (3, 8, 8))
    assert all(p.grad is grad for p, grad in zip(module.parameters(), grads, strict=True))
    assert all(torch.equal(p.grad, v) for p, v in zip(module.parameters(), values, strict=True) if p.grad is not None)


@pytest.mark.filterwarnings("ignore:.*random in eval mode:ghnq.errors.GhnqWarning")
def test_the_random_state_and_the_grad_mode_stay() -> None:
    module = Meddler()
    del module.frozen
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trace(module, (3, 8, 8))
    assert torch.equal(torch.rand(2), expected)
    assert torch.is_grad_enabled()
    assert torch.ones(1).device.type == "cpu"


def test_the_network_computes_the_same_afterwards() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    image = torch.rand(2, 3, 8, 8)
    before = module(image)
    trace(module, (3, 8, 8))
    assert torch.equal(module(image), before)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("training", [True, False])
def test_power_iterations_of_spectral_norms_change_nothing(device: str, training: bool) -> None:
    layers = (nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 2))
    module = nn.Sequential(*layers).to(device).train(training)
    before = state(module)
    graph = trace(module, (3, 8, 8))
    assert state(module) == before
    assert {p.name for p in graph.parameters} == {name for name, _ in module.named_parameters()}
