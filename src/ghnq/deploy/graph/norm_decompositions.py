"""The decomposition rules for norms that are computed from the image itself: they stay in float."""

from __future__ import annotations

from torch import fx
from torch.fx.node import Argument

from ghnq.deploy.graph.decomposer import Decomposer, source_location
from ghnq.deploy.graph.supported_ops import aten
from ghnq.errors import ExportError


def group_norm(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    groups: int,
    weight: fx.Node | None,
    bias: fx.Node | None,
    eps: float,
    *_: Argument,
) -> fx.Node:
    """Adds a group norm (Wu and He 2018, arXiv 1803.08494): an instance norm of the groups, then scale and shift."""
    value = x.meta["val"]
    grouped = graph.reshape(x, node, (value.shape[0], groups, value[0].numel() // groups))
    normalised = _normalise(graph, node, grouped, eps)
    return _scale_and_shift(graph, node, graph.reshape(normalised, node, value.shape), weight, bias)


def instance_norm(
    graph: Decomposer,
    node: fx.Node,
    x: fx.Node,
    weight: fx.Node | None,
    bias: fx.Node | None,
    mean: fx.Node | None,
    variance: fx.Node | None,
    use_input_statistics: bool,
    momentum: float,
    eps: float,
    *_: Argument,
) -> fx.Node:
    """Adds an instance norm (Ulyanov et al. 2016, arXiv 1607.08022).

    Raises:
        ExportError: It has running statistics.
    """
    if not use_input_statistics:
        raise ExportError(f"{source_location(node)} is an instance norm with running statistics; use a batch norm")
    return _scale_and_shift(graph, node, _normalise(graph, node, x, eps), weight, bias)


def _normalise(graph: Decomposer, node: fx.Node, x: fx.Node, eps: float) -> fx.Node:
    args = None, None, None, None, True, 0.0, eps, False
    return graph.call(aten.instance_norm.default, x, *args, like=node, value=x.meta["val"])


def _scale_and_shift(
    graph: Decomposer, node: fx.Node, x: fx.Node, weight: fx.Node | None, bias: fx.Node | None
) -> fx.Node:
    shape = [-1, *[1] * (x.meta["val"].dim() - 2)]
    for function, factor in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if factor is not None:
            values = graph.constant(f"{factor.target}_per_channel", graph.new.tensor(factor).reshape(shape))
            x = graph.call(function, x, values, like=node)
    return x
