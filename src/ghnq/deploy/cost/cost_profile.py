"""What a file costs: size, operations, memory and latency, compared with the same network in float32."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import fx

from ghnq.deploy.cost.bit_operations import FLOAT_BITS, layer_work, packed_weight_bytes
from ghnq.deploy.cost.latency import Latency, measure_latencies, random_images
from ghnq.deploy.cost.peak_memory import FLOAT_BYTES, peak_memory
from ghnq.deploy.graph.dequantized import in_floats
from ghnq.deploy.graph.tensor_shapes import with_shapes
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import facts_of, load_model, read_simulation
from ghnq.deploy.onnx.storage import Storage
from ghnq.deploy.onnx.writer import write_model
from ghnq.errors import GhnqError
from ghnq.optional_imports import import_optional
from ghnq.processor import Processor, this_processor
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST_BATCH = 4096
_ZLIB_LEVEL = 9


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of the file, or of its float32 counterpart.

    Attributes:
        bytes: Of the ONNX file.
        weight_bytes: Of the weights of convolutions and linear layers, as they are stored.
        packed_weight_bytes: Of the same weights, if each takes no more than its bits, as in files with INT4 weights.
        compressed_bytes, compressed_weight_bytes: The same, compressed by zlib at level 9.
        bit_operations: For one image, the sum over convolutions and linear layers of multiply-adds x bits of the weight
            x bits of the input (`multiply_adds.py`).
        peak_activation_bytes: For one image (`peak_memory.py`).
        latency: On ONNX Runtime.
    """

    bytes: int
    weight_bytes: int
    packed_weight_bytes: int
    compressed_bytes: int
    compressed_weight_bytes: int
    bit_operations: int
    peak_activation_bytes: int
    latency: Latency


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The cost of a file, and of its float32 counterpart, which has the same weights, dequantized.

    Attributes:
        weights: The number of weights of convolutions and linear layers.
        multiply_adds: Of these layers, for one image.
        speedup: Median latency of the counterpart divided by that of the file.
        float_layers: Layers of the file that ONNX Runtime runs in float.
        float_operators: How many operators of the file ONNX Runtime runs in float, by name.
        batch, threads, repeats, provider, onnxruntime, processor: How and where the latencies were measured.
    """

    file: str
    facts: Facts
    weights: int
    multiply_adds: int
    quantized: Cost
    float32: Cost
    speedup: float
    float_layers: tuple[str, ...]
    float_operators: dict[str, int]
    batch: int
    threads: int
    repeats: int
    provider: str
    onnxruntime: str
    processor: Processor

    def document(self) -> dict[str, Any]:
        """Returns the costs as plain values for JSON."""
        return asdict(self)


def profile(
    path: Path,
    *,
    batch: int = 1,
    threads: int = 1,
    repeats: int | None = None,
    progress: ProgressCallback | None = None,
) -> Profile:
    """Measures what a file costs, and alternates it with its float32 counterpart to measure latencies.

    The counterpart is made in memory from the file itself (`deploy/graph/dequantized.py`); both run with the same
    session options.

    Args:
        batch: Images in one run, 1 to 4,096. Only the latency depends on it.
        threads: Of ONNX Runtime, at most as many as there are processors.
        repeats: Timed runs of each; None takes about two seconds, 20 to 1,000 runs.
        progress: Called with the number of timed runs.

    Raises:
        ExportError: The file was not written by ghnq, or the runtime refuses it.
        GhnqError: `batch`, `threads` or `repeats` is out of range.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    _check("batch", batch, LARGEST_BATCH)
    _check("threads", threads, os.cpu_count() or 1)
    _check("repeats", 1 if repeats is None else repeats, None)
    ort = import_optional("onnxruntime")
    path = Path(path)
    model = load_model(path)
    facts = facts_of(model, path)
    integers = with_shapes(read_simulation(model, str(path)), facts.input_shape, str(path))
    floats = in_floats(integers)
    counterpart = float_model(floats)
    data, float_data = model.SerializeToString(), counterpart.SerializeToString()
    kernels = runtime.kernels(data)
    sessions = runtime.session(float_data, threads=threads), runtime.session(data, threads=threads)
    images = random_images(batch, facts.input_shape)
    float_latency, latency, repeats = measure_latencies(*sessions, images, repeats, progress)
    scheme = QuantScheme.parse(facts.scheme)
    work = list(layer_work(integers, scheme))
    multiply_adds = sum(layer.multiply_adds for layer in work)
    bit_operations = sum(layer.bit_operations for layer in work)
    return Profile(
        file=str(path),
        facts=facts,
        weights=len(_stored_weights(counterpart)) // FLOAT_BYTES,
        multiply_adds=multiply_adds,
        quantized=_cost(path.read_bytes(), model, integers, scheme, bit_operations, latency),
        float32=_cost(float_data, counterpart, floats, scheme, multiply_adds * FLOAT_BITS**2, float_latency),
        speedup=float_latency.median_ms / latency.median_ms,
        float_layers=kernels.float_layers,
        float_operators=kernels.floating,
        batch=batch,
        threads=threads,
        repeats=repeats,
        provider=sessions[1].get_providers()[0],
        onnxruntime=ort.__version__,
        processor=this_processor(),
    )


def _check(name: str, value: int, most: int | None) -> None:
    if value < 1 or (most is not None and value > most):
        allowed = "1 or more" if most is None else f"1 to {most:,}"
        raise GhnqError(f"{name} is {value:,}; choose {allowed}")


def float_model(floats: fx.GraphModule) -> ModelProto:
    """Returns the ONNX model of a float32 counterpart, with a dynamic batch size."""
    model: ModelProto = write_model(floats, storage=Storage(), metadata={})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _cost(
    data: bytes, model: ModelProto, graph: fx.GraphModule, scheme: QuantScheme, bit_operations: int, latency: Latency
) -> Cost:
    weights = _stored_weights(model)
    return Cost(
        bytes=len(data),
        weight_bytes=len(weights),
        packed_weight_bytes=packed_weight_bytes(graph, scheme),
        compressed_bytes=len(zlib.compress(data, _ZLIB_LEVEL)),
        compressed_weight_bytes=len(zlib.compress(weights, _ZLIB_LEVEL)),
        bit_operations=bit_operations,
        peak_activation_bytes=peak_memory(graph),
        latency=latency,
    )


def _stored_weights(model: ModelProto) -> bytes:
    """Returns the bytes of all weights of convolutions and linear layers, as they are stored in the file."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")]
    names = dict.fromkeys(dequantized.get(node.input[1], node.input[1]) for node in layers)
    return b"".join(stored[name].raw_data for name in names)
