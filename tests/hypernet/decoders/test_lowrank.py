"""The low-rank decoder against its formula, one entry at a time; wide layers without repetition; centred kernels."""

import pytest
import torch
from torch import Tensor

from ghnq.graph.ir import ArchGraph, Node, Parameter, Shape
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.decoder import WeightRequest
from ghnq.hypernet.decoders.lowrank import FactorDecoder, LowRankDecoder
from ghnq.hypernet.model import GHN
from ghnq.hypernet.tiling import Tiling


def entry(decoder: FactorDecoder, h: Tensor, kernel: tuple[int, int], at: tuple[int, int, int, int]) -> Tensor:
    """W[o, i, y, x] of one node, [D] -> []."""
    o, i, y, x = at
    if decoder.centred:
        y += decoder.max_shape[2] // 2 - kernel[0] // 2
        x += decoder.max_shape[3] // 2 - kernel[1] // 2
    z = decoder.core(torch.relu(decoder.outer(torch.relu(decoder.inner(h)))))
    left, right = torch.relu(z).view(2, decoder.rank, decoder.rank)
    row, column = o * decoder.max_shape[2] + y, i * decoder.max_shape[3] + x
    a = left @ decoder.out.weight[row] + decoder.out.bias[row]
    b = right @ decoder.into.weight[column] + decoder.into.bias[column]
    return a @ b


@pytest.mark.parametrize("centred", [False, True])
def test_weights_are_products_of_factors(centred: bool) -> None:
    torch.manual_seed(0)
    decoder = FactorDecoder(hidden=8, widths=(5, 6), rank=3, max_shape=(7, 6, 5, 5), centred=centred).double()
    groups = [torch.randn(s, 8, dtype=torch.double) for s in (2, 1, 3)]
    shapes = [(7, 6, 5, 5), (1, 4, 2, 3), (5, 1, 3, 3)]
    for h, shape, weight in zip(groups, shapes, decoder(groups, shapes), strict=True):
        assert weight.shape == (len(h), *shape)
        for at in ((0, 0, 0, 0), tuple(s - 1 for s in shape), tuple(s // 2 for s in shape)):
            for slot in range(len(h)):
                expected = entry(decoder, h[slot], shape[2:], at)
                torch.testing.assert_close(weight[(slot, *at)], expected, rtol=1e-10, atol=1e-12)


def weight_of(shape: Shape, role: str = "weight", op: str = "conv", **choices: object) -> Tensor:
    nodes = (Node("input", "input"), Node(op, "it", (*shape, 1, 1)[:4]))  # type: ignore[arg-type]
    graph = ArchGraph(nodes, ((0, 1),), (Parameter("p", shape, 1, role),), (3, 32, 32), 10)  # type: ignore[arg-type]
    torch.manual_seed(0)
    config = GHNConfig(hidden=8, decoder="lowrank", rank=4, **choices)  # type: ignore[arg-type]
    with torch.no_grad():
        return GHN(config).predict(graph)["p"]


def test_wide_layers_do_not_repeat() -> None:
    choices = {"max_shape": (2048, 2048, 3, 3), "decoder_hidden": (8, 8)}
    for shape in ((2048, 300), (130, 2048, 3, 3)):
        weight = weight_of(shape, **choices).flatten(1)
        assert weight.shape[0] == shape[0]
        assert len(torch.unique(weight, dim=0)) == shape[0]
    assert sum(p.numel() for p in GHN(GHNConfig(decoder="lowrank", max_shape=(2048, 2048, 7, 7))).parameters()) < 4e6


@pytest.mark.parametrize("classes", [2, 10, 37, 100])
def test_any_number_of_classes_is_reached(classes: int) -> None:
    weight = weight_of((classes, 50), role="class_weight", max_shape=(24, 20, 5, 5))
    assert tuple(weight.shape) == (classes, 50)
    repeated = weight[24:48]
    assert torch.equal(repeated, weight[: len(repeated)])


@pytest.mark.parametrize("depthwise", ["own", "shared"])
def test_depthwise_weights_come_from_their_own_factors_or_the_first_channel(depthwise: str) -> None:
    config = GHNConfig(hidden=8, decoder="lowrank", rank=4, max_shape=(24, 20, 5, 5), depthwise=depthwise)  # type: ignore[arg-type]
    torch.manual_seed(0)
    decoder = LowRankDecoder.from_config(config)
    h = torch.randn(2, 8)
    single, full = decoder(
        [h, h],
        [WeightRequest(True, False, Tiling((9, 1, 3, 3))), WeightRequest(False, False, Tiling((9, 7, 3, 3)))],
    )
    assert single.shape == (2, 9, 1, 3, 3)
    assert torch.allclose(single, full[:, :, :1]) == (depthwise == "shared")
