"""Schemes as YAML files: bit-widths of every layer, post-training steps, range estimators.

scheme: w8a8                # bit-widths of all layers that are not named below
protocol: deploy            # optional, as are all keys from here on
overrides:                  # module name or pattern: bit-widths; later ones win
  stem.conv: w4a8
steps: [search_weights]     # post-training steps
weight_range: mse           # any other field of QuantScheme that differs from the protocol
about: {...}                # notes, which are not read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ghnq.errors import SchemeError
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.scheme import PROTOCOLS, QuantScheme
from ghnq.quant.scheme_mapping import PROTOCOL_FIELDS, is_scheme_file, naming_file, parse_mapping, read_mapping


def read_scheme(text: str, *, protocol: str | None = None, steps: Sequence[str] | None = None) -> QuantScheme:
    """Reads a scheme from its notation or from a file.

    Args:
        text: a notation such as `w4a8`, or the path of a scheme file.
        protocol: the protocol of a notation, None for `deploy`. A file states its protocol itself; another one is an
            error.
        steps: the post-training steps of a notation. A file states its steps itself; others are an error.

    Raises:
        SchemeError: as `QuantScheme.parse` and `load_scheme` do.
    """
    if is_scheme_file(text):
        return load_scheme(text, protocol=protocol, steps=steps)
    protocol = "deploy" if protocol is None else protocol
    return QuantScheme.parse(text, protocol=protocol, steps=tuple(steps or ()))


def load_scheme(path: str | Path, *, protocol: str | None = None, steps: Sequence[str] | None = None) -> QuantScheme:
    """Reads a scheme file.

    Args:
        path: the file.
        protocol: the protocol that the file must have; None for any.
        steps: the post-training steps that the file must have; None for any.

    Raises:
        SchemeError: there is no such file, it is not YAML, a key is unknown, a value is not allowed, or the file has
            another protocol or other steps than requested.
    """
    file = Path(path)
    mapping = read_mapping(file)
    with naming_file(file):
        scheme = QuantScheme.from_mapping(mapping)
        if protocol is not None:
            _check_requested("protocol", (mapping.get("protocol", "deploy"),), (protocol,))
        if steps is not None:
            requested = QuantScheme.parse("float32", steps=tuple(steps)).steps  # sorted as those of the scheme are
            _check_requested("steps", scheme.steps, requested)
        return scheme


def scheme_from_text(text: str) -> QuantScheme:
    """Reads the text of a scheme file; raises SchemeError as `load_scheme` does."""
    return QuantScheme.from_mapping(parse_mapping(text))


def dump_scheme(scheme: QuantScheme, about: Mapping[str, object] | None = None) -> str:
    """Returns the text of a scheme file that `load_scheme` reads as an equal scheme; `about`: notes to add to it."""
    protocol = scheme.protocol if scheme.protocol in PROTOCOLS else "deploy"
    plain = QuantScheme.parse("float32", protocol=protocol)
    content: dict[str, object] = {"scheme": str(scheme.bits), "protocol": protocol}
    content |= {
        name: getattr(scheme, name) for name in PROTOCOL_FIELDS if getattr(scheme, name) != getattr(plain, name)
    }
    if scheme.steps:
        content["steps"] = list(scheme.steps)
    if scheme.overrides:
        content["overrides"] = {pattern: str(bits) for pattern, bits in _without_repetitions(scheme.overrides)}
    if about:
        content["about"] = dict(about)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _without_repetitions(overrides: tuple[tuple[str, LayerBits], ...]) -> list[tuple[str, LayerBits]]:
    """Of a pattern that occurs more than once, only the last occurrence counts, in its place."""
    patterns = [pattern for pattern, _ in overrides]
    return [pair for number, pair in enumerate(overrides) if pair[0] not in patterns[number + 1 :]]


def _check_requested(key: str, stated: tuple[str, ...], requested: tuple[str, ...]) -> None:
    if stated != requested:
        ours, theirs = (", ".join(names) or "none" for names in (stated, requested))
        raise SchemeError(f"its {key}: {ours}; requested: {theirs}; leave out --{key}, or change the file")
