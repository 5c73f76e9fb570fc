"""Transposed convolutions, resizing, shuffles, paddings, `ceil_mode` and group norms: exported, read back, verified."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ghnq.deploy import export_onnx, export_program
from ghnq.deploy.cost.cost_profile import profile
from ghnq.deploy.graph.capture import capture
from ghnq.deploy.graph.integer_arithmetic import in_integers
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import load_model, read_simulation
from ghnq.deploy.onnx.storage import Storage
from ghnq.deploy.onnx.writer import write_model
from ghnq.deploy.pt2e.lowering import compiled, lower
from ghnq.deploy.pt2e.program_file import load_program
from ghnq.deploy.pt2e.reader import read_program
from ghnq.errors import ExportError
from tests.deploy.nets import CALIBRATION, TEST
from tests.deploy.resampling_nets import RESAMPLING_NETS, ToSize
from tests.torch_versions import needs_program_files

FLOAT_KERNELS = {
    "transposed": {"ConvTranspose": 1},
    "transposed, grouped": {"ConvTranspose": 1},
    "shuffle": {},
    "nearest": {},
    "bilinear": {"Clip": 2, "Resize": 2},
    "padding": {"Pad": 3},
    "ceil mode": {"Pad": 1},
}
"""What ONNX Runtime has no integer kernel for."""
FLOAT_OPERATORS = {
    "transposed": {"conv_transpose2d": 1},
    "transposed, grouped": {"conv_transpose2d": 1},
    "bilinear": {"upsample_bilinear2d": 2},
    "ceil mode": {"constant_pad_nd": 1},
    "group norm": {"instance_norm": 2},
}
"""The same of the graph, before a runtime is chosen."""


@pytest.mark.parametrize("name", RESAMPLING_NETS)
def test_operators_in_float_are_named(name: str, tmp_path: Path) -> None:
    exported = export_onnx(
        RESAMPLING_NETS[name](), "w4a8", calibration=CALIBRATION, batch_size=64, out=tmp_path / "x.onnx"
    )
    assert exported.float_operators == FLOAT_OPERATORS.get(name, {})
    if name in FLOAT_KERNELS:
        assert profile(tmp_path / "x.onnx", repeats=1).float_operators == FLOAT_KERNELS[name]
    for scheme in ("float32", "w4"):
        in_float = export_onnx(
            RESAMPLING_NETS[name](), scheme, calibration=CALIBRATION, batch_size=64, out=tmp_path / "y.onnx"
        )
        assert in_float.float_operators == {}


@pytest.mark.parametrize("scheme", ["float32", "w8a8", "w4a8"])
@pytest.mark.parametrize("name", RESAMPLING_NETS)
def test_the_runtime_agrees_with_the_simulation(name: str, scheme: str, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    exported = export_onnx(RESAMPLING_NETS[name](), scheme, calibration=CALIBRATION, out=out, batch_size=64)
    model = load_model(out)
    simulation = read_simulation(model, str(out))
    assert torch.equal(simulation(TEST), exported.simulation(TEST))
    expected = in_integers(simulation)(TEST)
    logits = runtime.run(runtime.session(model.SerializeToString()), TEST)
    assert torch.equal(logits.argmax(1), expected.argmax(1))
    assert float((logits - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    if scheme != "float32" and name in FLOAT_KERNELS:
        counts = runtime.kernels(model.SerializeToString())
        assert counts.floating == FLOAT_KERNELS[name]
        assert counts.float_layers == (("2",) if "transposed" in name else ())


@pytest.mark.parametrize("name", RESAMPLING_NETS)
def test_a_float_network_computes_what_torch_computes(name: str) -> None:
    network = RESAMPLING_NETS[name]().double().eval()
    graph = capture(network.float(), CALIBRATION)
    with torch.no_grad():
        expected = network.double()(TEST.double())
        assert torch.allclose(graph(TEST).double(), expected, rtol=1e-5, atol=1e-5)


@needs_program_files
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", RESAMPLING_NETS)
def test_programs_hold_the_same_simulation(name: str, scheme: str, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    exported = export_program(RESAMPLING_NETS[name](), scheme, calibration=CALIBRATION, out=out, batch_size=64)
    program, _ = load_program(out)
    assert torch.equal(read_program(program, str(out))(TEST), exported.simulation(TEST))
    with torch.no_grad():
        loaded = program.module()(TEST)  # type: ignore[operator]
    assert torch.equal(loaded.argmax(1), exported.simulation(TEST).argmax(1))


@pytest.mark.parametrize("scheme", ["float32", "w8a8"])
def test_the_runtime_does_not_warn_of_shapes(scheme: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ort = pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    export_onnx(RESAMPLING_NETS["ceil mode"](), scheme, calibration=CALIBRATION, out=out, batch_size=64)
    capfd.readouterr()
    ort.InferenceSession(out, providers=["CPUExecutionProvider"]).run(None, {"images": TEST.numpy()})
    assert capfd.readouterr().err == ""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(out), strict_mode=True)
    assert [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim] == [0, 10]


@needs_program_files
@pytest.mark.slow
@pytest.mark.parametrize("name", RESAMPLING_NETS)
def test_a_compiled_program_computes_what_its_simulation_does(name: str, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    exported = export_program(RESAMPLING_NETS[name](), "w7a8", calibration=CALIBRATION, batch_size=64, out=out)
    lowered = lower(load_program(out)[0], TEST[:8])
    logits = compiled(lowered, TEST[:8])(TEST[:8])
    assert torch.allclose(logits, exported.simulation(TEST[:8]), rtol=0, atol=1e-5)
    assert lowered.kernels.integer
    assert lowered.kernels.float_layers == (("2",) if "transposed" in name else ())


@pytest.mark.slow
@settings(max_examples=40)
@given(
    size=st.integers(4, 9), kernel=st.integers(1, 4), stride=st.integers(1, 4), data=st.data(), average=st.booleans(),
    counted=st.booleans(),
)  # fmt: skip
def test_any_ceil_mode_is_pools_of_torch(
    size: int, kernel: int, stride: int, data: st.DataObject, average: bool, counted: bool
) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    pool = (
        nn.AvgPool2d(kernel, stride, padding, ceil_mode=True, count_include_pad=counted)
        if average
        else nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    )
    images = torch.randn(3, 2, size, size, generator=torch.Generator().manual_seed(size))
    network = nn.Sequential(pool, nn.Flatten())
    graph = capture(network, images)
    assert torch.allclose(graph(images), network(images), rtol=1e-6, atol=1e-6)
    assert torch.allclose(_run_onnx(graph, images), network(images), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=25)
@given(before=st.integers(2, 9), after=st.integers(1, 24), mode=st.sampled_from(["nearest", "bilinear", "corners"]))
def test_any_size_is_torchs_or_refused(before: int, after: int, mode: str) -> None:
    options = {"mode": "bilinear", "align_corners": mode == "corners"} if mode != "nearest" else {"mode": "nearest"}
    images = torch.randn(2, 2, before, before, generator=torch.Generator().manual_seed(after))
    network = nn.Sequential(ToSize((after, after), **options), nn.Flatten())
    try:
        graph = capture(network, images)
    except ExportError:  # of a factor that is no float32
        assume(after % before == 0)
        raise
    assert torch.allclose(_run_onnx(graph, images), network(images), rtol=1e-4, atol=1e-4)


def _run_onnx(graph: torch.fx.GraphModule, images: Tensor) -> Tensor:
    return runtime.run(runtime.session(write_model(graph, storage=Storage(), metadata={}).SerializeToString()), images)


def test_a_factor_that_gives_other_pixels_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Upsample(scale_factor=1.7), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExportError, match="from 8x8 to 13x13 cannot be expressed"):
        capture(network, CALIBRATION)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bits", [8, 4])
def test_the_file_of_a_transposed_convolution_by_hand(groups: int, bits: int, tmp_path: Path) -> None:
    """Integers, scales and bias in the file are those of the layer, with one scale for each output channel, axis 1."""
    torch.manual_seed(1)
    layer = nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=groups)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    out = tmp_path / "net.onnx"
    export_onnx(network, f"w{bits}a8", calibration=CALIBRATION, out=out, batch_size=64)
    model = onnx.load(out)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor).astype("float64") for tensor in model.graph.initializer}
    scales, largest = layer.weight.abs().amax((0, 2, 3)).double() / (2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
    expected = (layer.weight.double() / scales.view(1, -1, 1, 1)).round().clamp(-largest, largest)
    zero = stored["1_weight_zero"].reshape(1, -1, 1, 1)
    assert torch.allclose(torch.from_numpy(stored["1_weight"] - zero), expected, rtol=0, atol=1e-9)
    assert torch.allclose(torch.from_numpy(stored["1_weight_scale"]), scales, rtol=1e-6)
    (axis,) = (
        node.attribute[0].i for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] == "1_weight"
    )  # fmt: skip
    assert axis == 1
    bias = torch.from_numpy(stored["1_bias"] * stored["1_bias_scale"])
    assert torch.allclose(bias, layer.bias.detach().double(), rtol=0, atol=float(stored["1_bias_scale"].max()))  # type: ignore[union-attr]


@pytest.mark.parametrize("dims", [(1,), (2,), (1, 2), (2, 3)])
def test_averages_over_any_axes_with_packed_weights(dims: tuple[int, ...], tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dims, keepdim=True)

    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Mean(), nn.Flatten(), nn.LazyLinear(10)
    )  # fmt: skip
    network(CALIBRATION[:2])
    outs = [tmp_path / "packed.onnx", tmp_path / "plain.onnx"]
    logits = []
    for out, packed in zip(outs, (True, False), strict=True):
        export_onnx(network, "w4a8", calibration=CALIBRATION, out=out, batch_size=64, pack_int4=packed)
        model = load_model(out)
        logits.append(read_simulation(model, str(out))(TEST))
        found = runtime.run(runtime.session(model.SerializeToString()), TEST)
        assert torch.equal(found.argmax(1), logits[-1].argmax(1))
    assert torch.equal(*logits)


def test_profile_counts_a_transposed_convolution(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten())  # fmt: skip
    out = tmp_path / "net.onnx"
    export_onnx(network, "w4a8", calibration=CALIBRATION, out=out, batch_size=64)
    report = profile(out, repeats=1)
    assert report.weights == 3 * 4 + 4 * 3 * 9
    assert report.multiply_adds == 64 * 3 * 4 + 64 * 4 * 3 * 9
    assert report.quantized.bit_operations == 32 * report.multiply_adds
    assert report.float_layers == ("1",)


def test_interpolation_of_the_oracle() -> None:
    """Nearest takes pixel floor(i * in / out)."""
    image = torch.arange(6.0).view(1, 1, 1, 6)
    assert F.interpolate(image, (1, 9)).flatten().tolist() == [i * 6 // 9 for i in range(9)]
