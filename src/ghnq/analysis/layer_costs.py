"""What the layers of one network cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghnq.graph.multiply_adds import layer_multiply_adds
from ghnq.quant import Prepared, QuantScheme


@dataclass(frozen=True)
class LayerCost:
    """The weights of a layer, and its multiply-adds for one image."""

    weights: int
    multiply_adds: int


def layer_costs(prepared: Prepared) -> dict[str, LayerCost]:
    """Returns the costs of all layers that can be quantized, by name, in the order of modules.

    A layer that runs twice costs its multiply-adds twice.

    Raises:
        SchemeError: There is no layer that can be quantized.
    """
    names = prepared.layers(QuantScheme.parse("w8a8"))
    multiply_adds = dict.fromkeys(names, 0)
    layers = {name: prepared.network.get_submodule(name) for name in names}
    handles = []
    for name, layer in layers.items():

        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            multiply_adds[name] += layer_multiply_adds(_weight(layer).shape, output.shape[1:])

        handles.append(layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            prepared.network(prepared.images[:2])
    finally:
        for handle in handles:
            handle.remove()
    return {name: LayerCost(_weight(layers[name]).numel(), multiply_adds[name]) for name in names}


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
