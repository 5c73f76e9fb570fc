"""Which modules are layers that can be quantized, and which of these may be rewritten."""

from __future__ import annotations

from torch import nn

from ghnq.quant.weight_layout import TRANSPOSED
from ghnq.torch_compat import overridden_method, own_forward_hooks, own_parameters

LAYER_CLASSES: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


def quantizable_class(module: nn.Module) -> type[nn.Module] | None:
    """Returns the class of LAYER_CLASSES that a module behaves as; None if it is not a quantizable layer.

    A subclass counts if it overrides nothing that computes the output. Neither does a layer count whose `forward` was
    replaced on the instance, nor one whose weight or bias is computed (a parametrization, `weight_norm`, pruning).
    """
    for layer_class in LAYER_CLASSES:
        if isinstance(module, layer_class):
            return None if reason_not_quantizable(module, layer_class) else layer_class
    return None


def is_quantizable(module: nn.Module) -> bool:
    """Returns whether a module is a layer that can be quantized."""
    return quantizable_class(module) is not None


def reason_not_quantizable(module: nn.Module, layer_class: type[nn.Module] | None = None) -> str:
    """Returns why a convolution or linear layer computes something else than its class; empty if it does not.

    Args:
        module: Any module; what is not an instance of LAYER_CLASSES has no reason.
        layer_class: The class of LAYER_CLASSES of which it is an instance, where that is known.
    """
    if layer_class is None:
        layer_class = next((kind for kind in LAYER_CLASSES if isinstance(module, kind)), None)
        if layer_class is None:
            return ""
    method = overridden_method(module, layer_class)
    if method:
        return f"{type(module).__name__} overrides `{method}`"
    parameters = own_parameters(module)
    computed = [name for name in ("weight", "bias") if name not in parameters]
    return f"its {computed[0]} is computed" if computed else ""


def has_hooks(module: nn.Module) -> bool:
    """Returns whether a module has forward hooks or forward pre-hooks of the user.

    What they see and what they return must stay as it is: such a layer is quantized, but no norm is folded into it,
    and its channels are not scaled. Hooks of this package do not count.
    """
    return any(not _is_ours(hook) for hook in own_forward_hooks(module))


def _is_ours(hook: object) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(f"{__name__.partition('.')[0]}.")
