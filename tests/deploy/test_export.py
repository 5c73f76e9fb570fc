"""The file: what it states, how weights are stored, and every way an export is refused."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ghnq import __version__
from ghnq.deploy import Origin, export_onnx, in_integers
from ghnq.deploy.graph.saturation import has_wide_int8
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx import runtime
from ghnq.errors import DataError, ExportError, GhnqError, MissingExtraError, NotFiniteError, SchemeError, WriteError
from ghnq.quant import quantize
from tests.deploy.conftest import Exports
from tests.deploy.nets import CALIBRATION, TEST, chain


def weights(path: Path) -> dict[str, onnx.TensorProto]:
    """The integer weights, by name; the weight of a norm is not one."""
    tensors = [t for t in onnx.load(path).graph.initializer if t.name.endswith("_weight")]
    return {t.name: t for t in tensors if t.data_type != onnx.TensorProto.FLOAT}


def test_states_what_it_is(tmp_path: Path) -> None:
    module = chain()
    before = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
    origin = Origin(model="chain", checkpoint="none", data="smooth noise", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    exported = export_onnx(module, "w4a8", calibration=CALIBRATION, out=tmp_path / "new" / "net.onnx", batch_size=32,
                           origin=origin)  # fmt: skip
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    stated = {prop.key: prop.value for prop in model.metadata_props}
    assert stated["ghnq.scheme"] == "w4a8"
    assert stated["ghnq.protocol"] == "deploy"
    assert stated["ghnq.version"] == __version__
    assert stated["ghnq.calibration_images"] == "64"
    assert Facts.from_properties(stated, "net.onnx") == exported.facts
    assert exported.facts.origin == origin
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert exported.opset == 17
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3, 8, 8]
    assert [d.dim_param or d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", 10]
    assert [file.name for file in exported.path.parent.iterdir()] == ["net.onnx"]
    after = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
    assert after == before


def test_a_network_trained_through_quantization_is_written_as_it_is_deployed(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )
    net = quantize(module, "w4a8", calibration=CALIBRATION, trainable=True)
    with torch.no_grad():
        for _ in range(5):
            net(3 * CALIBRATION + 1)  # statistics that calibration images would not give
    exported = export_onnx(net, "w4a8", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=32)
    with torch.no_grad():
        written, deployed, other = (n(TEST) for n in (exported.simulation, net.deploy(), net.deploy(reestimate=True)))
    # The file's biases are integers; new statistics would change far more.
    assert (written - deployed).abs().max() < 0.02 * (other - deployed).abs().max()


def test_any_batch_runs(exports: Exports) -> None:
    session = runtime.session(exports("branches", "w8a8").path.read_bytes())
    whole = runtime.run(session, TEST[:7])
    parts = torch.cat([runtime.run(session, part) for part in TEST[:7].split([1, 4, 2])])
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)


def test_8_bit_weights_are_stored_such_that_no_processor_saturates(exports: Exports) -> None:
    """uint8 around 128 as a rule, int8 on request, and int8 for weights that are small enough anyway."""
    safe, wide, small = exports("mixed", "w8a8"), exports("mixed", "w8a8", int8_weights=True), exports("mixed", "w4a4")
    for exported, allowed in ((safe, {2}), (wide, {3}), (small, {3})):  # TensorProto.UINT8, INT8
        assert {tensor.data_type for tensor in weights(exported.path).values()} == allowed
    for name, tensor in weights(safe.path).items():
        other = numpy_helper.to_array(weights(wide.path)[name]).astype(int)
        assert (numpy_helper.to_array(tensor).astype(int) - 128 == other).all()
    with torch.no_grad():
        torch.testing.assert_close(safe.simulation(TEST), wide.simulation(TEST), rtol=0, atol=0)
    assert has_wide_int8(wide.simulation)


def test_packed_weights_are_smaller_and_their_layers_stay_in_float(exports: Exports) -> None:
    plain, packed = exports("mixed", "w4a8"), exports("mixed", "w4a8", pack_int4=True)
    assert packed.opset == 21
    assert {tensor.data_type for tensor in weights(packed.path).values()} == {onnx.TensorProto.INT4}
    for name, tensor in weights(packed.path).items():
        other = weights(plain.path)[name]
        assert len(tensor.raw_data) == -(-len(other.raw_data) // 2)
        assert (numpy_helper.to_array(tensor).astype(int) == numpy_helper.to_array(other).astype(int)).all()
    data = packed.path.read_bytes()
    assert len(runtime.kernels(data).float_layers) == 8
    with torch.no_grad():
        ours = packed.simulation(TEST)
    theirs = runtime.run(runtime.session(data), TEST)
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() >= 0.98


@pytest.mark.parametrize("scheme", ["w8a8", "w4a4"])
def test_paper_weights_have_a_zero_point_and_run_in_integers(scheme: str, exports: Exports) -> None:
    exported = exports("mixed", scheme, protocol="paper")
    data = exported.path.read_bytes()
    assert {tensor.data_type for tensor in weights(exported.path).values()} == {onnx.TensorProto.UINT8}
    assert runtime.kernels(data).float_layers == ()
    with torch.no_grad():
        ours = in_integers(exported.simulation)(TEST)
    torch.testing.assert_close(ours, runtime.run(runtime.session(data), TEST), rtol=1e-5, atol=1e-5)


class Sorted(nn.Module):
    """Uses a function that has no word."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cumsum(x.flatten(1), 1))


