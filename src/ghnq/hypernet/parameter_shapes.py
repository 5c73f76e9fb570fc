"""How a parameter of any shape is requested from a decoder, and how what it returns takes that shape.

The role decides how values are bounded, the shape what decodes them. The weight of a convolution or linear layer is a
*kernel*; of the rest, what has at most one dimension above 1 is a *vector* (its fan-in is 1), and all else (position
embeddings, bias tables, norms over several dimensions) a *table* of positions x features, read out of a kernel
(features, in, K, K) whose in-channels and cells are the positions, so that positions differ.

Dimensions: S slots of a group, O/I out- and in-channels, K kernel height or width, P positions, F features.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from ghnq.graph.batching.batch import SlotGroup
from ghnq.graph.ir import Shape
from ghnq.graph.ops import KERNEL_OPS
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.decoders.decoder import Shape4, WeightRequest
from ghnq.hypernet.parameter_normalisation import bounded_scale, bounded_shift, weight_gain
from ghnq.hypernet.tiling import Identity, Tiling, tile

ParameterKind = Literal["kernel", "table", "vector"]


def kind_of(group: SlotGroup) -> ParameterKind:
    """Returns which of the three a group of parameters is."""
    if group.op in KERNEL_OPS and len(group.shape) > 1:
        return "kernel"
    return "table" if sum(size > 1 for size in group.shape) > 1 else "vector"


def request_for(group: SlotGroup, config: GHNConfig, *, channels_last: bool) -> WeightRequest:
    """Returns what to request from the decoder for a kernel or a table.

    Kernels are scaled by the fan-in of the layer. With `identity` they are the difference from the kernel that passes
    every channel on (Dirac nets, arXiv 1706.00388, Eq. 1); the classification layer has none. A table is requested as
    a kernel with positions as large as the decoder's.
    """
    if kind_of(group) == "table":
        return WeightRequest(False, False, Tiling(_table_kernel(group.shape, config.max_shape[3])))
    out_first = _out_first(group)
    shape = _four(out_first)
    depthwise = group.op in ("sep_conv", "dil_conv") and shape[1] == 1
    classifier = group.role == "class_weight"
    gain = weight_gain(out_first) if config.normalise else 1.0
    identity: Identity | None = None
    if config.identity and not classifier:
        identity = "depthwise" if depthwise else "dense"
    return WeightRequest(depthwise, classifier, Tiling(shape, gain, channels_last, identity))


def reshape_kernel(decoded: Tensor, group: SlotGroup) -> Tensor:
    """Returns decoded kernels [S, O, I, K, K] as parameters [S, *shape]."""
    weight = decoded if decoded.shape[1:] == group.shape else decoded.reshape(-1, *_out_first(group))
    return weight.transpose(1, 2) if group.transposed else weight


def reshape_table(decoded: Tensor, group: SlotGroup, *, normalise: bool) -> Tensor:
    """Returns decoded kernels [S, F, I, K, K] as tables [S, *shape], normalised by role."""
    axis = _feature_axis(group.shape)
    features = group.shape[axis]
    others = (*group.shape[:axis], *group.shape[axis + 1 :])
    by_position = decoded.flatten(2)[..., : math.prod(others)].transpose(1, 2)
    table = by_position.reshape(-1, *others, features).movedim(-1, axis + 1)
    return _normalised(table, group) if normalise else table


def reshape_vector(decoded: Tensor, shape: Shape) -> Tensor:
    """Returns decoded vectors [S, C] as parameters [S, *shape], repeated or cut."""
    vector = tile(decoded, (math.prod(shape),))
    return vector if len(shape) == 1 else vector.reshape(-1, *shape)


def _normalised(table: Tensor, group: SlotGroup) -> Tensor:
    """Returns norm scales in (0, 2), shifts and biases in (-1, 1), weights scaled by fan-in (GHN-2, section 4.3)."""
    if group.role == "norm_weight":
        return bounded_scale(table)
    return table * weight_gain(group.shape) if group.role == "weight" else bounded_shift(table)


def _out_first(group: SlotGroup) -> Shape:
    """Returns a kernel's shape with the out-channels first, however the layer stores it."""
    return (group.shape[1], group.shape[0], *group.shape[2:]) if group.transposed else group.shape


def _four(shape: Shape) -> Shape4:
    """Returns a kernel's shape as (out, in, height, width); further dimensions count as in-channels."""
    if len(shape) > 4:
        shape = (shape[0], math.prod(shape[1:-2]), *shape[-2:])
    o, i, h, w = (*shape, 1, 1, 1)[:4]
    return o, i, h, w


def _feature_axis(shape: Shape) -> int:
    """Returns the dimension of the channels: the second of what is shaped like an image, the last of a sequence."""
    return 1 if len(shape) >= 4 else len(shape) - 1


def _table_kernel(shape: Shape, max_kernel: int) -> Shape4:
    """Returns the smallest (features, in, K, K) with a cell for every position, K at most that of the decoder."""
    features = shape[_feature_axis(shape)]
    positions = math.prod(shape) // features
    kernel = min(max_kernel, math.isqrt(positions - 1) + 1)
    return features, -(-positions // kernel**2), kernel, kernel
