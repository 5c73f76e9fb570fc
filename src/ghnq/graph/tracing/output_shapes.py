"""Output shapes of the common functions, by arithmetic alone: PyTorch's own meta kernels cost up to a millisecond each.

Every function takes and returns tuples of ints, and raises `ValueError` if the torch function would fail. Shapes may be
without the batch dimension where PyTorch allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ghnq.graph.elements import Shape

Size = int | Sequence[int]


def expand_size(value: Size, n: int, name: str) -> Shape:
    """Returns n ints for an int or a sequence of 1 or n ints."""
    if isinstance(value, int):
        return (value,) * n
    sizes = tuple(value)
    if len(sizes) == 1:
        return sizes * n
    if len(sizes) != n:
        raise ValueError(f"{name} is {sizes}, expected {n} numbers")
    return sizes


def _split(x: Shape, n: int, name: str) -> tuple[Shape, int, Shape]:
    """Returns batch dimensions (none or one), channels, and n spatial sizes of an image shape."""
    if len(x) not in (n + 1, n + 2):
        raise ValueError(f"{name} takes {n + 1} or {n + 2} dimensions, got the shape {x}")
    return x[: -n - 1], x[-n - 1], x[-n:]


def conv(
    x: Shape,
    weight: Shape,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Shape:
    """Returns the shape after a convolution; weight (O, I / groups, K...)."""
    n = len(weight) - 2
    batch, channels, sizes = _split(x, n, f"conv{n}d")
    if channels != weight[1] * groups or weight[0] % groups:
        raise ValueError(
            f"a convolution with weight {weight} and {groups} group(s) takes {weight[1] * groups} channels, "
            f"got {channels} in the shape {x}"
        )
    strides, dilations = expand_size(stride, n, "stride"), expand_size(dilation, n, "dilation")
    if padding == "same":
        if strides != (1,) * n:
            raise ValueError("padding='same' needs stride 1")
        return (*batch, weight[0], *sizes)
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        raise ValueError(f"padding is {padding!r}, expected 'same', 'valid' or numbers")
    paddings = expand_size(padding, n, "padding")
    out = []
    for size, kernel, step, pad, gap in zip(sizes, weight[2:], strides, paddings, dilations, strict=True):
        if step < 1 or gap < 1 or pad < 0:
            raise ValueError(f"stride {step} and dilation {gap} must be positive and padding {pad} not negative")
        span = size + 2 * pad - gap * (kernel - 1) - 1
        if span < 0:
            raise ValueError(f"a {kernel}-wide kernel with dilation {gap} does not fit into {size} + 2 * {pad} of {x}")
        out.append(span // step + 1)
    return (*batch, weight[0], *out)


def conv_transpose(
    x: Shape,
    weight: Shape,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Shape:
    """Returns the shape after a transposed convolution; weight (I, O / groups, K...)."""
    n = len(weight) - 2
    batch, channels, sizes = _split(x, n, f"conv_transpose{n}d")
    if channels != weight[0] or channels % groups:
        raise ValueError(f"a transposed convolution with weight {weight} takes {weight[0]} channels, got {x}")
    rows = zip(
        sizes,
        weight[2:],
        expand_size(stride, n, "stride"),
        expand_size(padding, n, "padding"),
        expand_size(output_padding, n, "output_padding"),
        expand_size(dilation, n, "dilation"),
        strict=True,
    )
    out = []
    for size, kernel, step, pad, extra, gap in rows:
        if step < 1 or gap < 1 or pad < 0 or extra < 0 or extra >= max(step, gap):
            raise ValueError(
                f"stride {step}, dilation {gap}, padding {pad}, output padding {extra} do not fit together"
            )
        out.append((size - 1) * step - 2 * pad + gap * (kernel - 1) + extra + 1)
    if min(out) < 1:
        raise ValueError(f"a transposed convolution with weight {weight} leaves no elements of the shape {x}")
    return (*batch, weight[1] * groups, *out)


def pool(
    x: Shape,
    n: int,
    kernel: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Shape:
    """Returns the shape after max or average pooling over the last n dimensions."""
    batch, channels, sizes = _split(x, n, f"pooling over {n} dimension(s)")
    kernels = expand_size(kernel, n, "kernel_size")
    steps = kernels if stride is None or stride == () or stride == [] else expand_size(stride, n, "stride")
    rows = zip(
        sizes, kernels, steps, expand_size(padding, n, "padding"), expand_size(dilation, n, "dilation"), strict=True
    )  # fmt: skip
    out = []
    for size, window, step, pad, gap in rows:
        extent = gap * (window - 1) + 1
        if window < 1 or step < 1 or gap < 1 or pad < 0 or 2 * pad > window:
            raise ValueError(
                f"pooling window {window}, stride {step}, padding {pad} and dilation {gap} do not fit together"
            )
        count = (size + 2 * pad - extent + (step - 1 if ceil_mode else 0)) // step + 1
        if ceil_mode and (count - 1) * step >= size + pad:
            count -= 1  # the last window would start in the padding
        if count < 1:
            raise ValueError(f"a pooling window of {window} does not fit into {size} of the shape {x}")
        out.append(count)
    return (*batch, channels, *out)


def adaptive_pool(x: Shape, n: int, output_size: int | Sequence[int | None]) -> Shape:
    """Returns the shape after adaptive pooling; None in `output_size` keeps that size."""
    batch, channels, sizes = _split(x, n, f"adaptive pooling over {n} dimension(s)")
    wanted = (output_size,) * n if isinstance(output_size, int) else tuple(output_size)
    if len(wanted) == 1:
        wanted *= n
    if len(wanted) != n:
        raise ValueError(f"output_size is {wanted}, expected {n} numbers")
    return (*batch, channels, *(size if w is None else w for size, w in zip(sizes, wanted, strict=True)))


def linear(x: Shape, weight: Shape) -> Shape:
    """Returns the shape after a linear layer; weight (O, I)."""
    if len(weight) != 2:
        raise ValueError(f"a linear layer takes a 2-dimensional weight, got {weight}")
    if not x or x[-1] != weight[1]:
        raise ValueError(f"a linear layer with weight {weight} takes {weight[1]} features, got the shape {x}")
    return (*x[:-1], weight[0])


def broadcast(a: Shape, b: Shape) -> Shape:
    """Returns the shape of an elementwise operation on two tensors."""
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    out = list(a)
    for i, size in enumerate(b, start=len(a) - len(b)):
        if out[i] == 1:
            out[i] = size
        elif size not in (1, out[i]):
            raise ValueError(f"the shapes {a} and {b} do not fit together")
    return tuple(out)


def normalise_dim(dim: int, n: int) -> int:
    """Returns a dimension counted from the front."""
    if not -n <= dim < n:
        raise ValueError(f"dimension {dim} is outside a tensor with {n} dimensions")
    return dim % n


def concat(shapes: Sequence[Shape], dim: int) -> Shape:
    """Returns the shape after concatenation along `dim`; empty 1-D tensors are skipped, as PyTorch does."""
    parts = [shape for shape in shapes if shape != (0,)] or list(shapes)
    first = parts[0]
    at = normalise_dim(dim, len(first))
    for shape in parts[1:]:
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != at
        ):
            raise ValueError(f"the shapes {first} and {shape} cannot be concatenated along dimension {dim}")
    return (*first[:at], sum(shape[at] for shape in parts), *first[at + 1 :])


def flatten(x: Shape, start: int = 0, end: int = -1) -> Shape:
    """Returns the shape after `flatten`."""
    if not x:
        return (1,)
    first, last = normalise_dim(start, len(x)), normalise_dim(end, len(x))
    if first > last:
        raise ValueError(f"flatten from dimension {start} to {end} of {x}: the end comes before the start")
    return (*x[:first], prod(x[first : last + 1]), *x[last + 1 :])


def mean(x: Shape, dims: Sequence[int], keepdim: bool = False) -> Shape:
    """Returns the shape after averaging over `dims` (all of them where empty)."""
    over = {normalise_dim(d, max(len(x), 1)) for d in dims} or set(
        range(len(x))
    )  # a scalar counts as one dimension here
    if len(over) < len(dims):
        raise ValueError(f"a dimension occurs twice in {tuple(dims)}")
    return tuple(1 if i in over else size for i, size in enumerate(x) if keepdim or i not in over)
