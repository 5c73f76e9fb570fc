"""Torch's operators of pt2e quantization, which are registered when their module is imported."""

from __future__ import annotations

from typing import Any

from ghnq.optional_imports import quiet


def quantized_decomposed() -> Any:
    """Returns `torch.ops.quantized_decomposed`, the namespace of the operators of pt2e quantization."""
    from ghnq.torch_compat import import_quantized_decomposed

    with quiet():
        return import_quantized_decomposed()
