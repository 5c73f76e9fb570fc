"""The costs of layers, counted by hand."""

from __future__ import annotations

from ghnq.analysis.layer_costs import LayerCost, layer_costs
from ghnq.prediction import Network
from ghnq.quant import QuantScheme


def test_costs_are_counted(network: Network) -> None:
    costs = layer_costs(network.prepared(QuantScheme.parse("w8a8")))
    assert costs == {
        "first": LayerCost(54, 54 * 9),
        "middle": LayerCost(162, 2 * 162 * 9),
        "last": LayerCost(60, 60),
    }
