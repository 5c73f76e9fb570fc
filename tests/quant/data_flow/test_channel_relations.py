"""Relations between layers: what may be in between, and other uses of the tensors in between."""

from __future__ import annotations

import pytest
from torch import nn

from ghnq.quant.data_flow import observe_data_flow
from tests.quant.nets import CALIBRATION, TEST, randomise
from tests.quant.not_related import NOT_RELATED, ReadsShape, TwoConsumers


def related(net: nn.Module) -> list[tuple[str, str]]:
    """Returns the names of the related layers."""
    relations = observe_data_flow(net.eval(), CALIBRATION[:2]).channel_relations
    return [(relation.first, relation.second) for relation in relations]


@pytest.mark.parametrize(
    "between",
    [
        (nn.ReLU6(),),
        (nn.Sigmoid(),),
        (nn.Hardswish(),),
        (nn.GELU(),),
        (nn.Softmax(1),),
        (nn.BatchNorm2d(6), nn.ReLU6()),
        (nn.Hardtanh(),),
        (nn.ReLU(), nn.LocalResponseNorm(2)),
        (nn.ReLU(), nn.BatchNorm2d(6)),
        (nn.ReLU(), nn.GroupNorm(2, 6)),
        (nn.ChannelShuffle(2),),
    ],
    ids=lambda between: "-".join(type(module).__name__ for module in between),
)
def test_functions_that_do_not_scale_channels(between: tuple[nn.Module, ...]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), *between, nn.Conv2d(6, 5, 1), nn.Flatten(), nn.LazyLinear(4))
    net(TEST[:1])  # the lazy layer becomes a linear one
    randomise(net)
    assert ("0", str(len(between) + 1)) not in related(net)


@pytest.mark.parametrize("network_class", NOT_RELATED)
def test_tensors_with_other_uses(network_class: type[TwoConsumers]) -> None:
    assert not {("a", "b"), ("b", "b"), ("b", "c")} & set(related(network_class()))


def test_reading_the_shape_is_allowed() -> None:
    assert related(ReadsShape()) == [("a", "b")]
