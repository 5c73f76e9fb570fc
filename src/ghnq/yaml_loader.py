"""The YAML that recipes and scheme files are written in: no Python objects, `1e-3` is a number, no key twice."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the two changes that `load_yaml` documents."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Builds a dictionary, unless a key is not a scalar or comes twice, of which PyYAML keeps the last."""
        keys = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word or a number", node.start_mark)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key[:40]!r}", key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-3 for a string and only 1.0e-3 for a number.
_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_yaml(text: str) -> object:
    """Returns the value of a YAML document.

    Differs from `yaml.safe_load` in two ways: numbers such as `1e-3` are floats, and a mapping with the same key twice
    is an error.

    Raises:
        yaml.YAMLError: the text is not YAML, nested too deeply, holds Python objects, or a key twice.
    """
    try:
        value: object = yaml.load(text, _Loader)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    return value
