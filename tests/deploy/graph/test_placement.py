"""Which tensors are quantized, and to which grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ghnq.deploy import simulate
from ghnq.deploy.graph.grid import Grid
from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import SchemeError
from ghnq.quant import fake_quantize, prepare
from tests.deploy.nets import CALIBRATION, Branches, ConvHead
from tests.quant.nets import Residual, randomise


def largest_integers(module: nn.Module, scheme: str) -> dict[str, list[int]]:
    """Returns the largest integers that each tensor is quantized to, in order, by the node that computes it."""
    graph = simulate(prepare(module, CALIBRATION), scheme).graph
    found: dict[str, list[int]] = {}
    for node in graph.nodes:
        if node.target is quantize:
            source = node.args[0]
            while source.target is dequantize:
                source = source.args[0].args[0]
            found.setdefault(source.name, []).append(node.args[4])
    return found


def test_a_sum_is_stored_in_8_bits_and_quantized_again_for_layers_of_fewer() -> None:
    net = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Residual(8), Residual(8), nn.Flatten(),
                                  nn.Linear(288, 10)))  # fmt: skip
    found = largest_integers(net, "w4a4")
    # Images, and tensors that only convolutions read; tensors that a sum reads as well; sums; the last sum, which only
    # a layer reads.
    assert found["images"] == [15]
    assert found["conv2d_default"] == [255, 15]
    assert found["conv2d_default_1"] == [15]
    assert found["conv2d_default_2"] == [255]
    assert found["add_tensor"] == [255, 15]
    assert found["add_tensor_1"][0] == 15
    assert largest_integers(net, "w8a8")["conv2d_default"] == [255]


def test_redundant_relus_are_dropped() -> None:
    graph = simulate(prepare(randomise(Branches(), 3), CALIBRATION), "w4a8").graph
    assert {node.target for node in graph.nodes} & {aten.relu.default, aten.clamp.default} == set()


def test_a_relu_of_a_tensor_with_other_readers_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.head((self.two(torch.relu(x)) + x).mean((2, 3)))

    graph = simulate(prepare(randomise(Both()), CALIBRATION), "w8a8").graph
    (relu,) = [node for node in graph.nodes if node.target is aten.relu.default]
    assert relu.args[0].target is dequantize
    assert [user.target for user in relu.users] == [quantize]


def test_moving_values_keeps_the_grid_and_the_inputs_of_a_concatenation_share_its_grid() -> None:
    simulation = simulate(prepare(randomise(Branches(), 3), CALIBRATION), "w8a8")
    for node in simulation.graph.nodes:
        if node.target in (aten.max_pool2d.default, aten.reshape.default):
            (before,), (after,) = [node.args[0].args[1:]], [next(iter(node.users)).args[1:3]]
            for one, other in zip(before, after, strict=True):
                assert torch.equal(getattr(simulation, one.target), getattr(simulation, other.target))
        if node.target is aten.cat.default:
            scales = {getattr(simulation, arg.args[1].target).item() for arg in node.args[0]}
            assert getattr(simulation, next(iter(node.users)).args[1].target).item() in scales


def test_logits_stay_in_float_unless_a_convolution_computes_them() -> None:
    for module in (Branches(), ConvHead()):
        graph = simulate(prepare(randomise(module), CALIBRATION), "w8a8").graph
        assert graph.output_node().args[0].target in (aten.linear.default, aten.reshape.default)
    only = nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())
    targets = [n.target for n in simulate(prepare(randomise(only), CALIBRATION), "w8a8").graph.nodes]
    assert targets.index(quantize, targets.index(aten.conv2d.default)) > 0


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("limits", [(0.0, None), (0.0, 6.0), (-1.0, 1.0), (None, 2.0)])
def test_a_clip_is_dropped_only_where_it_changes_nothing(limits: tuple[float | None, float | None], bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(4000, generator=generator) * 5
    dropped = 0
    for _ in range(40):
        low, high = -3 * torch.rand((), generator=generator), 8 * torch.rand((), generator=generator)
        clipped = x.clamp(*limits)
        low, high = (clipped.min(), clipped.max()) if torch.rand((), generator=generator) < 0.5 else (low, high)
        grid = Grid.of_range(low, high, bits)
        parts = grid.scale, grid.zero_point.float(), 0, grid.largest
        if grid.clips_at(*limits):
            dropped += 1
            assert torch.equal(fake_quantize(x, *parts), fake_quantize(clipped, *parts))
    # Zero is on every grid; -1 and 1 may be between two steps, and then the clip stays.
    assert dropped > 0 or limits == (-1.0, 1.0)


def test_more_than_8_bits_have_no_kernel() -> None:
    for scheme in ("w16a8", "w8a16"):
        with pytest.raises(SchemeError, match=r"'stem'.*2 to 8"):
            simulate(prepare(randomise(Branches()), CALIBRATION), scheme)


def test_a_constant_tensor_is_named() -> None:
    net = randomise(Branches())
    net.left.weight.data.zero_()
    net.stem.bias.data.fill_(-100)
    with pytest.raises(SchemeError, match=r"aten\.relu.*in module .*0 for every calibration image"):
        simulate(prepare(net, CALIBRATION), "w8a8")


def test_every_layer_has_its_name_and_a_weight_outside_of_layers_has_none() -> None:
    graph = simulate(prepare(randomise(Branches(), 3), CALIBRATION), "w8a8+left=float32+head=float32").graph
    layers = [node for node in graph.nodes if node.target in (aten.conv2d.default, aten.linear.default)]
    assert [node.meta["layer"] for node in layers] == ["stem", "left", "right", "gate", "hidden", "head"]

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(10, 192))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x.flatten(1), self.table)

    (node,) = simulate(prepare(Own(), CALIBRATION), "float32").graph.find_nodes(
        op="call_function", target=aten.linear.default
    )
    assert "layer" not in node.meta
