"""Draws specs from a profile. What makes a network degenerate is drawn again: see `acceptable`."""

from __future__ import annotations

from typing import Literal

from ghnq.spaces.convnets.cost import Cost, cost
from ghnq.spaces.convnets.dice import Dice, Weighted
from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.sample_cells import sample_cells
from ghnq.spaces.convnets.sample_stages import sample_stages
from ghnq.spaces.convnets.specs import Spec, Stages, Stem
from ghnq.spaces.convnets.widths import rounded

# Full-resolution stems make every later layer four times as dear, so they are the rarer ones.
_STEM_STRIDES: Weighted[Literal[1, 2]] = Weighted({2: 0.7, 1: 0.3})
_STEM_KERNELS: Weighted[Literal[3, 5, 7]] = Weighted({3: 0.7, 5: 0.2, 7: 0.1})
_ONE_LINEAR = 0.65
_LEAST_BUDGET = 0.25


def sample(dice: Dice, profile: Profile) -> Spec | None:
    """Draws one spec, or None where the draw lies outside the profile."""
    widen = profile.widen[0] + dice.number() * (profile.widen[1] - profile.widen[0])
    stride = dice.weighted(_STEM_STRIDES)
    kernel = dice.weighted(_STEM_KERNELS)
    channels = rounded(dice.integer(10, 40 if stride == 2 else 20) * widen)
    hidden = None if dice.chance(_ONE_LINEAR) else 16 * dice.integer(2, 8)
    draw = sample_stages if dice.weighted(profile.families) == "stages" else sample_cells
    body = draw(dice, profile, stride, channels, widen)
    if body is None:
        return None
    stem = Stem(channels=channels, kernel=kernel, stride=stride)
    spec = Spec(norm=profile.norm, stem=stem, body=body, hidden=hidden)
    price = cost(spec)
    # A budget of its own for every draw thins out the dear networks, which would take most of the training time.
    budget = profile.multiply_adds[1] * _LEAST_BUDGET ** dice.number()
    return spec if acceptable(spec, profile, price) and price.multiply_adds <= budget else None


def acceptable(spec: Spec, profile: Profile, price: Cost) -> bool:
    """Whether a spec lies within its profile and is no degenerate net: three windows beyond the stem, 32 features."""
    low, high = profile.parameters
    least, most = profile.multiply_adds
    narrowest, widest = profile.width
    return (
        low <= price.parameters <= high
        and least <= price.multiply_adds <= most
        and profile.depth[0] <= price.depth <= profile.depth[1]
        and narrowest <= price.width <= widest
        and price.spatial_convs >= 4
        and _features(spec) >= 32
    )


def _features(spec: Spec) -> int:
    """Channels in front of the linear layers, before any concatenation."""
    if isinstance(spec.body, Stages):
        return spec.body.stages[-1].blocks[0].channels
    return spec.body.channels[-1] * len(spec.body.genotype(spec.body.count - 1).concat)
