"""Which modules are layers that can be quantized."""

from __future__ import annotations

from torch import nn

from ghnq.torch_compat import own_parameters

LAYER_CLASSES: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def quantizable_class(module: nn.Module) -> type[nn.Module] | None:
    """Returns the class of LAYER_CLASSES that a module behaves as; None if it is not a quantizable layer.

    A subclass counts if it inherits `forward`. A layer whose weight is computed (a parametrization) does not count.
    """
    for layer_class in LAYER_CLASSES:
        if (
            isinstance(module, layer_class)
            and type(module).forward is layer_class.forward
            and "weight" in own_parameters(module)
        ):
            return layer_class
    return None


def is_quantizable(module: nn.Module) -> bool:
    """Returns whether a module is a layer that can be quantized."""
    return quantizable_class(module) is not None
