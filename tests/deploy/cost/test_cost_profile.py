"""`profile`: each figure against something that counts it in another way."""

import json
import math
import zlib
from math import prod
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from ghnq.deploy import export_onnx, profile
from ghnq.deploy.cost.cost_profile import float_model
from ghnq.deploy.cost.peak_memory import Step, peak, peak_memory, steps
from ghnq.deploy.graph.dequantized import in_floats
from ghnq.deploy.graph.tensor_shapes import with_shapes
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.errors import ExportError, GhnqError, MissingExtraError
from ghnq.graph import trace
from ghnq.spaces import convnets
from tests.deploy.conftest import Exports
from tests.deploy.nets import CALIBRATION, NETS
from tests.quant.nets import images, randomise


class Two(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


class Chain(nn.Module):
    """A residual block on 8 channels: the first sum of the stem stays until it is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.narrow(torch.relu(self.wide(x))) + x)
        return self.head(x.mean((2, 3)))


def export(module: nn.Module, scheme: str, out: Path, calibration: Tensor = CALIBRATION) -> Path:
    return export_onnx(randomise(module), scheme, calibration=calibration, out=out, batch_size=32).path


def graph_of(path: Path, shape: tuple[int, ...] = (3, 8, 8)) -> fx.GraphModule:
    return with_shapes(read_simulation(load_model(path), str(path)), shape, str(path))


def hooked_multiply_adds(module: nn.Module, shape: tuple[int, ...]) -> int:
    """What the modules themselves do, seen from their kernels: output positions x elements of the weight / groups."""
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            height, width = output.shape[2:]
            inside = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            total += height * width * layer.out_channels * inside
        elif isinstance(layer, nn.Linear):
            total += output.numel() // layer.out_features * layer.in_features * layer.out_features

    handles = [child.register_forward_hook(count) for child in module.modules()]
    with torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize(
    "member", ["test/17", *(pytest.param(member, marks=pytest.mark.slow) for member in ("test/0", "wide/3"))]
)
def test_multiply_adds_are_those_of_the_traced_graph(member: str, tmp_path: Path) -> None:
    split, index = member.split("/")
    module = convnets.build(convnets.spec(split, int(index)))
    path = export(module, "w8a8", tmp_path / "net.onnx", images(32, size=32))
    costs = profile(path, repeats=1)
    assert costs.multiply_adds == trace(module, (3, 32, 32)).multiply_adds == hooked_multiply_adds(module, (3, 32, 32))
    assert costs.quantized.bit_operations == 64 * costs.multiply_adds
    layers = [child for child in module.modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    assert costs.weights == sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("scheme", "conv", "head"),
    [
        ("w8a8", 8 * 8, 8 * 8), ("w4a8", 4 * 8, 4 * 8), ("w4a3", 4 * 3, 4 * 3), ("w4", 4 * 32, 4 * 32),
        ("float32", 1024, 1024), ("w4a8+conv=w8a6", 8 * 6, 4 * 8), ("w4a8+head=float32", 4 * 8, 1024),
        ("w2a8+conv=w5", 5 * 32, 2 * 8),
    ],
)  # fmt: skip
def test_bit_operations_by_hand(scheme: str, conv: int, head: int, tmp_path: Path) -> None:
    costs = profile(export(Two(), scheme, tmp_path / "net.onnx"), repeats=1)
    conv_adds, head_adds = 8 * 8 * 4 * 27, 256 * 10
    assert costs.multiply_adds == conv_adds + head_adds
    assert costs.quantized.bit_operations == conv * conv_adds + head * head_adds
    assert costs.float32.bit_operations == 1024 * (conv_adds + head_adds)


def test_a_layer_that_runs_twice_counts_twice(exports: Exports) -> None:
    costs = profile(exports("shuffled", "w8a8").path, repeats=1)
    assert costs.multiply_adds == hooked_multiply_adds(NETS["shuffled"](), (3, 8, 8))


def test_peak_memory_by_hand(tmp_path: Path) -> None:
    """The stem's 8 channels, the wide 16 and the narrow 8 are all needed in one step, at 64 positions."""
    path = export(Chain(), "w8a8", tmp_path / "net.onnx")
    costs = profile(path, repeats=1)
    # The images, in float and as integers, take less: 5 x 192 bytes.
    assert costs.quantized.peak_activation_bytes == 32 * 64
    assert costs.float32.peak_activation_bytes == 4 * 32 * 64
    weights_only = profile(export(Chain(), "w8", tmp_path / "w8.onnx"), repeats=1)
    assert weights_only.quantized.peak_activation_bytes == weights_only.float32.peak_activation_bytes == 4 * 32 * 64


@pytest.mark.parametrize("name", [*NETS, "residual"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a4", "w4"])
def test_peak_memory_is_that_of_the_live_set(name: str, scheme: str, exports: Exports, tmp_path: Path) -> None:
    path = export(Chain(), scheme, tmp_path / "net.onnx") if name == "residual" else exports(name, scheme).path
    graph = graph_of(path)
    for module in (graph, in_floats(graph)):
        order = list(steps(module))
        assert peak_memory(module) == peak(order) == brute_force(order)


def brute_force(order: list[Step]) -> int:
    """At every step, asks of every tensor whether it was made and whether it is needed now or later."""
    most = 0
    for now, step in enumerate(order):
        live = [
            other.size
            for made, other in enumerate(order)
            if made <= now and (other is step or any(other.made in later.reads for later in order[now:]))
        ]
        most = max(most, sum(live))
    return most


def test_float_tensors_are_those_of_the_onnx_file(exports: Exports) -> None:
    """Another reader of the float32 counterpart: onnx's own shapes, every result a tensor of its own."""
    for name in ("chain", "mixed", "branches"):
        floats = in_floats(graph_of(exports(name, "w8a8").path))
        model = float_model(floats)
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        inferred = onnx.shape_inference.infer_shapes(model).graph
        elements = {
            value.name: prod(max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim)
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        source = {value.name: value.name for value in inferred.input}
        readers = [x for node in inferred.node for x in node.input]
        order: list[tuple[str, set[str]]] = [("images", set())]
        for node in inferred.node:
            into = [x for x in node.input if x in source]
            shares = node.op_type in ("Reshape", "Identity") or (
                node.op_type in ("Relu", "Clip") and readers.count(into[0]) == 1
            )
            source[node.output[0]] = source[into[0]] if shares else node.output[0]
            order.append((source[node.output[0]], {source[x] for x in into}))
        most = 0
        for now in range(len(order)):
            needed = set().union(*(reads for _, reads in order[now:])) | {order[now][0]}
            most = max(most, sum(4 * elements[made] for made in {m for m, _ in order[: now + 1]} & needed))
        assert peak_memory(floats) == most


def test_sizes_are_those_of_the_files(exports: Exports, tmp_path: Path) -> None:
    exported = exports("mixed", "w4a8")
    before = sorted(exported.path.parent.iterdir())
    costs = profile(exported.path, repeats=1)
    this, other = costs.quantized, costs.float32
    assert this.bytes == exported.path.stat().st_size
    assert this.compressed_bytes == len(zlib.compress(exported.path.read_bytes(), 9))
    convolutions = [child for child in NETS["mixed"]().modules() if isinstance(child, nn.Conv2d | nn.Linear)]
    count = sum(layer.weight.numel() for layer in convolutions)
    assert (costs.weights, this.weight_bytes, other.weight_bytes) == (count, count, 4 * count)
    assert this.packed_weight_bytes == sum(math.ceil(layer.weight.numel() / 2) for layer in convolutions)
    assert other.packed_weight_bytes == 4 * count
    assert this.compressed_weight_bytes < 0.75 * this.weight_bytes  # 4 bits of 8 carry something
    onnx.save(float_model(in_floats(graph_of(exported.path))), tmp_path / "float.onnx")
    assert other.bytes == (tmp_path / "float.onnx").stat().st_size
    assert sorted(exported.path.parent.iterdir()) == before


def test_packed_weights_take_half(exports: Exports) -> None:
    costs = profile(exports("mixed", "w4a8", pack_int4=True).path, repeats=1)
    assert costs.quantized.weight_bytes < 0.52 * costs.weights
    assert costs.float_layers != ()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.ELU(0.5), nn.Hardsigmoid(), nn.Tanh(), nn.Softmax(1)])
def test_every_function_finds_its_way_back(activation: nn.Module, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Flatten(), nn.LayerNorm(288), nn.Linear(288, 10))
    path = export(module, "w8a8", tmp_path / "net.onnx")
    costs = profile(path, repeats=1)
    assert costs.multiply_adds == 36 * 8 * 27 + 2880


def test_latency_is_positive_and_stated(exports: Exports) -> None:
    told: list[tuple[int, int]] = []
    costs = profile(exports("branches", "w8a8").path, batch=3, repeats=4, progress=lambda *x: told.append(x))
    assert (costs.batch, costs.threads, costs.repeats) == (3, 1, 4)
    assert costs.provider == "CPUExecutionProvider"
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for latency in (costs.quantized.latency, costs.float32.latency):
        assert 0 < latency.median_ms <= latency.p95_ms
    assert costs.speedup == costs.float32.latency.median_ms / costs.quantized.latency.median_ms
    document = json.loads(json.dumps(costs.document()))
    assert document["facts"]["scheme"] == "w8a8"
    assert document["processor"].keys() >= {"name", "features", "dot_product"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"batch": 0}, "batch is 0; choose 1 to 4,096"), ({"batch": 5000}, "batch is 5,000"),
        ({"threads": 0}, "threads is 0"), ({"threads": 100_000}, "threads is 100,000"),
        ({"repeats": 0}, "repeats is 0; choose 1 or more"), ({"repeats": -3}, "repeats is -3"),
    ],
)  # fmt: skip
def test_refuses_numbers_out_of_range(words: dict[str, int], says: str, exports: Exports) -> None:
    with pytest.raises(GhnqError, match=says):
        profile(exports("chain", "w8a8").path, **words)  # type: ignore[arg-type]


def test_refuses_files_that_are_not_ours(exports: Exports, tmp_path: Path) -> None:
    path = exports("chain", "w8a8").path
    foreign, shaped = onnx.load(path), onnx.load(path)
    del foreign.metadata_props[:]
    next(prop for prop in shaped.metadata_props if prop.key == "ghnq.input_shape").value = "[3, 9, 11]"
    for name, content, says in (
        ("missing.onnx", None, "there is no file"),
        ("cut.onnx", path.read_bytes()[:900], "not an ONNX model"),
        ("foreign.onnx", foreign.SerializeToString(), "was not written by ghnq export"),
        ("shaped.onnx", shaped.SerializeToString(), "metadata say batch x 3 x 9 x 11"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match=says):
            profile(tmp_path / name)


def test_a_missing_runtime_is_named(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exports("chain", "w8a8").path
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        profile(path)
