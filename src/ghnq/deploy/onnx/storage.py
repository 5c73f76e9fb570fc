"""How the integers of a quantized network are stored in an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How integers are stored.

    Attributes:
        pack_int4: Whether weights of up to 4 bits are stored as INT4, two to a byte. Runtimes then compute convolutions
            in float.
        int8_weights: Whether 8-bit weights are stored as int8 instead of uint8 with zero point 128. The values are the
            same, and the kernel is faster on processors with VNNI; without VNNI, ONNX Runtime's kernel for them
            saturates and computes other results.
    """

    pack_int4: bool = False
    int8_weights: bool = False
