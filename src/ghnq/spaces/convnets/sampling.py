"""Draws specs from a profile. Degenerate networks are drawn again; see `is_acceptable`."""

from __future__ import annotations

from typing import Literal

from ghnq.spaces.convnets.profiles import Profile
from ghnq.spaces.convnets.random_draws import Categorical, RandomStream
from ghnq.spaces.convnets.sample_cells import sample_cells
from ghnq.spaces.convnets.sample_stages import sample_stages
from ghnq.spaces.convnets.spec_cost import cost
from ghnq.spaces.convnets.specs import Spec, Stages, Stem
from ghnq.spaces.convnets.widths import round_channels

# Full-resolution stems make every later layer four times as expensive, so they are rarer.
_STEM_STRIDES: Categorical[Literal[1, 2]] = Categorical({2: 0.7, 1: 0.3})
_STEM_KERNELS: Categorical[Literal[3, 5, 7]] = Categorical({3: 0.7, 5: 0.2, 7: 0.1})
_SINGLE_LINEAR = 0.65
_MIN_BUDGET_FRACTION = 0.25


def sample(rng: RandomStream, profile: Profile) -> Spec | None:
    """Draws one spec, which may not be acceptable; returns None if it has too many or too few blocks."""
    width_factor = profile.width_factor[0] + rng.uniform() * (profile.width_factor[1] - profile.width_factor[0])
    stride = rng.choice(_STEM_STRIDES)
    kernel = rng.choice(_STEM_KERNELS)
    channels = round_channels(rng.integer(10, 40 if stride == 2 else 20) * width_factor)
    hidden = None if rng.bernoulli(_SINGLE_LINEAR) else 16 * rng.integer(2, 8)
    draw = sample_stages if rng.choice(profile.families) == "stages" else sample_cells
    body = draw(rng, profile, stride, channels, width_factor)
    if body is None:
        return None
    # Drawn only where there is a choice: the draws of other splits stay as they are.
    norm = None if profile.norm_free and rng.bernoulli(profile.norm_free) else profile.norm
    return Spec(norm=norm, stem=Stem(channels=channels, kernel=kernel, stride=stride), body=body, hidden=hidden)


def is_acceptable(rng: RandomStream, profile: Profile, spec: Spec) -> bool:
    """Returns whether a drawn spec is within its profile, and has 32 features and 4 convolutions larger than 1x1.

    The limit of multiply-adds is drawn anew each time, so that expensive networks, which would take most of the
    training time, are rarer.
    """
    found = cost(spec)
    least, most = profile.multiply_adds
    return (
        _features(spec) >= 32
        and found.spatial_convs >= 4
        and least <= found.multiply_adds <= most * _MIN_BUDGET_FRACTION ** rng.uniform()
        and profile.parameters[0] <= found.parameters <= profile.parameters[1]
        and profile.depth[0] <= found.depth <= profile.depth[1]
        and profile.width[0] <= found.width <= profile.width[1]
    )


def _features(spec: Spec) -> int:
    """Returns the channels before the linear layers, without concatenated blocks of the last stage."""
    if isinstance(spec.body, Stages):
        return spec.body.stages[-1].blocks[0].channels
    return spec.body.channels[-1] * len(spec.body.genotype(spec.body.count - 1).concat)
