"""The keys of a scheme file and the types of their values; `QuantScheme.from_mapping` checks the values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from ghnq.errors import SchemeError, nearest
from ghnq.yaml_loader import load_yaml


class SchemeMapping(TypedDict):
    """The content of a scheme file. Keys without a description are fields of `QuantScheme`."""

    scheme: str
    """Bit-widths of all layers that `overrides` does not name."""
    protocol: NotRequired[str]
    overrides: NotRequired[dict[str, str]]
    """Module name or pattern -> bit-widths."""
    steps: NotRequired[list[str]]
    """Post-training steps."""
    weight_granularity: NotRequired[str]
    weight_symmetric: NotRequired[bool]
    weight_range: NotRequired[str]
    activation_range: NotRequired[str]
    fold: NotRequired[bool]
    reestimate: NotRequired[bool]
    variance_floor: NotRequired[float]
    about: NotRequired[dict[str, object]]
    """Notes, which are not read."""


_Types = type | tuple[type, ...]

_FIELD_TYPES: dict[str, _Types] = {
    "weight_granularity": str,
    "weight_symmetric": bool,
    "weight_range": str,
    "activation_range": str,
    "fold": bool,
    "reestimate": bool,
    "variance_floor": (int, float),
}
_KEY_TYPES: dict[str, _Types] = {
    "scheme": str,
    "protocol": str,
    "overrides": dict,
    "steps": list,
    "about": dict,
    **_FIELD_TYPES,
}
_DESCRIPTIONS: dict[_Types, str] = {
    str: "a string",
    bool: "true or false",
    dict: "a mapping of keys to values",
    list: "a list",
    (int, float): "a number",
}

PROTOCOL_FIELDS = tuple(_FIELD_TYPES)
"""Fields of `QuantScheme` that a protocol fills and that a file may change one by one."""


def is_scheme_file(text: str) -> bool:
    """Returns whether the text is the path of a scheme file rather than the notation of a scheme."""
    return text.lower().endswith((".yaml", ".yml"))


def read_mapping(file: Path) -> SchemeMapping:
    """Reads a scheme file.

    Raises:
        SchemeError: there is no such file, or its content is refused by `parse_mapping`.
    """
    if file.is_dir():
        raise SchemeError(f"'{file}' is a folder, not a scheme file")
    if not file.is_file():
        others = [other.name for other in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise SchemeError(f"there is no scheme file '{file}'{nearest(file.name, others)}")
    with naming_file(file):
        try:
            text = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise SchemeError(f"cannot be read: {_one_line(error)}") from error
        return parse_mapping(text)


@contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Puts the path of a scheme file in front of the messages of errors about its content."""
    try:
        yield
    except SchemeError as error:
        raise SchemeError(f"scheme file '{file}': {error}") from error


def parse_mapping(text: str) -> SchemeMapping:
    """Parses the text of a scheme file; the values are of the right types, but need not be a valid scheme.

    Raises:
        SchemeError: the text is not YAML, or has an unknown key or a value of a wrong type.
    """
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise SchemeError(f"cannot be read as YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise SchemeError(f"expected keys and values, such as 'scheme: w4a8', got {type(content).__name__}")
    for key, value in content.items():
        _check_type(str(key), value)
    if "scheme" not in content:
        raise SchemeError("the key 'scheme' is missing: give the bit-widths of all layers, such as 'scheme: w8a8'")
    if is_scheme_file(content["scheme"]):
        raise SchemeError(f"key 'scheme' must be bit-widths such as w8a8, got {content['scheme']!r}")
    for key, parts in (("steps", content.get("steps", [])), ("overrides", content.get("overrides", {}).items())):
        for part in parts:
            if not all(isinstance(text, str) for text in (part if isinstance(part, tuple) else (part,))):
                raise SchemeError(f"key {key!r} contains {part!r}: expected strings only")
    return cast(SchemeMapping, content)


def _check_type(key: str, value: object) -> None:
    if key not in _KEY_TYPES:
        raise SchemeError(f"unknown key {key!r}{nearest(key, _KEY_TYPES)}: known are {', '.join(_KEY_TYPES)}")
    expected = _KEY_TYPES[key]
    # A bool is an instance of int.
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise SchemeError(f"key {key!r} must be {_DESCRIPTIONS[expected]}, got {value!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
