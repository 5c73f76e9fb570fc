"""Which tensors of a network are quantized, and to which grid: the *integer placement* that integer kernels require.

- The input of a quantized layer has exactly the grid of the layer-only simulation (`ghnq.quant`).
- A tensor that only quantized layers of one grid read is stored on that grid.
- Every other tensor between integer kernels (convolutions in front of sums, sums, concatenations, pools, averages) is
  stored in 8 bits with its own range; a layer of fewer bits quantizes it once more.
- What only moves values (max pooling, reshapes) keeps the grid, and a ReLU is merged into the grid of its result.
- Results that only the output reads stay in float; a convolution has no such kernel, so its result is quantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from ghnq.deploy.graph.grid import Grid
from ghnq.deploy.graph.rewriter import node_argument, visit_tensors
from ghnq.deploy.graph.supported_ops import aten, clip_limits, kind_of
from ghnq.errors import NotFiniteError, SchemeError
from ghnq.quant.calibration import batches
from ghnq.quant.quantized_layers import QuantLayer
from ghnq.quant.ranges import ActivationObserver
from ghnq.quant.scheme import Estimator

STORED_BITS = 8
"""Bits of a stored tensor that not only layers read; also the most that integer kernels support."""

Range = tuple[Tensor, Tensor]
"""Smallest and largest value of a tensor, both []."""


@dataclass
class Placement:
    """Where the quantizers of a graph are.

    Attributes:
        layers: The quantized layers, by node.
        grids: The grids of stored tensors, by the node that computes them.
        dropped: Clips that a grid makes redundant.
    """

    layers: dict[fx.Node, QuantLayer]
    grids: dict[fx.Node, Grid] = field(default_factory=dict)
    dropped: set[fx.Node] = field(default_factory=set)


def place_quantizers(
    graph: fx.GraphModule, network: nn.Module, images: Tensor, batch_size: int, estimator: Estimator
) -> Placement:
    """Returns the placement for the graph of a quantized network, with ranges from calibration images [B, C, H, W].

    Raises:
        SchemeError: Activations of more than 8 bits, or a tensor that is constant on all images; both are named.
        NotFiniteError: A tensor is NaN or infinite on the images.
    """
    layers = dict(quantized_layers(graph, network))
    placement = Placement(layers)
    if not any(layer.bits.activation is not None for layer in layers.values()):
        return placement
    plan = _Plan(graph, layers)
    nodes = [node for node in plan.nodes if node in plan.stored or node in plan.clip_behind]
    plan.choose_grids(placement, observe_ranges(graph, nodes, images, batch_size, estimator))
    return placement


def quantized_layers(graph: fx.GraphModule, network: nn.Module) -> Iterator[tuple[fx.Node, QuantLayer]]:
    """Yields the nodes that are quantized layers, each with its module; sets `meta["layer"]` of all layers' nodes.

    Raises:
        SchemeError: A bit-width that no integer kernel supports.
    """
    modules = dict(network.named_modules())
    for node in graph.graph.nodes:
        if node.op != "call_function" or kind_of(node) != "layer":
            continue
        name = str(node_argument(node, 1).meta.get("name", "")).removesuffix(".weight")
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


def observe_ranges(
    graph: fx.GraphModule, nodes: list[fx.Node], images: Tensor, batch_size: int, estimator: Estimator
) -> dict[fx.Node, Range]:
    """Returns the ranges of the tensors that `nodes` compute while images [B, C, H, W] run through the float graph.

    Raises:
        SchemeError: A tensor has one value for all images.
        NotFiniteError: A tensor is NaN or infinite.
    """
    observers = {node: ActivationObserver(STORED_BITS, estimator) for node in nodes}

    def visit(node: fx.Node, tensor: Tensor) -> None:
        if node in observers:
            observers[node].observe(tensor)

    visit_tensors(graph, batches(images, batch_size), visit)
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
    """Which tensors are stored as integers, decided from the consumers backwards, and then on which grid.

    Attributes:
        clip_behind: The clip behind a kernel, where nothing else reads the kernel's result: the clip's result is what
            is stored.
        kernel_before: The kernel in front of such a clip.
        stored: The nodes whose tensors are stored as integers.
    """

    def __init__(self, graph: fx.GraphModule, layers: dict[fx.Node, QuantLayer]) -> None:
        self.nodes = [node for node in graph.graph.nodes if node.op in ("placeholder", "call_function")]
        self.layers = {node: layer for node, layer in layers.items() if layer.bits.activation is not None}
        self.clip_behind = {
            node: user
            for node in self.nodes
            if self._has_integer_kernel(node) and len(node.users) == 1
            for user in node.users
            if user.op == "call_function" and kind_of(user) == "clip"
        }
        self.kernel_before = {clip: node for node, clip in self.clip_behind.items()}
        self.stored: set[fx.Node] = set()
        for node in reversed(self.nodes):
            if node not in self.clip_behind and (self._feeds_integer_kernel(node) or self._must_be_stored(node)):
                self.stored.add(node)
        for node in self.nodes:
            if self._keeps_grid(node) and node_argument(node) in self.stored and not _only_output_reads(node):
                self.stored.add(node)

    def choose_grids(self, placement: Placement, ranges: dict[fx.Node, Range]) -> None:
        """Adds grids and dropped clips to the placement; consumers are decided before what they read."""
        grids = placement.grids
        readers: dict[fx.Node, list[fx.Node]] = {}
        for node in self.nodes:
            if node in self.stored:
                readers.setdefault(self._computing_node(node), []).extend(
                    user for user in node.users if not (self._keeps_grid(user) and user in self.stored)
                )
        for node in reversed(self.nodes):
            if node in self.clip_behind and self.clip_behind[node] in self.stored:
                clip = self.clip_behind[node]
                if grids[clip].clips_at(*clip_limits(clip)):
                    placement.dropped.add(clip)
                else:
                    grids[node] = Grid.of_range(*ranges[node], STORED_BITS)
            elif node in readers:
                grids[node] = self._choose_grid(node, readers[node], grids, ranges[node])
        for node in self.nodes:
            if node in self.stored and node not in grids:
                grids[node] = grids[self._computing_node(node)]

    def _choose_grid(self, node: fx.Node, readers: list[fx.Node], grids: dict[fx.Node, Grid], observed: Range) -> Grid:
        inputs = [Grid.of_input(self.layers[user]) for user in readers if user in self.layers]
        if len(inputs) == len(readers) and all(grid.equals(inputs[0]) for grid in inputs):
            return inputs[0]
        reader = readers[0]
        if reader.target is aten.cat.default and all(user is reader for user in readers) and reader in grids:
            # The concatenation then only copies, and the tensor is quantized once instead of twice.
            shared = grids[reader]
            if node not in self.kernel_before or shared.clips_at(*clip_limits(node)):
                return shared
        own = Grid.of_range(*observed, STORED_BITS)
        return next((grid for grid in inputs if grid.close_to(own)), own)

    def _computing_node(self, node: fx.Node) -> fx.Node:
        """Returns the node that computes the values of a stored tensor, before they are moved."""
        return self._computing_node(node_argument(node)) if self._keeps_grid(node) else node

    def _feeds_integer_kernel(self, node: fx.Node) -> bool:
        """Returns whether an integer kernel reads the tensor, also behind nodes that only move values."""
        return any(
            self._has_integer_kernel(user) or (self._keeps_grid(user) and user in self.stored) for user in node.users
        )

    def _must_be_stored(self, node: fx.Node) -> bool:
        """Returns whether the kernel that computes the tensor gives integers; a linear layer can also give floats."""
        kernel = self.kernel_before.get(node, node)
        if kernel in self.layers:
            return kernel.target is not aten.linear.default
        return self._has_integer_kernel(kernel) and not _only_output_reads(node)

    def _has_integer_kernel(self, node: fx.Node) -> bool:
        return node in self.layers or (node.op == "call_function" and kind_of(node) == "integer")

    def _keeps_grid(self, node: fx.Node) -> bool:
        return node.op == "call_function" and kind_of(node) == "same_grid"


def _only_output_reads(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)
