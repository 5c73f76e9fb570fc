"""Schemes as YAML files, for those that are too long for a word: bits of every layer, steps, estimators.

scheme: w8a8                # the word for all layers that are not named below
protocol: deploy            # optional, as are all keys from here on
overrides:                  # module name or pattern: word; later ones win
  stem.conv: w4a8
steps: [search_weights]     # post-training steps
weight_range: mse           # any other field of QuantScheme that differs from the protocol
about: {...}                # notes, not looked at
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ghnq.errors import SchemeError, nearest
from ghnq.quant.scheme import PROTOCOLS, LayerBits, QuantScheme, is_scheme_file

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "weight_granularity": str,
    "weight_symmetric": bool,
    "weight_range": str,
    "activation_range": str,
    "fold": bool,
    "reestimate": bool,
    "variance_floor": (int, float),
}
_KEYS: dict[str, type | tuple[type, ...]] = {
    "scheme": str,
    "protocol": str,
    "overrides": dict,
    "steps": list,
    "about": dict,
    **_FIELDS,
}
_SAID = {str: "a word", bool: "true or false", dict: "a mapping", list: "a list", (int, float): "a number"}


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that comes twice: the first value would vanish without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node.value, str) or key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {str(key_node.value)[:40]!r} twice, or no word", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_scheme(text: str, *, protocol: str | None = None, steps: Sequence[str] | None = None) -> QuantScheme:
    """Reads a word under a protocol (None: deploy) and with steps, or a scheme file, which says both itself.

    Raises:
        SchemeError: as `QuantScheme.parse` and `load_scheme` do.
    """
    if is_scheme_file(text):
        return load_scheme(text, protocol=protocol, steps=steps)
    protocol = "deploy" if protocol is None else protocol
    return QuantScheme.parse(text, protocol=protocol, steps=tuple(steps or ()))


def load_scheme(path: str | Path, *, protocol: str | None = None, steps: Sequence[str] | None = None) -> QuantScheme:
    """Reads a scheme file.

    protocol, steps: what somebody asks for beside the file; None asks for nothing.

    Raises:
        SchemeError: no such file, not YAML, an unknown key (the nearest is named), a value that is not allowed, or the
            file says another protocol or other steps than are asked for.
    """
    file = Path(path)
    if file.is_dir():
        raise SchemeError(f"'{file}' is a folder, no scheme file")
    if not file.is_file():
        beside = [other.name for other in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise SchemeError(f"there is no scheme file '{file}'{nearest(file.name, beside)}")
    try:
        raw = _mapping(file.read_text(encoding="utf-8"))
        scheme = _from_mapping(raw)
        _check_asked("protocol", (raw.get("protocol", "deploy"),), None if protocol is None else (protocol,))
        _check_asked("steps", scheme.steps, None if steps is None else _in_order(steps))
        return scheme
    except (UnicodeDecodeError, OSError) as error:
        raise SchemeError(f"scheme file '{file}' cannot be read: {_one_line(error)}") from error
    except SchemeError as error:
        raise SchemeError(f"scheme file '{file}': {error}") from error


def scheme_from_text(text: str) -> QuantScheme:
    """Reads the text of a scheme file; raises SchemeError as `load_scheme` does."""
    return _from_mapping(_mapping(text))


def dump_scheme(scheme: QuantScheme, about: Mapping[str, Any] | None = None) -> str:
    """The text of a scheme file that `load_scheme` reads back as an equal scheme; `about`: notes kept in it."""
    protocol = scheme.protocol if scheme.protocol in PROTOCOLS else "deploy"
    plain = QuantScheme.parse("float32", protocol=protocol)
    raw: dict[str, Any] = {"scheme": str(scheme.bits), "protocol": protocol}
    raw |= {name: getattr(scheme, name) for name in _FIELDS if getattr(scheme, name) != getattr(plain, name)}
    if scheme.steps:
        raw["steps"] = list(scheme.steps)
    if scheme.overrides:
        # Of a pattern that comes twice only the last one counts, at its own place.
        raw["overrides"] = {pattern: str(bits) for pattern, bits in _last(scheme.overrides)}
    if about:
        raw["about"] = dict(about)
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)


def _last(overrides: tuple[tuple[str, LayerBits], ...]) -> list[tuple[str, LayerBits]]:
    return [pair for number, pair in enumerate(overrides) if pair[0] not in [p for p, _ in overrides[number + 1 :]]]


def _in_order(steps: Sequence[str]) -> tuple[str, ...]:
    return QuantScheme.parse("float32", steps=tuple(steps)).steps


def _check_asked(what: str, said: tuple[str, ...], asked: tuple[str, ...] | None) -> None:
    if asked is not None and asked != said:
        ours, theirs = (", ".join(words) or "none" for words in (said, asked))
        raise SchemeError(f"it says {what} {ours}, asked for is {theirs}; leave out --{what}, or change the file")


def _mapping(text: str) -> dict[str, Any]:
    try:
        raw = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SchemeError(f"cannot be read as YAML: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise SchemeError(f"expected keys and values, such as 'scheme: w4a8', got {type(raw).__name__}")
    return raw


def _from_mapping(raw: dict[str, Any]) -> QuantScheme:
    for key, value in raw.items():
        if key not in _KEYS:
            raise SchemeError(f"unknown key {key!r}{nearest(str(key), _KEYS)}: known are {', '.join(_KEYS)}")
        kind = _KEYS[key]
        # A bool is an int to Python, not to the reader.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SchemeError(f"key {key!r} must be {_SAID[kind]}, got {value!r}")
    if "scheme" not in raw:
        raise SchemeError("the key 'scheme' is missing: give the word for all layers, such as 'scheme: w8a8'")
    if raw["scheme"].lower().endswith((".yaml", ".yml")):
        raise SchemeError(f"key 'scheme' must be a word such as w8a8, got {raw['scheme']!r}")
    for key, values in (("steps", raw.get("steps", [])), ("overrides", raw.get("overrides", {}).items())):
        for value in values:
            if not all(isinstance(word, str) for word in (value if isinstance(value, tuple) else (value,))):
                raise SchemeError(f"key {key!r} holds {value!r}: expected words only")
    changes = {key: raw[key] for key in _FIELDS if key in raw}
    scheme = QuantScheme.parse(raw["scheme"], protocol=raw.get("protocol", "deploy"), **changes)
    return replace(scheme, steps=tuple(raw.get("steps", ()))).override(raw.get("overrides", {}))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
