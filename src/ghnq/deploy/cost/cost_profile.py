"""What a file costs: size, arithmetic, memory, and time on this machine beside the same network in float32."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import fx

from ghnq.deploy.cost.latency import Latency, some_images, take_turns
from ghnq.deploy.cost.multiply_adds import FLOAT_BITS, layer_work
from ghnq.deploy.cost.peak_memory import FLOAT_BYTES, peak_memory
from ghnq.deploy.graph.dequantized import in_floats
from ghnq.deploy.graph.tensor_shapes import with_shapes
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import facts_of, load_model, read_simulation
from ghnq.deploy.onnx.writer import Storage, write_model
from ghnq.errors import GhnqError
from ghnq.optional_imports import import_optional
from ghnq.processor import Processor, this_processor
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme

LARGEST_BATCH = 4096
_ZLIB_LEVEL = 9


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one of the two, the file or its float32 counterpart, costs.

    bytes: the ONNX file. weight_bytes: weights of convolutions and linear layers as stored. compressed_*: the same
        through zlib, level 9.
    bit_operations: for one image, sum over convolutions and linear layers of multiply-adds x bits of the weight x bits
        of the input; float32 counts as 32 bits (`multiply_adds.py`).
    peak_activation_bytes: for one image (`peak_memory.py`).
    """

    bytes: int
    weight_bytes: int
    compressed_bytes: int
    compressed_weight_bytes: int
    bit_operations: int
    peak_activation_bytes: int
    latency: Latency


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The cost of a file beside that of its float32 counterpart, which has the same weights, dequantized.

    weights: how many convolutions and linear layers have. multiply_adds: of these layers, for one image.
    batch, threads, repeats, provider, onnxruntime, processor: how and where the latencies were measured, in turns.
    float_layers: layers of the file that ONNX Runtime runs in float here.
    """

    file: str
    facts: Facts
    weights: int
    multiply_adds: int
    quantized: Cost
    float32: Cost
    speedup: float
    float_layers: tuple[str, ...]
    batch: int
    threads: int
    repeats: int
    provider: str
    onnxruntime: str
    processor: Processor

    def document(self) -> dict[str, Any]:
        """The costs as plain values for JSON."""
        return asdict(self)


def profile(
    path: Path,
    *,
    batch: int = 1,
    threads: int = 1,
    repeats: int | None = None,
    progress: ProgressCallback | None = None,
) -> Profile:
    """Counts what a file costs, and times it on ONNX Runtime in turns with its float32 counterpart.

    The counterpart is made in memory from the file itself (`deploy/graph/dequantized.py`); both run with the same
    session options.

    Args:
        batch: images in one run, 1 to 4,096; only the latency hangs on it.
        threads: of ONNX Runtime, at most as many as there are processors.
        repeats: timed runs of each; None takes about two seconds, 20 to 1,000 runs.
        progress: called with (done, in all) after each turn.

    Raises:
        ExportError: no file that ghnq wrote, or the runtime refuses it.
        GhnqError: batch, threads or repeats out of range.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    _check("batch", batch, LARGEST_BATCH)
    _check("threads", threads, os.cpu_count() or 1)
    _check("repeats", 1 if repeats is None else repeats, None)
    ort = import_optional("onnxruntime")
    path = Path(path)
    model = load_model(path)
    facts = facts_of(model, path)
    scheme = QuantScheme.parse(facts.scheme)
    integers = with_shapes(read_simulation(model, str(path)), facts.input_shape, str(path))
    floats = in_floats(integers)
    counterpart = _float_model(floats)
    data = model.SerializeToString()
    sessions = [runtime.session(each, threads=threads) for each in (counterpart.SerializeToString(), data)]
    images = some_images(batch, facts.input_shape)
    float_time, integer_time, repeats = take_turns(sessions[0], sessions[1], images, repeats, progress)
    work = list(layer_work(integers, scheme))
    multiply_adds = sum(layer.multiply_adds for layer in work)
    return Profile(
        file=str(path),
        facts=facts,
        weights=len(_stored_weights(counterpart)) // FLOAT_BYTES,
        multiply_adds=multiply_adds,
        quantized=_cost(path.read_bytes(), model, integers, sum(layer.bit_operations for layer in work), integer_time),
        float32=_cost(
            counterpart.SerializeToString(), counterpart, floats, multiply_adds * FLOAT_BITS**2, float_time
        ),
        speedup=float_time.median_ms / integer_time.median_ms,
        float_layers=runtime.kernels(data).float_layers,
        batch=batch,
        threads=threads,
        repeats=repeats,
        provider=sessions[1].get_providers()[0],
        onnxruntime=ort.__version__,
        processor=this_processor(),
    )  # fmt: skip


def _check(name: str, value: int, most: int | None) -> None:
    if value < 1 or (most is not None and value > most):
        allowed = "1 or more" if most is None else f"1 to {most:,}"
        raise GhnqError(f"{name} is {value:,}; choose {allowed}")


def _float_model(floats: fx.GraphModule) -> Any:
    """The ONNX model of the float32 counterpart, for any batch, like the file."""
    model = write_model(floats, storage=Storage(), metadata={})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _cost(data: bytes, model: Any, graph: fx.GraphModule, bit_operations: int, latency: Latency) -> Cost:
    weights = _stored_weights(model)
    return Cost(
        bytes=len(data),
        weight_bytes=len(weights),
        compressed_bytes=len(zlib.compress(data, _ZLIB_LEVEL)),
        compressed_weight_bytes=len(zlib.compress(weights, _ZLIB_LEVEL)),
        bit_operations=bit_operations,
        peak_activation_bytes=peak_memory(graph),
        latency=latency,
    )


def _stored_weights(model: Any) -> bytes:
    """The bytes of all weights of convolutions and linear layers, as they stand in the file."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    grids = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    names = dict.fromkeys(grids.get(node.input[1], node.input[1]) for node in layers)
    return b"".join(stored[name].raw_data for name in names)
