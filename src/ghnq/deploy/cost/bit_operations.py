"""Multiply-adds and bit-operations of a deployed graph for one image, and the size of its weights at their bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import fx

from ghnq.deploy.graph.quantize_ops import dequantize, largest_integer, quantize_node
from ghnq.deploy.graph.supported_ops import LAYERS, weight_axis
from ghnq.graph.multiply_adds import layer_multiply_adds
from ghnq.quant import QuantScheme

FLOAT_BITS = 32


class LayerWork(NamedTuple):
    """The multiply-adds of one layer for one image, and the bits of its weight and of its input."""

    multiply_adds: int
    weight_bits: int
    activation_bits: int

    @property
    def bit_operations(self) -> int:
        """Multiply-adds x bits of the weight x bits of the input."""
        return self.multiply_adds * self.weight_bits * self.activation_bits


def layer_work(simulation: fx.GraphModule, scheme: QuantScheme) -> Iterator[LayerWork]:
    """Yields the work of every convolution and linear layer of a graph with the shapes of one image.

    A layer that runs twice comes twice. A quantized weight has the bits that the scheme gives its layer; the input has
    the bits it is quantized to, or 32 where it is not. A layer with a float weight counts as 32 x 32: it runs in float.
    """
    for node in simulation.graph.nodes:
        if node.target in LAYERS:
            weight = node.args[1]
            # A transposed convolution multiplies each input by all weights of its channel.
            elements = node.args[0] if weight_axis(node) else node
            multiply_adds = layer_multiply_adds(weight.meta["val"].shape, elements.meta["val"].shape)
            if weight.target is dequantize:
                yield LayerWork(multiply_adds, _weight_bits(node, scheme), _input_bits(node.args[0]))
            else:
                yield LayerWork(multiply_adds, FLOAT_BITS, FLOAT_BITS)


def packed_weight_bytes(simulation: fx.GraphModule, scheme: QuantScheme) -> int:
    """Returns the bytes of all weights of convolutions and linear layers if each took no more than its bits.

    A weight that several layers share counts once.
    """
    bits = {node.args[1]: _weight_bits(node, scheme) for node in simulation.graph.nodes if node.target in LAYERS}
    return sum(math.ceil(weight.meta["val"].numel() * each / 8) for weight, each in bits.items())


def _weight_bits(layer: fx.Node, scheme: QuantScheme) -> int:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    if weight.target is not dequantize:
        return FLOAT_BITS
    return scheme.bits_for(str(layer.meta.get("layer"))).weight or FLOAT_BITS


def _input_bits(source: fx.Node) -> int:
    if source.target is not dequantize:
        return FLOAT_BITS
    integers = source.args[0]
    assert isinstance(integers, fx.Node)
    return largest_integer(quantize_node(integers)).bit_length()
