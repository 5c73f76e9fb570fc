"""Sizes from the graph alone are those of the deployed network, and limits leave out what is above them."""

from __future__ import annotations

from math import prod

import pytest

from ghnq import spaces
from ghnq.deploy.cost import bit_operations
from ghnq.deploy.cost.peak_memory import peak_memory
from ghnq.deploy.graph.simulation import simulate
from ghnq.deploy.graph.tensor_shapes import with_shapes
from ghnq.errors import GhnqError
from ghnq.graph import trace
from ghnq.prediction import Network, PredictedWeights
from ghnq.quant import QuantScheme
from ghnq.search.limits import Limits, smallest, within_limits
from ghnq.search.sizes import Sizes, sizes_of
from tests.small_networks import small_digits, small_ghn


def network(index: int) -> Network:
    digits = small_digits()
    space = spaces.get("convnets")
    module = space.build(space.spec("test", index), in_channels=1, num_classes=10, device="meta")
    return Network(module, PredictedWeights(small_ghn()), digits, digits.calibration(32, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("index", "scheme"), [(6, "w4a4"), (8, "w8a8"), (17, "w4a4"), (10, "w4"), (25, "float32")])
def test_sizes_are_those_of_the_deployed_network(index: int, scheme: str) -> None:
    subject, parsed = network(index), QuantScheme.parse(scheme)
    simulation = with_shapes(simulate(subject.prepared(parsed), parsed), subject.dataset.input_shape, "network")
    found = sizes_of(subject.graph, parsed)
    assert found.peak_memory == peak_memory(simulation)
    assert found.multiply_adds == sum(work.multiply_adds for work in bit_operations.layer_work(simulation, parsed))
    layers = sum(prod(each.shape) for each in subject.graph.parameters if each.role in ("weight", "class_weight"))
    rest = 4 * (found.parameters - layers)
    assert found.bytes == bit_operations.packed_weight_bytes(simulation, parsed) + rest


def test_bytes_follow_the_bits_of_each_layer() -> None:
    subject = network(6)
    graph = trace(subject.module, subject.dataset.input_shape)
    everything, half, stem = (
        sizes_of(graph, QuantScheme.parse(text)).bytes for text in ("w8a8", "w4a8", "w4a8+stem*=w8a8")
    )
    weights = sum(
        int(parameter.numel()) for name, parameter in subject.module.named_parameters() if parameter.dim() > 1
    )
    stem_weights = subject.module.get_parameter("stem.conv.weight").numel()
    assert everything - half == weights // 2
    assert stem - half == stem_weights // 2


def test_limits_leave_out_what_is_above_them_and_say_which_took_how_many() -> None:
    sizes = {
        "small": Sizes(10, 100, 40, 8),
        "large": Sizes(99, 999, 400, 80),
        "slow": Sizes(10, 101, 40, 8),
        "unknown": Sizes(10, 100, 40, None),
    }
    limits = Limits(parameters=10, multiply_adds=100, peak_memory=8)
    filtered = within_limits(sizes, limits)
    assert filtered.kept == ["small"]
    assert filtered.taken == {"parameters": ["large"], "multiply_adds": ["slow"], "peak_memory": ["unknown"]}
    assert filtered.explain(limits) == "--max-params 10 took 1, --max-macs 100 took 1, --max-memory 8 took 1"
    assert within_limits(sizes, Limits()).kept == list(sizes)
    assert smallest(sizes.values()) == {"parameters": 10, "multiply_adds": 100, "bytes": 40, "peak_memory": 8}


def test_a_limit_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(GhnqError, match="--max-macs 0 leaves no candidate"):
        Limits(multiply_adds=0)
