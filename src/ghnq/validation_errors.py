"""Messages about invalid keys of pydantic models: the key, the value, and the values that are allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from pydantic import BaseModel, ValidationError

Location = Sequence[str | int]
JsonSchema = Mapping[str, Any]


class ErrorFields(TypedDict):
    """An item of `pydantic.ValidationError.errors()`."""

    type: str
    loc: tuple[int | str, ...]
    msg: str
    input: object
    ctx: NotRequired[dict[str, Any]]
    url: NotRequired[str]


_EXPECTED = {
    "bool": "true or false",
    "dict": "a mapping of keys to values",
    "dataclass": "a mapping of keys to values",
    "finite_number": "a finite number",
    "float": "a number",
    "int": "an integer",
    "list": "a list",
    "model": "a mapping of keys to values",
    "model_attributes": "a mapping of keys to values",
    "none_required": "absent",
    "string": "a string",
    "tuple": "a list",
}
"""First part of the type of an error (`int_type`, `int_parsing`, `int_from_float`) -> what is allowed."""

_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "greater than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}
"""Keyword of JSON Schema -> what it allows."""

_OUT_OF_RANGE = {
    "greater_than": "exclusiveMinimum",
    "greater_than_equal": "minimum",
    "less_than": "exclusiveMaximum",
    "less_than_equal": "maximum",
}
_CONTEXT_KEYS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}


def dotted(location: Location) -> str:
    """Returns the key of an error, such as `optimizer.betas.0`."""
    return ".".join(str(part) for part in location)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Returns one line with the key, the value and the allowed values of each error."""
    return "; ".join(explain_one(problem, model) for problem in error.errors(include_url=False))


def explain_one(problem: ErrorFields, model: type[BaseModel]) -> str:
    """Returns the message of one error: the key, its value, and the allowed values.

    The message of a ValueError raised by a validator of the model is returned unchanged.
    """
    key, kind = dotted(problem["loc"]), problem["type"]
    if kind == "value_error":
        reason = str(problem["ctx"]["error"])
        return f"key '{key}': {reason}" if key else reason
    if kind == "missing":
        return f"key '{key}' is missing"
    if kind == "extra_forbidden":
        return f"unknown key '{key}'"
    if kind == "json_invalid":
        return f"not valid JSON ({problem['ctx']['error']})"
    value = repr(problem["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{f'key {key!r}' if key else 'the value'} is {shown}; it must be {_allowed(problem, model)}"


def _allowed(problem: ErrorFields, model: type[BaseModel]) -> str:
    """Returns what a value must be, as the end of a sentence."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _OUT_OF_RANGE:
        limits = _limits(model, problem["loc"]) or {_OUT_OF_RANGE[kind]: context[_CONTEXT_KEYS[kind]]}
        return " and ".join(_LIMITS[name].format(_number(limit)) for name, limit in limits.items())
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = f", one of {context['expected_tags']}" if "expected_tags" in context else ""
        return f"a mapping with the key {context['discriminator']}{tags}"
    if kind == "too_short":
        return f"at least {_values(context['min_length'])}"
    if kind == "too_long":
        return f"at most {_values(context['max_length'])}"
    for part, expected in _EXPECTED.items():
        if kind == part or kind.startswith(f"{part}_"):
            return expected
    return f"of another form ({problem['msg']})"


def _values(number: int) -> str:
    return f"{number} value{'s' if number != 1 else ''} long"


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e9 else str(value)


def _limits(model: type[BaseModel], location: Location) -> dict[str, float]:
    """Returns the limits of a number, as keywords of JSON Schema; empty if the location is not in the schema."""
    schema: JsonSchema = model.model_json_schema()
    nodes = [schema]
    for part in location:
        nodes = [child for node in nodes for child in _children(_resolved(node, schema), part, schema)]
    found = [node for node in (_resolved(node, schema) for node in nodes) for node in _variants(node, schema)]
    return next(({name: node[name] for name in _LIMITS if name in node} for node in found if node.keys() & _LIMITS), {})


def _resolved(node: JsonSchema, schema: JsonSchema) -> JsonSchema:
    """Returns a node of the schema, or the definition it refers to."""
    reference = node.get("$ref")
    found: JsonSchema = schema["$defs"][reference.rpartition("/")[2]] if reference else node
    return found


def _variants(node: JsonSchema, schema: JsonSchema) -> list[JsonSchema]:
    """Returns a node and, if it is a union, its members."""
    members = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    return [node, *(_resolved(member, schema) for member in members)]


def _children(node: JsonSchema, part: str | int, schema: JsonSchema) -> list[JsonSchema]:
    """Returns the schemas of a node's values under a key or an index; the tag of a union leads to its member."""
    found: list[JsonSchema] = []
    for variant in _variants(node, schema):
        if isinstance(part, int):
            items = variant.get("prefixItems", ())
            if part < len(items):
                found.append(items[part])
            elif isinstance(variant.get("items"), dict):
                found.append(variant["items"])
        elif part in variant.get("properties", {}):
            found.append(variant["properties"][part])
        elif isinstance(variant.get("additionalProperties"), dict):
            found.append(variant["additionalProperties"])
        elif part in variant.get("discriminator", {}).get("mapping", {}):
            found.append(_resolved({"$ref": variant["discriminator"]["mapping"][part]}, schema))
    return found
