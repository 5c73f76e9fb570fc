"""Whether the records of a torch.export archive hold only what `ghnq export` writes.

`torch.export.load` may run code from a file: an archive may hold pickles, expressions that are evaluated, compiled
libraries, and names of any function. So every record, function and expression has to be one that `ghnq export` writes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TypedDict

import torch

from ghnq.deploy.graph.supported_ops import KINDS, aten
from ghnq.deploy.pt2e.operators import quantized_decomposed

_MODEL = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"

_RECORD_NAME = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)|constants/model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/ghnq\.json"
)
_EXPRESSION = re.compile(r"(?:Mul|Add|Integer|Symbol|positive|integer|True|'s\d+'|s\d+|-?\d+|[(),=+* ])+")
"""Sizes of tensors: products and sums of integers and of the batch size."""

_LEAF: dict[str, object] = {"type": None, "context": None, "children_spec": []}
_IN_SPEC = [1, {"type": "builtins.tuple", "context": "null", "children_spec": [
    {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]},
    {"type": "builtins.dict", "context": "[]", "children_spec": []}]}]  # fmt: skip
_OUT_SPEC = [1, _LEAF]
_FORBIDDEN_KEYS = {"as_custom_obj", "as_graph", "as_operator"}


class _Node(TypedDict):
    target: str
    metadata: dict[str, str]


class _Graph(TypedDict):
    nodes: list[_Node]


class _Signature(TypedDict):
    input_specs: list[dict[str, object]]
    output_specs: list[dict[str, object]]


class _CallSignature(TypedDict):
    in_spec: str
    out_spec: str


class _ModuleCall(TypedDict):
    signature: _CallSignature | None


class _GraphModule(TypedDict):
    graph: _Graph
    signature: _Signature
    module_call_graph: list[_ModuleCall]


class _Model(TypedDict):
    """The parts of a model description that are checked by name."""

    guards_code: list[str]
    verifiers: list[str]
    graph_module: _GraphModule


def validated(records: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the records of an archive, without the metadata of nodes.

    Raises:
        ValueError: A record holds what `ghnq export` does not write. Damaged records raise other errors as well.
    """
    for name in records:
        if not _RECORD_NAME.fullmatch(name):
            raise ValueError(f"a record '{name}'")
    if json.loads(records[_CONSTANTS])["config"]:
        raise ValueError("constants that are not buffers")
    for name, payload in json.loads(records[_WEIGHTS])["config"].items():
        if payload["use_pickle"] is not False or not re.fullmatch(r"weight_\d+", payload["path_name"]):
            raise ValueError(f"a pickled tensor '{name}'")
    torch.load(io.BytesIO(records[_SAMPLE_INPUTS]), weights_only=True)
    model: _Model = json.loads(records[_MODEL])
    _check_model(model)
    for node in model["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return records | {_MODEL: json.dumps(model).encode()}


def _check_model(model: _Model) -> None:
    if model["guards_code"] or model["verifiers"] != ["TRAINING"]:
        raise ValueError("guards or verifiers")
    functions = _allowed_functions()
    for node in model["graph_module"]["graph"]["nodes"]:
        if node["target"] not in functions:
            raise ValueError(f"a function {node['target']}")
    signature = model["graph_module"]["signature"]
    specs = [*signature["input_specs"], *signature["output_specs"]]
    if any(list(spec) not in (["buffer"], ["user_input"], ["user_output"]) for spec in specs):
        raise ValueError("inputs or outputs beyond images, tensors and logits")
    whole, *inner = (call["signature"] for call in model["graph_module"]["module_call_graph"])
    # The modules that only group the names of tensors have no inputs.
    for spec in (whole, *(each for each in inner if each is not None)):
        if spec is None or json.loads(spec["in_spec"]) != _IN_SPEC or json.loads(spec["out_spec"]) != _OUT_SPEC:
            raise ValueError("other inputs or outputs than images and logits")
    for key, value in _nested_items(model):
        is_expression = key != "expr_str" or (isinstance(value, str) and _EXPRESSION.fullmatch(value))
        if key in _FORBIDDEN_KEYS or not is_expression:
            raise ValueError(f"{key} {value!r}")


def _allowed_functions() -> set[str]:
    """Returns the names of all functions that an exported program may call."""
    operators = quantized_decomposed()
    added = (operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default,
             operators.dequantize_per_channel.default, aten.clone.default)  # fmt: skip
    return {f"torch.ops.{function}" for function in (*KINDS, *added)}


def _nested_items(value: object) -> Iterator[tuple[str, object]]:
    """Yields every key of nested JSON with its value."""
    if isinstance(value, dict):
        yield from value.items()
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nested_items(each)
