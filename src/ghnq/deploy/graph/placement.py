"""Which tensors of a network lie on a grid, and on which: the *integer placement* that a runtime's kernels ask for.

- The input of a quantized layer has exactly the grid of the layer-only simulation (`ghnq.quant`).
- A tensor read by nothing but quantized layers of one grid is stored on that grid.
- Every other tensor between integer kernels (convolutions in front of sums, sums, concatenations, pools, averages) is
  stored in 8 bits with its own range; a layer of fewer bits rounds it once more.
- What only moves values (max pooling, reshapes) keeps the grid, and a ReLU goes into the grid of what it follows.
- Results that feed nothing but the output stay in float; a convolution has no such kernel, so it is rounded even there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from ghnq.deploy.graph.grid import Grid
from ghnq.deploy.graph.supported_ops import aten, clip_limits, kind_of
from ghnq.errors import NotFiniteError, SchemeError
from ghnq.quant.calibration import batches
from ghnq.quant.quantized_layers import QuantLayer
from ghnq.quant.ranges import ActivationObserver
from ghnq.quant.scheme import Estimator

STORED_BITS = 8
"""Bits of a stored tensor that more than layers read; also the widest that integer kernels take."""


@dataclass
class Placement:
    """`grids` of stored tensors by the node that makes them, and `dropped`: clips that a grid makes redundant."""

    layers: dict[fx.Node, QuantLayer]
    grids: dict[fx.Node, Grid] = field(default_factory=dict)
    dropped: set[fx.Node] = field(default_factory=set)


def place(
    graph: fx.GraphModule, network: nn.Module, images: Tensor, batch_size: int, estimator: Estimator
) -> Placement:
    """Decides the placement for the graph of a quantized network, with ranges from calibration images [B, C, H, W].

    Raises:
        SchemeError: activations of more than 8 bits, or a tensor that is constant on all images; both are named.
        NotFiniteError: a tensor that is NaN or infinite on the images.
    """
    layers = dict(quantized_layers(graph, network))
    placement = Placement(layers)
    if not any(layer.bits.activation is not None for layer in layers.values()):
        return placement
    plan = _Plan(graph, layers)
    ranges = observe(graph, [node for node in plan.nodes if node in plan.stored or node in plan.carrier], images,
                     batch_size, estimator)  # fmt: skip
    plan.choose(placement, ranges)
    return placement


def quantized_layers(graph: fx.GraphModule, network: nn.Module) -> Iterator[tuple[fx.Node, QuantLayer]]:
    """The nodes that are quantized layers, each with its module; nodes of all layers get its name in `meta["layer"]`.

    Raises SchemeError for bit-widths that no integer kernel takes.
    """
    modules = dict(network.named_modules())
    for node in graph.graph.nodes:
        if node.op != "call_function" or kind_of(node) != "layer":
            continue
        name = str(node.args[1].meta.get("name", "")).removesuffix(".weight")
        module = modules.get(name) if name else None
        if module is not None:
            node.meta["layer"] = name
        if isinstance(module, QuantLayer):
            for side, bits in zip(("weights", "activations"), module.bits, strict=True):
                if bits is not None and bits > STORED_BITS:
                    raise SchemeError(
                        f"layer {name!r} has {side} of {bits} bits: integer kernels take 2 to {STORED_BITS}"
                    )
            yield node, module


def observe(
    graph: fx.GraphModule, nodes: list[fx.Node], images: Tensor, batch_size: int, estimator: Estimator
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Ranges (low, high), both [], of the tensors that `nodes` make while the images run through the float graph."""
    observers = {node: ActivationObserver(STORED_BITS, estimator) for node in nodes}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if n in observers:
                assert isinstance(result, Tensor)
                observers[n].observe(result)
            return result

    with torch.no_grad():
        for batch in batches(images, batch_size):
            Watching(graph).run(batch)
    ranges = {node: observer.range() for node, observer in observers.items()}
    for node, (low, high) in ranges.items():
        if not bool(low.isfinite() & high.isfinite()):
            raise NotFiniteError(f"{node.meta['where']} gives values from {low.item()} to {high.item()} on the images")
        if bool(low == high):
            raise SchemeError(
                f"{node.meta['where']} gives {low.item():g} for every calibration image, a range without width: "
                "the network is dead there, or the images are all alike"
            )
    return ranges


