"""YAML of recipes and scheme files: numbers, duplicate keys, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from ghnq.yaml_loader import load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E4", -2e4),
        ("1.5e+2", 150.0),
        ("7", 7),
        ("e3", "e3"),
        ("1e", "1e"),
        ("{a: 1e-5, b: [1, x]}", {"a": 1e-5, "b": [1, "x"]}),
        ("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}}),
        ("", None),
    ],
)
def test_values(text: str, value: object) -> None:
    loaded = load_yaml(text)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{a: 1, a: 2}", "duplicate key 'a'"),
        ("x: {b: 1, c: 2, b: 1}", "duplicate key 'b'"),
        ("{[a]: 1}", "a key must be a word"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("[1", "flow sequence"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(yaml.YAMLError, match=part):
        load_yaml(text)
    assert yaml.safe_load("{a: 1, a: 2}") == {"a": 2}  # PyYAML itself is left as it was
