"""How far an architecture is outside the distribution that hypernetworks are trained on."""

from __future__ import annotations

from ghnq.spaces.convnets.profiles import IN_DISTRIBUTION, Profile, Range
from ghnq.spaces.convnets.spec_cost import cost
from ghnq.spaces.convnets.specs import Cells, Spec, Stages, join_kind

MIN_SPATIAL_CONVS = 4
MIN_FEATURES = 32


def outside(spec: Spec, profile: Profile = IN_DISTRIBUTION) -> dict[str, float]:
    """Returns by how much of a bound each size exceeds it; 0 for all of them: the space has such a member.

    The sizes are those of 3 x 32 x 32 images and 10 classes, as in the profile; the bounds are those of drawn members
    (`ghnq.spaces.convnets.sampling`).
    """
    size = cost(spec)
    amounts = {
        "multiply-adds": _excess(size.multiply_adds, profile.multiply_adds),
        "parameters": _excess(size.parameters, profile.parameters),
        "depth": _excess(size.depth, profile.depth),
        "width": _excess(size.width, profile.width),
        "spatial convolutions": _excess(size.spatial_convs, (MIN_SPATIAL_CONVS, size.spatial_convs)),
    }
    body = spec.body
    if isinstance(body, Stages):
        concats = sum(join_kind(block) == "concat" for stage in body.stages for block in stage.blocks)
        amounts["blocks"] = _excess(body.num_blocks, profile.blocks)
        amounts["concatenations"] = _excess(concats, profile.num_concats)
    features = _features(body)
    amounts["features"] = _excess(features, (MIN_FEATURES, features))
    return amounts


def _excess(value: float, bounds: Range) -> float:
    low, high = bounds
    if value < low:
        return (low - value) / low
    return (value - high) / max(high, 1) if value > high else 0.0


def _features(body: Stages | Cells) -> int:
    if isinstance(body, Stages):
        return body.stages[-1].blocks[0].channels
    return body.channels[-1] * len(body.genotype(body.count - 1).concat)
