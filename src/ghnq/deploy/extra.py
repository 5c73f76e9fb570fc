"""The libraries of the extra `export`, imported where they are used."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ghnq.errors import MissingExtraError


def need(name: str) -> Any:
    """Returns the module `name` of `onnx`, `onnxruntime` or `torchao`.

    Raises MissingExtraError that names the extra where it is not installed.
    """
    try:
        with hushed():
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs {error.name}, which is not installed; install it with: pip install 'ghnq[export]'"
        ) from error


def decomposed() -> Any:
    """Returns torch's `quantized_decomposed` functions, the words of pt2e quantization; they come with torch."""
    import torch

    with hushed():
        import_module("torch.ao.quantization.fx._decomposed")  # registers them
    return torch.ops.quantized_decomposed


@contextmanager
def hushed() -> Iterator[None]:
    """Keeps torch and torchao from telling users of parts of their own that are old, or missing."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
