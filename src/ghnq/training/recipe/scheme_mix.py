"""The scheme that each network of a step is trained for, drawn from the recipe's `quantization.mix`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ghnq.errors import RecipeError, SchemeError
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.scheme import QuantScheme

MIXED = "mixed"
"""Name in the mix for a scheme with bits of its own for every layer."""
MIXED_BITS = (2, 3, 4, 6, 8)


def check_mix(mix: dict[str, float]) -> None:
    """Checks the mix of a recipe.

    Raises:
        RecipeError: A name is not a scheme, a weight is negative, or all are zero.
    """
    for name, weight in mix.items():
        if weight < 0:
            raise RecipeError(f"quantization.mix: the weight of '{name}' is {weight}; it must not be negative")
        if name != MIXED:
            try:
                QuantScheme.parse(name)
            except SchemeError as error:
                raise RecipeError(f"quantization.mix: {error}; or '{MIXED}', bits drawn for every layer") from error
    if not sum(mix.values()) > 0:
        raise RecipeError("quantization.mix must name at least one scheme with a weight above 0, such as {w4a8: 1}")


def draw_scheme(
    mix: dict[str, float],
    layers: list[str],
    key: tuple[int, ...],
    steps: Sequence[str] = (),
    protocol: str = "deploy",
) -> QuantScheme:
    """Draws the scheme of one network; a pure function of its arguments.

    Args:
        mix: Schemes and how often each is drawn.
        layers: Names of the network's layers, for `mixed`.
        key: Seed, step and position of the network.
        steps: Post-training steps of deployment.
        protocol: That of the scheme.
    """
    rng = np.random.default_rng(key)
    names, weights = list(mix), np.array(list(mix.values()))
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    if name != MIXED:
        return QuantScheme.parse(name, protocol=protocol, steps=tuple(steps)).with_searched_ranges
    bits = rng.choice(MIXED_BITS, size=(len(layers), 2)).tolist()
    scheme = QuantScheme.parse("w4a4", protocol=protocol, steps=tuple(steps)).with_searched_ranges
    return scheme.override((layer, str(LayerBits(w, a))) for layer, (w, a) in zip(layers, bits, strict=True))
