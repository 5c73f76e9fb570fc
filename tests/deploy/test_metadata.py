"""What files say of themselves: the whole scheme comes back, and what is damaged or changed is told with the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ghnq.deploy import export_onnx, export_program, profile, verify
from ghnq.deploy.metadata import Facts, Origin
from ghnq.deploy.onnx.reader import facts_of, load_model
from ghnq.deploy.pt2e.program_file import read_facts
from ghnq.errors import ExportError, SchemeError
from ghnq.quant import QuantScheme, scheme_from_text
from tests.deploy.nets import CALIBRATION, chain
from tests.torch_versions import needs_program_files

SCHEMES = {
    "steps": QuantScheme.parse("w4a8+0=w8a8", steps=("correct_bias", "squant")),
    "custom": QuantScheme.parse("w4a4", protocol="paper", weight_range="mse", variance_floor=0.01),
    "plain": QuantScheme.parse("float32"),
    "twice": QuantScheme.parse("w8a8+0=w4a8+5=w4a8+0=w2a8"),  # of one pattern the last counts
}


def facts(scheme: QuantScheme = SCHEMES["steps"]) -> Facts:
    return Facts.of(scheme, 64, (3, 8, 8), Origin(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_the_whole_scheme_comes_back(scheme: QuantScheme) -> None:
    read = Facts.from_properties(facts(scheme).to_properties(), "net.onnx")
    assert read == facts(scheme)
    assert read.steps == scheme.steps
    assert read.scheme_file is not None
    whole = scheme_from_text(read.scheme_file)
    for field in vars(scheme):
        if field != "overrides":
            assert getattr(whole, field) == getattr(scheme, field)
    assert dict(whole.overrides) == dict(scheme.overrides)


def test_the_title_names_protocol_and_steps() -> None:
    assert facts().title == "w4a8+0=w8a8, protocol deploy + squant + correct_bias"
    assert facts(SCHEMES["custom"]).title == "w4a4, protocol custom"


@needs_program_files
def test_both_kinds_of_file_hold_it(tmp_path: Path) -> None:
    scheme = QuantScheme.parse("w4a8", steps=("squant",), activation_range="percentile")
    options: dict[str, Any] = {"calibration": CALIBRATION, "batch_size": 64}
    one = export_onnx(chain(), scheme, out=tmp_path / "net.onnx", **options).path
    two = export_program(chain(), scheme, out=tmp_path / "net.pt2", **options).path
    for read in (facts_of(load_model(one), one), read_facts(two)):
        assert scheme_from_text(read.scheme_file or "") == scheme
        assert (read.steps, read.protocol) == (("squant",), "custom")


@needs_program_files
def test_steps_may_be_given_besides(tmp_path: Path) -> None:
    scheme = QuantScheme.parse("w4a8", steps=("equalize",))
    options: dict[str, Any] = {"calibration": CALIBRATION, "batch_size": 64, "steps": ["correct_bias", "squant"]}
    one = export_onnx(chain(), scheme, out=tmp_path / "net.onnx", **options)
    two = export_program(chain(), scheme, out=tmp_path / "net.pt2", **options)
    whole = QuantScheme.parse(scheme, steps=("squant", "correct_bias"))
    three = export_onnx(chain(), whole, out=tmp_path / "other.onnx", calibration=CALIBRATION, batch_size=64)
    assert one.facts == two.facts == three.facts
    assert one.facts.steps == ("squant", "correct_bias")
    assert one.path.read_bytes() == three.path.read_bytes()
    with pytest.raises(SchemeError, match="did you mean 'squant'"):
        export_onnx(chain(), scheme, out=tmp_path / "no.onnx", **options | {"steps": ["squat"]})


def test_files_from_before_are_read(tmp_path: Path) -> None:
    properties = facts().to_properties()
    del properties["ghnq.scheme_file"]
    read = Facts.from_properties(properties, "old.onnx")
    assert (read.scheme, read.protocol, read.steps, read.scheme_file) == ("w4a8+0=w8a8", "deploy", (), None)
    assert read.origin == facts().origin


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scheme", "w8b8"),
        ("scheme", "elsewhere.yaml"),
        ("scheme", 8),
        ("scheme_file", "scheme: w4a8\nsteps: [squint]\n"),
        ("scheme_file", "scheme: w8a8\n"),  # of another scheme than the word
        ("scheme_file", "scheme: w4a8\nprotocol: paper\noverrides: {'0': w8a8}\n"),
        ("scheme_file", "[" * 100_000),
        ("mean", "[0.5]"),
        ("mean", "[0.5, 0.5, NaN]"),
        ("std", "[1.0, 1.0, 1.0, 1.0]"),
        ("std", "[1.0, 0.0, 1.0]"),
        ("std", None),
        ("mean", None),
        ("input_shape", "[Infinity, 8, 8]"),
        ("input_shape", "[3, 8]"),
        ("calibration_images", "many"),
        ("calibration_images", "-5"),
    ],
)
def test_damage_is_told_with_the_file(key: str, value: Any) -> None:
    properties = facts().to_properties() | {f"ghnq.{key}": value}
    if value is None:
        del properties[f"ghnq.{key}"]
    with pytest.raises(ExportError, match=r"'net\.onnx' has damaged metadata .*; export it again"):
        Facts.from_properties(properties, "net.onnx")


def _one_image(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _other_size(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9


def _two_inputs(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8]))


def _no_scale(model: Any) -> None:
    name = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, dtype=np.float32), name))


def _one_mean(model: Any) -> None:
    model.metadata_props.add(key="ghnq.mean", value=json.dumps([0.5]))
    model.metadata_props.add(key="ghnq.std", value=json.dumps([0.5]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _one_image,
            "takes images of 1 x 3 x 8 x 8, its metadata say batch x 3 x 8 x 8: .*leave the batch size dynamic",
        ),
        (_other_size, "takes images of batch x 3 x 9 x 8"),
        (_two_inputs, "takes images of batch x 3 x 8 x 8 x batch"),
        (_no_scale, "a scale is not positive and finite"),
        (_one_mean, "not one number for each of 3 channels"),
    ],
)
def test_a_file_that_another_program_changed_is_refused(
    tmp_path: Path, dataset: Any, change: Callable[[Any], None], says: str
) -> None:
    out = tmp_path / "net.onnx"
    export_onnx(chain(), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    model = onnx.load(out)
    change(model)
    onnx.save(model, out)
    with pytest.raises(ExportError, match=says):
        verify(out, dataset)
    with pytest.raises(ExportError, match=says):
        profile(out, repeats=2)