class _Plan:
    """First who is stored, from the consumers backwards; then on which grid, again backwards."""

    def __init__(self, graph: fx.GraphModule, layers: dict[fx.Node, QuantLayer]) -> None:
        self.nodes = [node for node in graph.graph.nodes if node.op in ("placeholder", "call_function")]
        self.layers = {node: layer for node, layer in layers.items() if layer.bits.activation is not None}
        # The clip behind a kernel, where nothing else reads the kernel's result: the grid lies behind the clip.
        self.carrier = {
            node: user
            for node in self.nodes
            if self._is_integer(node) and len(node.users) == 1
            for user in node.users
            if user.op == "call_function" and kind_of(user) == "clip"
        }
        self.carried = {clip: node for node, clip in self.carrier.items()}
        self.stored: set[fx.Node] = set()
        for node in reversed(self.nodes):
            if node not in self.carrier and (self._is_read(node) or self._must_be_stored(node)):
                self.stored.add(node)
        for node in self.nodes:
            if self._is_keep(node) and self.source(node) in self.stored and not _only_output(node):
                self.stored.add(node)

    def choose(self, placement: Placement, ranges: dict[fx.Node, tuple[Tensor, Tensor]]) -> None:
        """Fills in grids and dropped clips; consumers are decided before what they read."""
        grids = placement.grids
        readers: dict[fx.Node, list[fx.Node]] = {}
        for node in self.nodes:
            if node in self.stored:
                readers.setdefault(self.root(node), []).extend(
                    user for user in node.users if not (self._is_keep(user) and user in self.stored)
                )
        for node in reversed(self.nodes):
            if node in self.carrier and self.carrier[node] in self.stored:
                clip = self.carrier[node]
                if grids[clip].cuts_like(*clip_limits(clip)):
                    placement.dropped.add(clip)
                else:
                    grids[node] = Grid.of_range(*ranges[node], STORED_BITS)
            elif node in readers:
                grids[node] = self._grid(node, readers[node], grids, ranges[node])
        for node in self.nodes:
            if node in self.stored and node not in grids:
                grids[node] = grids[self.root(node)]

    def _grid(
        self, node: fx.Node, readers: list[fx.Node], grids: dict[fx.Node, Grid], range_: tuple[Tensor, Tensor]
    ) -> Grid:
        inputs = [Grid.of_input(self.layers[user]) for user in readers if user in self.layers]
        if len(inputs) == len(readers) and all(grid.equals(inputs[0]) for grid in inputs):
            return inputs[0]
        joint = readers[0]
        if joint.target is aten.cat.default and all(user is joint for user in readers) and joint in grids:
            # The concatenation then only copies, and the tensor is rounded once instead of twice.
            shared = grids[joint]
            if node not in self.carried or shared.cuts_like(*clip_limits(node)):
                return shared
        own = Grid.of_range(*range_, STORED_BITS)
        return next((grid for grid in inputs if grid.close_to(own)), own)

    def root(self, node: fx.Node) -> fx.Node:
        """The node whose values a stored tensor holds."""
        return self.root(self.source(node)) if self._is_keep(node) else node

    def source(self, node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source

    def _is_read(self, node: fx.Node) -> bool:
        """Whether an integer kernel reads the tensor, perhaps behind nodes that only move values."""
        return any(self._is_integer(user) or (self._is_keep(user) and user in self.stored) for user in node.users)

    def _must_be_stored(self, node: fx.Node) -> bool:
        """Whether the kernel that makes the tensor gives integers; a linear layer can also give floats."""
        kernel = self.carried.get(node, node)
        if kernel in self.layers:
            return kernel.target is aten.conv2d.default
        return self._is_integer(kernel) and not _only_output(node)

    def _is_integer(self, node: fx.Node) -> bool:
        return node in self.layers or (node.op == "call_function" and kind_of(node) == "integer")

    def _is_keep(self, node: fx.Node) -> bool:
        return node.op == "call_function" and kind_of(node) == "keep"


def _only_output(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)
