"""The libraries of the extra `export`, imported where they are used."""

from importlib import import_module
from typing import Any

from ghnq.errors import MissingExtraError


def need(name: str) -> Any:
    """Returns the module `name` of `onnx` or `onnxruntime`.

    Raises MissingExtraError that names the extra where it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs {error.name}, which is not installed; install it with: pip install 'ghnq[export]'"
        ) from error
