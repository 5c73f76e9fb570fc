"""What is derived from the data flow of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.quant.data_flow import ChannelRelation, observe_data_flow
from tests.quant.nets import images, network


def test_the_data_flow_of_a_network() -> None:
    data_flow = observe_data_flow(network(), images(2))
    assert data_flow.layer_runs == dict.fromkeys(
        ["0", "3.conv1", "3.conv2", "4.conv", "5.conv1", "5.conv2", "8", "11"], 1
    )
    assert ("3.conv1", "3.bn1") in data_flow.norm_pairs
    assert data_flow.channel_relations == (
        ChannelRelation("3.conv1", "3.bn1", "3.conv2"),
        ChannelRelation("5.conv1", "5.bn1", "5.conv2"),
        ChannelRelation("8", "9", "11"),
    )
    assert data_flow.unnormalised == ()
    assert data_flow.unquantizable == ()


class Various(nn.Module):
    """A layer that runs twice, one that does not run, functions with weights, and a convolution without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.transposed = nn.ConvTranspose2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(x))))
        x = F.conv2d(x, torch.ones(3, 3, 1, 1))
        return F.relu(self.last(self.transposed(x)))


def test_runs_and_functions_with_weights() -> None:
    data_flow = observe_data_flow(Various(), images(2))
    assert data_flow.layer_runs == {"twice": 2, "never": 0, "last": 1, "transposed": 1}
    assert data_flow.unquantizable == ("conv2d in the network",)
    assert data_flow.unnormalised == ("last",)


def test_a_norm_with_keyword_arguments_is_a_norm() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(input=self.conv(input=x))

    data_flow = observe_data_flow(Keyword(), images(2))
    assert data_flow.norm_pairs == (("conv", "norm"),)
    assert data_flow.unnormalised == ()
