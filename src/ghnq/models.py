"""What a user calls MODEL: a reference in words, resolved to an `nn.Module`.

It sits above `spaces` (it builds their members) and below the commands. User code is imported only when it is named,
and an exception raised inside it passes through untouched: its traceback is what the user needs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from torch import nn

from ghnq.errors import GraphError, nearest
from ghnq.spaces import resolve

FORMS = "FILE.py:NAME, package.module:NAME, or SPACE/SPLIT/INDEX"


def load_model(reference: str, *, input_shape: tuple[int, ...] = (3, 32, 32), num_classes: int = 10) -> nn.Module:
    """Returns the module that `reference` names: `FILE.py:NAME`, `package.module:NAME` or `SPACE/SPLIT/INDEX`.

    NAME is an `nn.Module`, a class or function that returns one when called without arguments, or a model class of
    `transformers`, which is built from its default configuration. Members of a space are built on the `meta` device
    (no weights) for images of `input_shape` (C, H, W) and `num_classes` classes.

    Raises GraphError where there is no such file, module or name, or it is no `nn.Module`; SpaceError for a wrong split
    or index. What the user's own code raises is not caught.
    """
    place, colon, name = reference.rpartition(":")
    if colon and place and name:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
        return _instantiate(_attribute(module, name, place), reference)
    if reference.endswith(".py") and Path(reference).is_file():
        raise GraphError(
            f"'{reference}' names a file, but not the model in it. Write {reference}:NAME; "
            f"the file defines: {', '.join(_definitions(Path(reference))) or 'nothing'}."
        )
    if colon or reference.count("/") != 2:
        raise GraphError(f"'{reference}' is not a model. A model is {FORMS}, for example convnets/test/17.")
    space, spec = resolve(reference)
    return space.build(spec, in_channels=input_shape[0], num_classes=num_classes, device="meta")


def _definitions(file: Path) -> list[str]:
    """Returns the names of the classes and functions at the top of `file`, without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except ValueError:  # not text at all
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def _import_file(file: Path) -> ModuleType:
    """Runs `file` as a module of its own; its folder is on the import path, as when Python runs it."""
    if not file.is_file():
        beside = [other.name for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise GraphError(f"There is no file '{file}'{nearest(file.name, beside)}. A model is {FORMS}.")
    _put_on_path(file.resolve().parent)
    # A name of its own, so that a user's `torch.py` or `data.py` replaces no module that is already loaded.
    spec = importlib.util.spec_from_file_location(f"_ghnq_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise GraphError(f"'{file}' cannot be imported as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as stop:
        raise _ended(str(file), stop) from stop
    return module


def _import_module(name: str) -> ModuleType:
    """Imports `name`, looking in the working directory first, as `python -m` does."""
    if not all(part.isidentifier() for part in name.split(".")):
        hint = f" (did you mean '{name}.py'?)" if Path(f"{name}.py").is_file() else ""
        raise GraphError(
            f"'{name}' is neither a file that ends in .py nor the name of a module{hint}. A model is {FORMS}."
        )
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for is the user's typing mistake; one that it imports is a fault in its code.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise GraphError(f"There is no Python module '{error.name}' (in '{name}'). A model is {FORMS}.") from error
    except SystemExit as stop:
        raise _ended(name, stop) from stop


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _ended(place: str, stop: SystemExit) -> GraphError:
    """A script without a main guard would end the command as if it had succeeded."""
    return GraphError(
        f"'{place}' ends the program (exit code {stop.code}) when it is imported. "
        "Put what it runs behind: if __name__ == '__main__'."
    )


def _attribute(module: ModuleType, name: str, place: str) -> object:
    """Returns `module.name`; dots in the name reach into classes and objects."""
    value: object = module
    for part in name.split("."):
        if not hasattr(value, part):
            offered = [word for word in vars(value) if not word.startswith("_")] if hasattr(value, "__dict__") else []
            raise GraphError(f"'{place}' has no '{name}'{nearest(part, offered)}. A model is {FORMS}.")
        value = getattr(value, part)
    return value


def _instantiate(value: object, reference: str) -> nn.Module:
    """Returns `value` if it is a module, else what it returns when called without arguments."""
    if isinstance(value, nn.Module):
        return value
    if not callable(value):
        raise GraphError(
            f"'{reference}' is of type {type(value).__name__}; needed is an nn.Module, or a class or function "
            "that returns one when called without arguments."
        )
    if isinstance(value, type) and hasattr(value, "config_class") and callable(value.config_class):
        # As the classes of `transformers` want it: with their default configuration.
        build: Callable[[], object] = partial(value, value.config_class())
    else:
        _needs_no_arguments(value, reference)
        build = value
    try:
        made = build()
    except SystemExit as stop:
        raise GraphError(f"'{reference}' ends the program (exit code {stop.code}) when it is called.") from stop
    if not isinstance(made, nn.Module):
        raise GraphError(f"'{reference}' returned {type(made).__name__} where an nn.Module is needed.")
    return made


def _needs_no_arguments(function: Callable[..., object], reference: str) -> None:
    """Checked beforehand, so that a TypeError from inside the user's code stays the user's."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # Some functions written in C tell no signature; the call itself will tell.
    try:
        signature.bind()
    except TypeError as error:
        raise GraphError(
            f"'{reference}' cannot be called without arguments ({error}). "
            "Write a function without arguments that returns the model, and name that."
        ) from error
