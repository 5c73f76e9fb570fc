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

    Raises MissingExtraError that names the extra where it is not installed, or cannot be imported.
    """
    package = name.split(".")[0]
    try:
        with hushed():
            return import_module(name)
    except Exception as error:
        # A broken installation raises whatever its parts raise while they are imported.
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingExtraError(
                f"this needs {package}, which is not installed; install it with: pip install 'ghnq[export]'"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingExtraError(
            f"this needs {name}, and {package} is installed but cannot be imported: {reason}; install it again with: "
            f"pip uninstall {package} && pip install 'ghnq[export]'"
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
