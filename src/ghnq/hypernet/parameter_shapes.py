"""How a parameter of any shape is asked of a decoder, and how the decoder's answer takes that shape.

The role says how values are squashed, the shape says who decodes. The weight of a convolution or linear layer is a
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
from ghnq.hypernet.decoders.weight_decoder import Shape4, WeightRequest
from ghnq.hypernet.tiling import Filling, Identity
from ghnq.hypernet.weight_scaling import norm_scale, shift, tile, weight_gain

Form = Literal["kernel", "table", "vector"]


def form_of(group: SlotGroup) -> Form:
    """Which of the three a group of parameters is."""
    if group.op in KERNEL_OPS and len(group.shape) > 1:
        return "kernel"
    return "table" if sum(size > 1 for size in group.shape) > 1 else "vector"


def request_for(group: SlotGroup, config: GHNConfig, *, channels_last: bool) -> WeightRequest:
    """What to ask of the decoder for a kernel or a table.

    Kernels are scaled by the fan-in of the layer. With `identity` they are what the layer does besides handing every
    channel on (Dirac nets, arXiv 1706.00388, Eq. 1); the classification layer has no channels to hand on. A table is
    asked for as a kernel as large as the decoder predicts in one piece.
    """
    if form_of(group) == "table":
        return WeightRequest(False, False, Filling(_table_kernel(group.shape, config.max_shape[3])))
    out_first = _out_first(group)
    shape = _four(out_first)
    depthwise = group.op in ("sep_conv", "dil_conv") and shape[1] == 1
    classifies = group.role == "class_weight"
    gain = weight_gain(out_first) if config.normalise else 1.0
    identity: Identity | None = None
    if config.identity and not classifies:
        identity = "depthwise" if depthwise else "dense"
    return WeightRequest(depthwise, classifies, Filling(shape, gain, channels_last, identity))


def fit_kernel(filled: Tensor, group: SlotGroup) -> Tensor:
    """[S, O, I, K, K] -> [S, *shape]."""
    weight = filled if filled.shape[1:] == group.shape else filled.reshape(-1, *_out_first(group))
    return weight.transpose(1, 2) if group.transposed else weight


def fit_table(filled: Tensor, group: SlotGroup, *, normalise: bool) -> Tensor:
    """[S, F, I, K, K] -> [S, *shape], squashed by role."""
    axis = _feature_axis(group.shape)
    features = group.shape[axis]
    others = (*group.shape[:axis], *group.shape[axis + 1 :])
    by_position = filled.flatten(2)[..., : math.prod(others)].transpose(1, 2)
    table = by_position.reshape(-1, *others, features).movedim(-1, axis + 1)
    return _squash(table, group) if normalise else table


def fit_vector(decoded: Tensor, shape: Shape) -> Tensor:
    """[S, C] -> [S, *shape], repeated or cut."""
    vector = tile(decoded, (math.prod(shape),))
    return vector if len(shape) == 1 else vector.reshape(-1, *shape)


def _squash(table: Tensor, group: SlotGroup) -> Tensor:
    """Norm scales into (0, 2), shifts and biases into (-1, 1), weights by fan-in (GHN-2, section 4.3)."""
    if group.role == "norm_weight":
        return norm_scale(table)
    return table * weight_gain(group.shape) if group.role == "weight" else shift(table)


def _out_first(group: SlotGroup) -> Shape:
    """A kernel's shape with the out-channels first, however the layer stores it."""
    return (group.shape[1], group.shape[0], *group.shape[2:]) if group.transposed else group.shape


def _four(shape: Shape) -> Shape4:
    """A kernel's shape as (out, in, height, width); further dimensions, as of 3-D kernels, count as in-channels."""
    if len(shape) > 4:
        shape = (shape[0], math.prod(shape[1:-2]), *shape[-2:])
    o, i, h, w = (*shape, 1, 1, 1)[:4]
    return o, i, h, w


def _feature_axis(shape: Shape) -> int:
    """Channels: the second dimension of what is shaped like an image, the last one of a sequence or a table."""
    return 1 if len(shape) >= 4 else len(shape) - 1


def _table_kernel(shape: Shape, max_kernel: int) -> Shape4:
    """The smallest (features, in, K, K) with a cell for every position, K as large as the decoder has."""
    features = shape[_feature_axis(shape)]
    positions = math.prod(shape) // features
    kernel = min(max_kernel, math.isqrt(positions - 1) + 1)
    return features, -(-positions // kernel**2), kernel, kernel
