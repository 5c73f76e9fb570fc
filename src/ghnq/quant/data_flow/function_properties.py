"""What the analyses of a data flow need to know of a torch function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

# f(s x) = s f(x) for s > 0, channel by channel.
_HOMOGENEOUS = frozenset(
    ["relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "contiguous", "mean"]
    + [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)]
)
# These keep the order of the values, and so the channels, if the first two sizes do not change.
_RESHAPES = frozenset(["flatten", "view", "reshape", "squeeze"])
_QUERIES = frozenset(["size", "dim", "numel", "__len__", "stride", "is_contiguous", "ndimension", "is_floating_point"])
_QUERIED_ATTRIBUTES = frozenset(["shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout", "is_meta"])


def scales_channels(name: str, output: Tensor, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Returns whether scaling channel i (dimension 1) of the first argument scales channel i of the output alone.

    That holds for functions that are homogeneous, f(s x) = s f(x) for s > 0, and compute each output channel from the
    input channel of the same index alone.
    """
    if not args or not isinstance(args[0], Tensor):
        return False
    x = args[0]
    if x.dim() < 2 or output.dim() < 2 or x.shape[:2] != output.shape[:2]:
        return False
    if name == "mean":
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        dims: Sequence[int] = [dim] if isinstance(dim, int) else dim if isinstance(dim, list | tuple) and dim else [0]
        return all(d % x.dim() >= 2 for d in dims)
    return name in _HOMOGENEOUS or name in _RESHAPES


def is_query(func: Callable[..., object]) -> bool:
    """Returns whether a function reads metadata of a tensor, such as its shape, and none of its values."""
    name = getattr(func, "__name__", "")
    if name == "__get__":  # of an attribute
        return getattr(getattr(func, "__self__", None), "__name__", "") in _QUERIED_ATTRIBUTES
    return name in _QUERIES
