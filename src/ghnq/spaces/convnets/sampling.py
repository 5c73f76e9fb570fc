"""Draws specs from a profile. What makes a network degenerate is drawn again: see `acceptable`."""

from __future__ import annotations

from typing import Literal

from ghnq.spaces.convnets.cost import cost
from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Dice, Weighted
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
    """Draws one spec, `acceptable` or not; None where the draw has too many or too few blocks."""
    widen = profile.widen[0] + dice.number() * (profile.widen[1] - profile.widen[0])
    stride = dice.weighted(_STEM_STRIDES)
    kernel = dice.weighted(_STEM_KERNELS)
    channels = rounded(dice.integer(10, 40 if stride == 2 else 20) * widen)
    hidden = None if dice.chance(_ONE_LINEAR) else 16 * dice.integer(2, 8)
    draw = sample_stages if dice.weighted(profile.families) == "stages" else sample_cells
    body = draw(dice, profile, stride, channels, widen)
    if body is None:
        return None
    return Spec(norm=profile.norm, stem=Stem(channels=channels, kernel=kernel, stride=stride), body=body, hidden=hidden)


def acceptable(dice: Dice, profile: Profile, spec: Spec) -> bool:
    """Whether a drawn spec lies within its profile and has three windows beyond the stem and 32 features.

    A budget of multiply-adds, drawn anew each time, thins out the dear networks, which would take most of the training.
    """
    price = cost(spec)
    least, most = profile.multiply_adds
    return (
        _features(spec) >= 32
        and price.spatial_convs >= 4
        and least <= price.multiply_adds <= most * _LEAST_BUDGET ** dice.number()
        and profile.parameters[0] <= price.parameters <= profile.parameters[1]
        and profile.depth[0] <= price.depth <= profile.depth[1]
        and profile.width[0] <= price.width <= profile.width[1]
    )


def _features(spec: Spec) -> int:
    """Channels in front of the linear layers, concatenated blocks of the last stage left out."""
    if isinstance(spec.body, Stages):
        return spec.body.stages[-1].blocks[0].channels
    return spec.body.channels[-1] * len(spec.body.genotype(spec.body.count - 1).concat)
