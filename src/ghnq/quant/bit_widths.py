"""Bit-widths of one layer: of its weight and of its input activation, written `w4a8`."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from ghnq.errors import SchemeError, nearest

MIN_BITS, MAX_BITS = 2, 16

NOTATION = f"'float32', 'w8a8' (weights and activations) or 'w4' (weights only), with {MIN_BITS} to {MAX_BITS} bits"
"""What messages say about the notation."""

_COMMON = ("float32", "w8a8", "w4a8", "w4a4", "w2a2", "w8", "w4", "w2")
_PATTERN = re.compile(r"w(\d+)(?:a(\d+))?")


class LayerBits(NamedTuple):
    """Bit-widths of a layer's weight and of its input activation; None keeps that tensor in float."""

    weight: int | None
    activation: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the notation of bit-widths.

        Raises:
            SchemeError: the text is not in the notation, or a bit-width is out of range.

        >>> LayerBits.parse("w4a8")
        LayerBits(weight=4, activation=8)
        >>> LayerBits.parse("w4")
        LayerBits(weight=4, activation=None)
        """
        if text == "float32":
            return cls(None, None)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise SchemeError(f"unknown scheme {text!r}: expected {NOTATION}{nearest(text, _COMMON)}")
        bits = cls(int(match[1]), None if match[2] is None else int(match[2]))
        bits.check(text)
        return bits

    def check(self, source: str) -> None:
        """Checks the bit-widths; `source` is what the message cites.

        Raises:
            SchemeError: a bit-width is out of range, or activations are quantized and weights are not.
        """
        for tensor, bits in zip(("weight", "activation"), self, strict=True):
            if bits is not None and not MIN_BITS <= bits <= MAX_BITS:
                closest = min(max(bits, MIN_BITS), MAX_BITS)
                raise SchemeError(
                    f"scheme {source!r} asks for {bits} {tensor} bits: allowed are {MIN_BITS} to {MAX_BITS} "
                    f"(the nearest is {closest})"
                )
        if self.weight is None and self.activation is not None:
            raise SchemeError(f"scheme {source!r} quantizes activations but not weights: expected {NOTATION}")

    def __str__(self) -> str:
        if self.weight is None:
            return "float32"
        return f"w{self.weight}" if self.activation is None else f"w{self.weight}a{self.activation}"
