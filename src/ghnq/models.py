"""MODEL on the command line: a reference to a model as text, resolved to an `nn.Module`.

User code is imported only when it is named. An exception raised inside it is not caught: its traceback is what the user
needs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

from torch import nn

from ghnq.errors import GraphError, nearest
from ghnq.module_check import unwrapped
from ghnq.spaces import resolve
from ghnq.spaces.spec_file import read_spec_file

MODEL_FORMS = "FILE.py:NAME, package.module:NAME, SPEC.json, or SPACE/SPLIT/INDEX"
_OBJECT = re.compile(r"(?P<source>.+?):(?P<name>[^:\[\]]+)(\[(?P<key>.+)\])?")


def load_model(reference: str, *, input_shape: tuple[int, ...] = (3, 32, 32), num_classes: int = 10) -> nn.Module:
    """Returns the module that `reference` names: `FILE.py:NAME`, `package.module:NAME`, a spec, `SPACE/SPLIT/INDEX`.

    NAME is an `nn.Module`, a class or function that returns one when called without arguments, or a model class of
    `transformers`, which is built from its default configuration. `NAME[KEY]` is such an item of a list, tuple or
    generator (KEY counts from 0) or of a dictionary. A spec is a JSON file (`ghnq.spaces.spec_file`). Members of a
    space are built on the `meta` device (no weights) for images of `input_shape` (C, H, W) and `num_classes` classes.
    Wrappers (DataParallel, torch.compile) are left out, with a warning.

    Raises:
        GraphError: There is no such file, module or name, or it is not an `nn.Module`.
        SpaceError: There is no such split or index.
    """
    if is_object(reference):
        return instantiate(load_object(reference), reference)
    if reference.endswith(".json"):
        space, spec = read_spec_file(Path(reference))
        return space.build(spec, in_channels=input_shape[0], num_classes=num_classes, device="meta")
    if reference.endswith(".py") and Path(reference).is_file():
        raise GraphError(
            f"'{reference}' names a file, but not the model in it. Write {reference}:NAME; "
            f"the file defines: {', '.join(_definitions(Path(reference))) or 'nothing'}."
        )
    if ":" in reference or reference.count("/") != 2:
        raise GraphError(f"'{reference}' is not a model. A model is {MODEL_FORMS}, for example convnets/test/17.")
    space, spec = resolve(reference)
    return space.build(spec, in_channels=input_shape[0], num_classes=num_classes, device="meta")


def is_object(reference: str) -> bool:
    """Returns whether a reference has the form `SOURCE:NAME` or `SOURCE:NAME[KEY]`, be there such an object or not."""
    return _OBJECT.fullmatch(reference) is not None


def load_object(reference: str) -> object:
    """Returns what `FILE.py:NAME`, `package.module:NAME` or `SOURCE:NAME[KEY]` names, whatever it is.

    Raises:
        GraphError: There is no such file, module, name or item.
    """
    match = _OBJECT.fullmatch(reference)
    if match is None:
        raise GraphError(f"'{reference}' is not a model. A model is {MODEL_FORMS}.")
    source, name, key = match["source"], match["name"], match["key"]
    module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    value = _attribute(module, name, source)
    return value if key is None else _item(value, key, f"{source}:{name}")


def collection(value: object) -> Iterator[tuple[str, object]] | None:
    """Returns the items of a list, tuple, dictionary or generator with their keys as text; None for anything else.

    A function with `yield` is called. A module is never a collection, although `nn.Sequential` can be iterated over.
    """
    if inspect.isgeneratorfunction(value):
        _check_no_arguments(value, value.__name__)
        value = value()
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple | Iterator):
        return ((str(number), item) for number, item in enumerate(value))
    return None


def collection_of(value: object, reference: str) -> Iterator[tuple[str, object]] | None:
    """Returns `collection(value)`, or that of what a class or function returns when called without arguments."""
    items = collection(value)
    if items is None and callable(value) and not isinstance(value, nn.Module):
        items = collection(_called(value, reference))
    return items


def _item(value: object, key: str, reference: str) -> object:
    items = collection_of(value, reference)
    if items is None:
        raise GraphError(f"'{reference}' is of type {type(value).__name__}, which has no item [{key}].")
    keys = []
    for found, item in items:
        if found == key:
            return item
        keys.append(found)
        # A generator may never end.
        if not isinstance(value, Mapping) and (not key.isdecimal() or int(key) < int(found)):
            break
    hint = nearest(key, keys) if isinstance(value, Mapping) else "; items are counted from 0"
    raise GraphError(f"'{reference}' has no item [{key}]{hint}.")


def _definitions(file: Path) -> list[str]:
    """Returns the names of the classes and functions at the top level of a file, without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except ValueError:  # The file is not text.
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def _import_file(file: Path) -> ModuleType:
    """Runs a file as a module; its folder is put on the import path, as when Python runs it."""
    if not file.is_file():
        others = [other.name for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise GraphError(f"There is no file '{file}'{nearest(file.name, others)}. A model is {MODEL_FORMS}.")
    _put_on_path(file.resolve().parent)
    # The name differs from the file's, so that a user's `torch.py` does not replace a module that is already loaded.
    spec = importlib.util.spec_from_file_location(f"_ghnq_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise GraphError(f"'{file}' cannot be imported as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as stop:
        raise _exit_error(str(file), stop) from stop
    return module


def _import_module(name: str) -> ModuleType:
    """Imports a module; the working directory is searched first, as by `python -m`."""
    if not all(part.isidentifier() for part in name.split(".")):
        hint = f" (did you mean '{name}.py'?)" if Path(f"{name}.py").is_file() else ""
        raise GraphError(
            f"'{name}' is neither a file that ends in .py nor the name of a module{hint}. A model is {MODEL_FORMS}."
        )
    _put_on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A missing module that this one imports is an error in the user's code, not in the reference.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise GraphError(
            f"There is no Python module '{error.name}' (in '{name}'). A model is {MODEL_FORMS}."
        ) from error
    except SystemExit as stop:
        raise _exit_error(name, stop) from stop


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _exit_error(source: str, stop: SystemExit) -> GraphError:
    """Returns the error for a script without a main guard, which would end the command as if it had succeeded."""
    return GraphError(
        f"'{source}' ends the program (exit code {stop.code}) when it is imported. "
        "Put what it runs behind: if __name__ == '__main__'."
    )


def _attribute(module: ModuleType, name: str, source: str) -> object:
    """Returns `module.name`; the name may contain dots."""
    value: object = module
    for part in name.split("."):
        if not hasattr(value, part):
            names = [each for each in vars(value) if not each.startswith("_")] if hasattr(value, "__dict__") else []
            raise GraphError(f"'{source}' has no '{name}'{nearest(part, names)}. A model is {MODEL_FORMS}.")
        value = getattr(value, part)
    return value


def instantiate(value: object, reference: str) -> nn.Module:
    """Returns `value` if it is a module, else what it returns when called without arguments; without wrappers.

    Raises:
        GraphError: It is neither a module nor something that returns one.
    """
    if isinstance(value, nn.Module):
        return unwrapped(value)
    if not callable(value):
        raise GraphError(
            f"'{reference}' is of type {type(value).__name__}; it must be an nn.Module, or a class or function "
            "that returns one when called without arguments."
        )
    result = _called(value, reference)
    if not isinstance(result, nn.Module):
        raise GraphError(f"'{reference}' returned {type(result).__name__} instead of an nn.Module.")
    return unwrapped(result)


def _called(value: Callable[..., object], reference: str) -> object:
    """Returns what a class or function returns when called without arguments."""
    if isinstance(value, type) and hasattr(value, "config_class") and callable(value.config_class):
        # A model class of `transformers` is built from its default configuration.
        build: Callable[[], object] = partial(value, value.config_class())
    else:
        _check_no_arguments(value, reference)
        build = value
    try:
        return build()
    except SystemExit as stop:
        raise GraphError(f"'{reference}' ends the program (exit code {stop.code}) when it is called.") from stop


def _check_no_arguments(function: Callable[..., object], reference: str) -> None:
    """Checks that a function can be called without arguments; a TypeError of the user's own code is not caught."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # Some functions written in C have no signature.
    try:
        signature.bind()
    except TypeError as error:
        raise GraphError(
            f"'{reference}' cannot be called without arguments ({error}). "
            "Write a function without arguments that returns the model, and name that."
        ) from error
