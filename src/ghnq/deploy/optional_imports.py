"""Torch's operators of pt2e quantization, which are registered when their module is imported."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ghnq.optional_imports import quiet


def decomposed() -> Any:
    """Returns torch's `quantized_decomposed` functions, the operators of pt2e quantization; they come with torch."""
    import torch

    with quiet():
        import_module("torch.ao.quantization.fx._decomposed")  # registers them
    return torch.ops.quantized_decomposed
