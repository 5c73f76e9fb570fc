"""ONNX Runtime: sessions, and the kernels that a model runs in.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WEIGHTED = (
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "NhwcFusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "MatMulNBits",
)
"""Operators of convolutions and linear layers that run in float, after the runtime's optimisation."""

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The same in files: `MatMul` is a linear layer where one of its inputs is a constant."""

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_PREFIXES = ("QLinear", "NhwcMaxPool", "MatMulInteger", "ConvInteger", "DynamicQuantize")
# They compute in the type of their input.
_ANY_TYPE = (
    "Clip", "Concat", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_FLOAT_TYPE = 1  # TensorProto.FLOAT

_Kind = Literal["integer", "float", "border"]


class Session(Protocol):
    """What is used of `onnxruntime.InferenceSession`."""

    def run(
        self, output_names: Sequence[str], input_feed: Mapping[str, NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Returns the named outputs."""

    def get_providers(self) -> list[str]:
        """Returns the names of the execution providers."""


def session(model: bytes, *, optimise: bool = True, threads: int = 1, save_to: Path | None = None) -> Session:
    """Creates an ONNX Runtime session on the CPU with default options.

    Its threads stop as soon as a run ends, so that another session that runs next has the cores.

    Args:
        save_to: Where the runtime writes the optimised model; None writes none.

    Raises:
        ExportError: The runtime refuses the model.
    """
    ort = import_optional("onnxruntime")
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # It warns that a saved optimised model suits this machine only; the model is not kept.
    options.log_severity_level = 3
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    try:
        created: Session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # The runtime's exceptions have no common base but Exception.
        raise ExportError(f"ONNX Runtime {ort.__version__} refuses the model: {error}") from error
    return created


def run(session: Session, images: Tensor) -> Tensor:
    """Returns the logits [B, K] of normalised images [B, C, H, W]."""
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def kernels(model: bytes) -> KernelCounts:
    """Counts the kernels of a model, read from the graph that ONNX Runtime saves after its optimisation."""
    onnx = import_optional("onnx")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        session(model, save_to=file)
        optimised = onnx.load(file)
    return count_kernels(optimised, onnx.load_from_string(model))


def count_kernels(optimised: ModelProto, model: ModelProto) -> KernelCounts:
    """Counts the nodes of an optimised model by the type they compute in.

    Args:
        model: The model before optimisation, in which layers have their names.
    """
    is_integer = {tensor.name: tensor.data_type != _FLOAT_TYPE for tensor in optimised.graph.initializer}
    counts: dict[_Kind, Counter[str]] = {"integer": Counter(), "float": Counter(), "border": Counter()}
    integer_nodes: set[str] = set()
    for node in optimised.graph.node:
        kind, returns_integers = _classify(node, is_integer)
        counts[kind][node.op_type] += 1
        is_integer |= dict.fromkeys(node.output, returns_integers)
        if kind == "integer":
            integer_nodes.update((node.name, node.output[0]))
    float_layers = _float_layers(model, integer_nodes) if counts["float"].keys() & set(WEIGHTED) else ()
    return KernelCounts(dict(counts["integer"]), dict(counts["float"]), dict(counts["border"]), float_layers)


def _float_layers(model: ModelProto, integer_nodes: set[str]) -> tuple[str, ...]:
    """Returns the names of layers that no integer node of the optimised model stands for.

    The runtime gives a float layer the name of what it was fused with. The name of an integer layer goes to the kernel
    or to the kernel's result, depending on the version.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node
        if node.op_type in _LAYERS
        and node.name not in integer_nodes
        and (node.op_type != "MatMul" or constants.intersection(node.input))  # else a product of two activations
    ]
    return tuple(dict.fromkeys(node.name.rpartition(f"_{node.op_type}_")[0] or node.name for node in layers))


def _classify(node: NodeProto, is_integer: Mapping[str, bool]) -> tuple[_Kind, bool]:
    """Returns the type that a node computes in, and whether its results are integers."""
    if node.op_type in _CONVERSIONS:
        return "border", node.op_type == "QuantizeLinear"
    if node.op_type == "QGemm":  # Without a scale of the output (input 7) it returns float.
        return "integer", len(node.input) > 7 and bool(node.input[7])
    if node.op_type.startswith(_INTEGER_PREFIXES):
        return "integer", node.op_type not in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
    if node.op_type in _ANY_TYPE and is_integer.get(node.input[0], False):
        return "integer", True
    return "float", False
