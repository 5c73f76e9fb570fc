"""ONNX Runtime: sessions, and what became of a graph after its optimisation."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional

_BORDERS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER = ("QLinear", "NhwcMaxPool", "MatMulInteger", "ConvInteger", "DynamicQuantize")
# They compute in the type that comes in.
_EITHER = (
    "Clip", "Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_LAYERS = ("Conv", "Gemm", "MatMul")
WEIGHTED = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits")
"""Convolutions and linear layers that run in float."""


def session(model: bytes, *, optimise: bool = True, threads: int = 1, save_to: Path | None = None) -> Any:
    """An ONNX Runtime session on the CPU with default options; `save_to` gets the optimised model.

    Its threads stop as soon as a run ends, so that another session that runs next has the cores.

    Raises ExportError where the runtime refuses the model.
    """
    ort = import_optional("onnxruntime")
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # it warns that a saved optimised model suits this machine only: it is not kept
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The runtime's exceptions have no common base but Exception.
        raise ExportError(f"ONNX Runtime {ort.__version__} refuses the model: {error}") from error


def run(running: Any, images: Tensor) -> Tensor:
    """Logits [B, K] of normalised images [B, C, H, W]."""
    return torch.from_numpy(running.run(["logits"], {"images": images.numpy()})[0])


@dataclass(frozen=True)
class Kernels:
    """Nodes of the optimised graph by op: computed in integers, computed in float, and the borders between the two.

    float_layers: names of the convolutions and linear layers that stayed in float.
    """

    integer: dict[str, int]
    floating: dict[str, int]
    borders: dict[str, int]
    float_layers: tuple[str, ...]


def kernels(model: bytes) -> Kernels:
    """What runs, read from the graph that ONNX Runtime saves after its optimisation, not guessed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        session(model, save_to=file)
        optimised = import_optional("onnx").load(file)
    return sort_kernels(optimised, import_optional("onnx").load_from_string(model))


def sort_kernels(optimised: Any, model: Any) -> Kernels:
    """Sorts the nodes of an optimised model by the type they compute in; layers have their names from our `model`."""
    types = {tensor.name: tensor.data_type != 1 for tensor in optimised.graph.initializer}
    counts: dict[str, Counter[str]] = {"integer": Counter(), "float": Counter(), "border": Counter()}
    integer: set[str] = set()
    for node in optimised.graph.node:
        place, gives_integers = _place(node, types)
        counts[place][node.op_type] += 1
        for output in node.output:
            types[output] = gives_integers
        if place == "integer":
            integer.update((node.name, node.output[0]))
    # The runtime gives a float layer the name of what it was fused with. An integer one leaves its own to the kernel,
    # or to the kernel's result, from version to version.
    constants = {tensor.name for tensor in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node
        if node.op_type in _LAYERS
        and node.name not in integer
        and (node.op_type != "MatMul" or constants.intersection(node.input))  # of two results, it is no layer
    ]
    names = dict.fromkeys(node.name.rpartition(f"_{node.op_type}_")[0] or node.name for node in layers)
    floating = tuple(names) if counts["float"].keys() & set(WEIGHTED) else ()
    return Kernels(dict(counts["integer"]), dict(counts["float"]), dict(counts["border"]), floating)


def _place(node: Any, integers: dict[str, bool]) -> tuple[str, bool]:
    """Where a node computes, and whether its results are integers."""
    if node.op_type in _BORDERS:
        return "border", node.op_type == "QuantizeLinear"
    if node.op_type == "QGemm":  # without a scale for its output (input 7), it gives float from integers
        return "integer", len(node.input) > 7 and bool(node.input[7])
    if node.op_type.startswith(_INTEGER):
        return "integer", node.op_type not in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
    if node.op_type in _EITHER and integers.get(node.input[0], False):
        return "integer", True
    return "float", False
