"""Rows of accuracies: the bytes that a scheme leaves of the parameters, and drops from float32."""

from __future__ import annotations

from functools import lru_cache

from ghnq.errors import SchemeError
from ghnq.quant import QuantScheme, is_scheme_file

FLOAT_BITS = 32


@lru_cache(maxsize=256)
def bits_of(scheme: str) -> tuple[int, int] | None:
    """Returns the bits of weights and of activations; None where they differ between layers, or are not known.

    >>> bits_of("w4a8"), bits_of("float32"), bits_of("w4"), bits_of("w4a8+stem=w8a8")
    ((4, 8), (32, 32), (4, 32), None)
    """
    if is_scheme_file(scheme):
        return None
    try:
        parsed = QuantScheme.parse(scheme)
    except SchemeError:  # the name of a scheme file, `mixed`
        return None
    if parsed.overrides:
        return None
    return parsed.weight_bits or FLOAT_BITS, parsed.activation_bits or FLOAT_BITS


def weight_bytes(parameters: int | None, scheme: str) -> float | None:
    """Returns the bytes of all parameters at the bits that a scheme has for weights."""
    bits = bits_of(scheme)
    return None if bits is None or parameters is None else parameters * bits[0] / 8
