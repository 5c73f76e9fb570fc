"""The program that is written: the integers of the ONNX file, the results of the simulation, torchao's operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ghnq.deploy import Exported, export_program, load_program
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.storage import Storage
from ghnq.deploy.onnx.writer import write_model
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.errors import SchemeError
from ghnq.optional_imports import quiet
from ghnq.quant import QuantScheme
from tests.deploy.nets import CALIBRATION, TEST, chain
from tests.deploy.pt2e.conftest import Programs, logits, slow
from tests.torch_versions import needs_program_files

pytestmark = needs_program_files


def to_onnx(exported: Exported) -> onnx.ModelProto:
    """Returns the same simulation as an ONNX model."""
    return write_model(exported.simulation, storage=Storage(), metadata={})


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("chain", "w2a2"),
        slow("mixed", "w8a8"),
        ("branches", "w4a4"),
        slow("conv-head", "w8a8"),
        slow("shuffled", "w4a4"),
    ],
)
def test_computes_what_onnx_runtime_computes(name: str, scheme: str, programs: Programs) -> None:
    """The oracle is another writer and another runtime with its own kernels."""
    exported = programs(name, scheme)
    ours = logits(load_program(exported.path)[0].module())
    theirs = runtime.run(runtime.session(to_onnx(exported).SerializeToString()), TEST)
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() >= 0.98
    assert ((ours - theirs).abs() > 1e-4).any(1).double().mean() <= 0.03  # images with a sum next to a tie


def test_bits_of_single_layers_are_kept(tmp_path: Path) -> None:
    scheme = "w4a8+2=w2a4+5=w8a8"
    exported = export_program(chain(), scheme, calibration=CALIBRATION, out=tmp_path / "net.pt2", batch_size=64)
    program, _ = load_program(exported.path)
    operators = quantized_decomposed()
    weights = program.graph.find_nodes(op="call_function", target=operators.dequantize_per_channel.default)
    assert [node.args[4:] for node in weights] == [(-7, 7, torch.int8), (-1, 1, torch.int8), (-127, 127, torch.int8)]
    stored = program.graph.find_nodes(op="call_function", target=operators.quantize_per_tensor.default)
    assert {node.args[4] for node in stored} == {255, 15}
    torch.testing.assert_close(logits(program.module()), logits(exported.simulation), rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_the_onnx_file(programs: Programs) -> None:
    exported = programs("branches", "w4a4")
    program, _ = load_program(exported.path)
    theirs = {t.name: numpy_helper.to_array(t) for t in to_onnx(exported).graph.initializer}
    ours = {name: t.numpy() for name, t in program.state_dict.items() if t.dtype == torch.int8}
    assert len(ours) == 6
    for name, values in ours.items():
        assert np.abs(values).max() <= 7
        in_onnx = name.removeprefix("layers.").replace(".", "_")
        assert (values == theirs[in_onnx]).all()
        assert (program.state_dict[f"{name}_scale"].numpy() == theirs[f"{in_onnx}_scale"]).all()


def test_any_batch_runs(programs: Programs) -> None:
    module = load_program(programs("branches", "w4a4").path)[0].module()
    parts = torch.cat([logits(module, part) for part in TEST[:7].split([1, 4, 2])])
    torch.testing.assert_close(logits(module, TEST[:7]), parts, rtol=1e-5, atol=1e-5)


def test_functions_are_called_as_torchao_calls_them(programs: Programs) -> None:
    """The arguments of `convert_pt2e`'s own result, in number, order and type: what its lowerings look for."""
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(torch.export.export(chain(), (TEST[:2],), strict=False).module(), quantizer)
        prepared(TEST[:2])
        theirs = convert_pt2e(prepared).graph
    ours = load_program(programs("branches", "w4a4").path)[0].graph
    operators = quantized_decomposed()
    for function in (operators.quantize_per_tensor, operators.dequantize_per_tensor, operators.dequantize_per_channel):
        calls = [graph.find_nodes(op="call_function", target=function.default) for graph in (ours, theirs)]
        shapes = [{tuple(type(arg) for arg in node.args) for node in nodes} for nodes in calls]
        assert shapes[0] == shapes[1]
        assert not any(node.kwargs for node in calls[0])
    assert {
        len(node.users) for node in ours.find_nodes(op="call_function", target=operators.dequantize_per_tensor.default)
    } == {1}


def test_fewer_bits_do_not_depend_on_quant_max(programs: Programs) -> None:
    """x86 kernels ignore it: with 255 in its place the program must compute the same."""
    module = load_program(programs("branches", "w4a4").path)[0].module()
    before = logits(module)
    for node in module.graph.find_nodes(op="call_function", target=quantized_decomposed().quantize_per_tensor.default):
        assert node.args[4] == 15 or node.args[4] == 255
        node.args = (*node.args[:4], 255, node.args[5])
    module.recompile()
    torch.testing.assert_close(logits(module), before, rtol=0, atol=0)


def test_the_file_holds_nothing_of_the_user_but_the_network(programs: Programs) -> None:
    exported = programs("branches", "w4a4")
    data = exported.path.read_bytes()
    assert str(Path(__file__).parent).encode() not in data
    assert b"stack_trace" not in data
    program, _ = load_program(exported.path)
    assert program.example_inputs is not None
    assert not program.example_inputs[0][0].any()


def test_channels_with_zero_points_of_their_own_are_refused(tmp_path: Path) -> None:
    scheme = QuantScheme(weight_bits=8, activation_bits=8, weight_symmetric=False)
    with pytest.raises(SchemeError, match="different zero points"):
        export_program(chain(), scheme, calibration=CALIBRATION, out=tmp_path / "net.pt2", batch_size=64)
    assert list(tmp_path.iterdir()) == []
