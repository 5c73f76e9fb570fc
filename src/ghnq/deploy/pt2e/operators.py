"""Torch's operators of pt2e quantization, which are registered when their module is imported."""

from __future__ import annotations

from ghnq.optional_imports import quiet
from ghnq.torch_compat import OpNamespace, import_quantized_decomposed


def quantized_decomposed() -> OpNamespace:
    """Returns `torch.ops.quantized_decomposed`, the namespace of the operators of pt2e quantization."""
    with quiet():
        return import_quantized_decomposed()
