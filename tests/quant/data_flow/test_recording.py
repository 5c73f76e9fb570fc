"""The recorded operations of a run: which they are, their values, and that the network is left as it was."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.quant.data_flow.recording import CHANGED_IN_PLACE, Operation, record
from tests.quant.nets import images, network


class Layer(nn.Module):
    """A convolution and a function of its output."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 1), function

    def forward(self, x: Tensor) -> object:
        return self.function(self.conv(x))


def after_conv(function: Callable[[Tensor], object]) -> tuple[Operation, list[Operation]]:
    """Returns the run of the convolution and the operations after it."""
    first, *others = record(Layer(function), images(2)).operations
    assert isinstance(first.module, nn.Conv2d)
    return first, others


def test_layers_and_norms_are_single_operations() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 2))
    recording = record(net, images(2))
    described = [type(o.module).__name__ if o.module else o.function for o in recording.operations]
    assert described == ["Conv2d", "BatchNorm2d", "relu", "flatten", "Linear"]
    for before, after in zip(recording.operations, recording.operations[1:], strict=False):
        assert after.inputs == before.outputs
    assert recording.results == recording.operations[-1].outputs
    assert [recording.shapes[o.outputs[0]][1] for o in recording.operations] == [4, 4, 4, 1024, 2]
    assert recording.operations[2].caller == "'2'"


def test_convolutions_with_another_forward_are_not_single_operations() -> None:
    class Squared(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight.square())

    recording = record(nn.Sequential(Squared(3, 4, 1)), images(2))
    assert [(o.module, o.function, o.caller) for o in recording.operations] == [
        (None, "square", "'0'"),
        (None, "conv2d", "'0'"),
    ]
    assert not recording.runs


def test_a_tensor_that_is_returned_keeps_its_value() -> None:
    conv, (dropout,) = after_conv(lambda x: F.dropout(x, training=False))
    assert dropout.outputs == conv.outputs == dropout.inputs


def test_a_tensor_that_is_changed_in_place_becomes_another_value() -> None:
    conv, (relu, add) = after_conv(lambda x: x.relu_().add(1))
    assert relu.inputs == conv.outputs
    assert relu.outputs == add.inputs != conv.outputs


def test_a_change_through_a_view_is_an_operation() -> None:
    def change_view(x: Tensor) -> Tensor:
        x.view(-1).mul_(2)
        return x + 1

    conv, (view, _, change, add) = after_conv(change_view)
    assert view.inputs == conv.outputs
    assert change.function == CHANGED_IN_PLACE
    assert change.inputs == conv.outputs
    assert change.outputs == add.inputs[:1] != conv.outputs


def test_queries_have_no_outputs() -> None:
    _, operations = after_conv(lambda x: (x.shape, x.dim(), x.sum().item()))
    assert [(o.is_query, o.outputs != ()) for o in operations] == [
        (True, False),
        (True, False),
        (False, True),
        (False, False),
    ]


def test_scaling_channels() -> None:
    functions: dict[Callable[[Tensor], object], bool] = {
        F.relu: True,
        F.relu6: False,
        lambda x: F.max_pool2d(x, 2): True,
        lambda x: x.mean((2, 3)): True,
        lambda x: x.mean(): False,
        lambda x: x.mean(dim=1): False,
        lambda x: x.flatten(1): False,
        lambda x: x.flatten(2): True,
        lambda x: x.transpose(1, 2): False,
        torch.sigmoid: False,
    }
    for function, expected in functions.items():
        _, (operation,) = after_conv(function)
        assert operation.scales_channels == expected, operation.function


def test_the_network_is_not_changed() -> None:
    net = network().train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    record(net, images(2))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_runs_on_the_meta_device() -> None:
    net = network()
    on_cpu, on_meta = record(net, images(2)), record(network().to("meta"), images(2).to("meta"))
    assert [o.function for o in on_meta.operations] == [o.function for o in on_cpu.operations]
    assert [o.inputs for o in on_meta.operations] == [o.inputs for o in on_cpu.operations]
