"""`verify`: what it reports, and the files it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.deploy import Origin, export_onnx, export_program, verify, verify_program
from ghnq.deploy.comparison import last_layer_steps
from ghnq.deploy.onnx import runtime
from ghnq.errors import DataError, ExportError, MissingExtraError
from ghnq.processor import Processor
from tests.deploy.conftest import Exports
from tests.deploy.nets import CALIBRATION, chain
from tests.torch_versions import needs_program_files


@pytest.fixture(scope="module")
def file(dataset: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, for those images."""
    out = tmp_path_factory.mktemp("parity") / "net.onnx"
    origin = Origin(mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist()))
    export_onnx(chain(), "w8a8", calibration=dataset.calibration(64, 0), out=out, batch_size=64, origin=origin)
    return out


def test_reports_both_sides(file: Path, dataset: ImageDataset) -> None:
    parity = verify(file, dataset)
    assert (parity.images, parity.agreement, parity.saturation) == (60, 1.0, False)
    assert parity.accuracy_simulation == parity.accuracy_runtime
    assert parity.largest_difference < 1e-4
    assert parity.kernels.integer["QLinearConv"] == 2
    assert parity.kernels.integer["QGemm"] == 1
    assert parity.kernels.floating == {}
    assert json.loads(json.dumps(parity.document()))["facts"]["scheme"] == "w8a8"
    assert verify(file, dataset, images=10).images == 10


def test_sees_a_runtime_that_computes_something_else(
    file: Path, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = runtime.run

    def broken(session: object, images: Tensor) -> Tensor:
        return honest(session, images).roll(1, dims=1)

    monkeypatch.setattr(runtime, "run", broken)
    parity = verify(file, dataset)
    assert parity.agreement < 0.5
    assert parity.largest_difference_steps is not None
    assert parity.largest_difference_steps > 1


def test_the_images_are_normalised_as_the_file_says(file: Path, dataset: ImageDataset, tmp_path: Path) -> None:
    model = onnx.load(file)
    for prop in model.metadata_props:
        if prop.key == "ghnq.mean":
            prop.value = "[9.0, 9.0, 9.0]"
    onnx.save(model, tmp_path / "shifted.onnx")
    assert verify(tmp_path / "shifted.onnx", dataset).accuracy_runtime != verify(file, dataset).accuracy_runtime


@pytest.mark.parametrize(("name", "scheme"), [("mixed", "w4a8+8=float32"), ("branches", "w8a8+left=float32")])
def test_a_layer_left_in_float_between_grids_stays_float(
    name: str, scheme: str, exports: Exports, dataset: ImageDataset
) -> None:
    parity = verify(exports(name, scheme).path, dataset)
    assert parity.largest_difference_steps is not None
    assert parity.largest_difference_steps <= 1


@needs_program_files
def test_no_steps_where_something_stands_behind_the_last_layer(tmp_path: Path, dataset: ImageDataset) -> None:
    network = nn.Sequential(chain(), nn.ConstantPad1d((0, 5), 0.0))
    model, program = tmp_path / "net.onnx", tmp_path / "net.pt2"
    export_onnx(network, "w8a8", calibration=CALIBRATION, out=model, batch_size=64)
    assert verify(model, dataset).largest_difference_steps is None
    export_program(network, "w8a8", calibration=CALIBRATION, out=program, batch_size=64)
    assert verify_program(program, dataset).eager.largest_difference_steps is None


def test_steps_are_those_of_the_last_layer(exports: Exports) -> None:
    exported = exports("chain", "w8a8")
    steps = last_layer_steps(exported.simulation)
    assert steps is not None
    images = torch.zeros(1, 3, 8, 8)
    assert steps.shape == exported.simulation(images)[0].shape
    assert last_layer_steps(exports("chain", "float32").simulation) is None


@pytest.mark.parametrize(
    ("x86", "dot_product", "saturates"),
    [(True, False, True), (True, True, False), (True, None, None), (False, None, False), (False, False, False)],
)
def test_only_x86_without_dot_products_saturates(x86: bool, dot_product: bool | None, saturates: bool | None) -> None:
    assert Processor("p", (), dot_product, x86).saturates is saturates


def test_refuses_files_that_are_not_ours(file: Path, dataset: ImageDataset, tmp_path: Path) -> None:
    data = file.read_bytes()
    foreign = onnx.load(file)
    del foreign.metadata_props[:]
    other_op = onnx.load(file)
    other_op.graph.node[-1].op_type = "MatMul"
    other_facts = onnx.load(file)
    for prop in other_facts.metadata_props:
        if prop.key == "ghnq.input_shape":
            prop.value = "[3, 8]"
    for name, content, says in (
        ("missing.onnx", None, "there is no file"),
        ("empty.onnx", b"", "not an ONNX model"),
        ("text.onnx", b"hello, this is text", "not an ONNX model"),
        ("cut.onnx", data[: len(data) // 2], "not an ONNX model"),
        ("foreign.onnx", foreign.SerializeToString(), "was not written by ghnq export"),
        ("op.onnx", other_op.SerializeToString(), "not an ONNX model|not as ghnq writes it"),
        ("facts.onnx", other_facts.SerializeToString(), "damaged metadata"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match=says):
            verify(tmp_path / name, dataset)


def test_refuses_images_of_another_shape(file: Path, dataset: ImageDataset) -> None:
    wide = Images(torch.zeros(20, 3, 8, 9, dtype=torch.uint8), torch.arange(20) % 10)
    other = ImageDataset.build("wide", wide, wide, dataset.class_names, flip=False)
    with pytest.raises(DataError, match=r"3x8x8.*3x8x9"):
        verify(file, other)


def test_a_missing_runtime_is_named(file: Path, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        verify(file, dataset)


@pytest.mark.slow
@pytest.mark.parametrize("member", ["test/0", "test/1", "test/2", "deep/0", "wide/3", "dense/0", "bnfree/0"])
def test_members_of_the_space_agree(member: str, tmp_path: Path, dataset: ImageDataset) -> None:
    from ghnq.spaces import convnets
    from tests.quant.nets import randomise

    split, index = member.split("/")
    module: nn.Module = randomise(convnets.build(convnets.spec(split, int(index))))
    for scheme in ("w8a8", "w4a4"):
        out = tmp_path / "net.onnx"
        export_onnx(module, scheme, calibration=dataset.calibration(64, 0), out=out, batch_size=64)
        parity = verify(out, dataset)
        assert parity.kernels.float_layers == ()
        assert parity.agreement >= 59 / 60


def _no_groups(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(attribute for attribute in conv.attribute if attribute.name == "group").i = 0


def _huge_padding(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    next(attribute for attribute in conv.attribute if attribute.name == "pads").ints[0] = 2**62


def _fewer_rows(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = model.graph.node[0].output[0]


@pytest.mark.parametrize("damage", [_no_groups, _huge_padding, _fewer_rows])
def test_a_graph_that_does_not_run_is_told(
    file: Path, dataset: ImageDataset, tmp_path: Path, damage: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(file)
    damage(model)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError):
        verify(tmp_path / "net.onnx", dataset, images=10)