class FixedBatch(Sorted):
    """Works for the batches of calibration only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(2, -1) if len(x) == 2 else x.flatten(1))


class AcrossBatch(Sorted):
    """Mixes images."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)).transpose(0, 1).reshape(10, -1)


def nan_weights() -> nn.Module:
    net = chain()
    net[2].weight.data[0] = torch.nan
    return net


@pytest.mark.parametrize(
    ("build", "options", "error", "says"),
    [
        (Sorted, {}, ExportError, r"cumsum.*in module '\(root\)'.*test_export\.py"),
        (FixedBatch, {}, ExportError, "batch"),
        (AcrossBatch, {}, ExportError, "batch"),
        (lambda: nn.Flatten(), {}, SchemeError, "no convolution or linear layer"),
        (nan_weights, {}, NotFiniteError, "'2'.*weight"),
        (chain, {"batch_size": 65}, DataError, "64 calibration images are fewer than one batch of 65"),
        (chain, {"calibration": CALIBRATION[:, :, :4]}, DataError, "cannot run"),
        (chain, {"calibration": CALIBRATION[0]}, DataError, r"\[B, C, H, W\]"),
        (chain, {"calibration": torch.zeros(64, 3, 8, 8)}, SchemeError, "0 for every calibration image"),
        (chain, {"calibration": CALIBRATION * torch.inf}, DataError, "NaN or infinite"),
        (chain, {"scheme": "w4a12"}, SchemeError, "12 bits.*2 to 8"),
        (chain, {"scheme": "w8b8"}, SchemeError, "did you mean"),
        (chain, {"protocol": "papr"}, SchemeError, "did you mean 'paper'"),
    ],
)
def test_refuses_and_leaves_no_file(
    tmp_path: Path, build: Callable[[], nn.Module], options: dict[str, object], error: type[GhnqError], says: str
) -> None:
    arguments = {"scheme": "w8a8", "calibration": CALIBRATION, "batch_size": 32} | options
    with pytest.raises(error, match=says):
        export_onnx(build().eval(), out=tmp_path / "net.onnx", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.onnx"
    out.write_text("old")

    def full(self: Path, data: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"cannot be written \(disk full\)"):
        export_onnx(chain(), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    assert out.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ghnq\[export\]'"):
        export_onnx(chain(), "w8a8", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64)
