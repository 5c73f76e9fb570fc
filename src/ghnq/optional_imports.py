"""Optional libraries, imported where they are used."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ghnq.errors import MissingExtraError

# Library -> the extra of this package that installs it.
EXTRAS = {
    "datasets": "data",
    "networkx": "graph",
    "onnx": "export",
    "onnxruntime": "export",
    "optuna": "search",
    "plotly": "report",
    "ray": "cluster",
    "torchao": "export",
}


def import_optional(name: str, context: str = "") -> Any:
    """Returns the module `name`, which belongs to one of the libraries in `EXTRAS`.

    Args:
        context: The beginning of the message, up to "this needs", where it says why the library is needed.

    Raises:
        MissingExtraError: The library is not installed, or cannot be imported. The message names the extra.
    """
    package = name.split(".")[0]
    extra = EXTRAS[package]
    try:
        with quiet():
            return import_module(name)
    except Exception as error:
        # A broken installation raises whatever its parts raise while they are imported.
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingExtraError(
                f"{context}this needs {package}, which is not installed; install it with: pip install 'ghnq[{extra}]'"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingExtraError(
            f"{context}this needs {name}, and {package} is installed but cannot be imported: {reason}; install it "
            f"again with: pip uninstall {package} && pip install 'ghnq[{extra}]'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses warnings and log messages of libraries about deprecated or missing parts of their own."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
