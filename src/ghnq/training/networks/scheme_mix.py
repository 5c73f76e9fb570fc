"""Which precision each network of a step is trained for: drawn from the recipe's mix, a pure function of the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ghnq.errors import RecipeError, SchemeError
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.scheme import QuantScheme

MIXED = "mixed"
"""The word for a precision of its own for every layer."""
MIXED_BITS = (2, 3, 4, 6, 8)


def check_mix(mix: dict[str, float]) -> None:
    """Raises RecipeError for a word that is no scheme, a weight that is negative, or a mix of nothing."""
    for word, weight in mix.items():
        if weight < 0:
            raise RecipeError(f"quantization.mix: the weight of '{word}' is {weight}; it must not be negative")
        if word != MIXED:
            try:
                QuantScheme.parse(word)
            except SchemeError as error:
                raise RecipeError(f"quantization.mix: {error}; or '{MIXED}', bits drawn for every layer") from error
    if not sum(mix.values()) > 0:
        raise RecipeError("quantization.mix must name at least one scheme with a weight above 0, such as {w4a8: 1}")


def draw_scheme(
    mix: dict[str, float], layers: list[str], key: tuple[int, ...], steps: Sequence[str] = ()
) -> QuantScheme:
    """The scheme of one network; layers: its names, for `mixed`; key: seed, step and network; steps: of deployment."""
    rng = np.random.default_rng(key)
    words, weights = list(mix), np.array(list(mix.values()))
    word = words[int(rng.choice(len(words), p=weights / weights.sum()))]
    if word != MIXED:
        return QuantScheme.parse(word, steps=tuple(steps)).with_searched_ranges
    bits = rng.choice(MIXED_BITS, size=(len(layers), 2)).tolist()
    scheme = QuantScheme.parse("w4a4", steps=tuple(steps)).with_searched_ranges
    return scheme.override((name, str(LayerBits(w, a))) for name, (w, a) in zip(layers, bits, strict=True))
