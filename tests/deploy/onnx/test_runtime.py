"""Which kernels ONNX Runtime uses, and the layers that run in float."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from ghnq.deploy.onnx import runtime
from tests.deploy.conftest import Exports


@pytest.mark.parametrize(
    ("name", "scheme", "layers"),
    [
        ("chain", "w4", ("0", "2", "5")),
        ("chain", "float32", ("0", "2", "5")),
        ("chain", "w4a8+5=float32", ("5",)),
        ("chain", "w4a8+0=float32", ("0",)),
        # What the runtime fuses a layer with, and a norm that it turns into a convolution, are no layers.
        ("mixed", "float32", ("0", "3.conv1", "3.conv2", "4.conv", "5.conv1", "5.conv2", "8", "11")),
        ("mixed", "w8a8+0=float32", ("0",)),
        # Between two grids, where the runtime would quantize the weights by itself.
        ("mixed", "w4a8+8=float32", ("8",)),
        ("branches", "w8a8+left=float32", ("left",)),
        ("shuffled", "w4", ("stem", "shared", "patches", "head")),
        ("mixed", "w8a8", ()),
    ],
)
def test_float_layers_are_named(name: str, scheme: str, layers: tuple[str, ...], exports: Exports) -> None:
    found = runtime.kernels(exports(name, scheme).path.read_bytes())
    assert found.float_layers == layers


@pytest.mark.parametrize(
    "kept", [{"name": "conv_Conv_0", "result": "q"}, {"name": "QLinearConv", "result": "conv_Conv_0"}]
)
def test_integer_layers_are_known_by_name_or_by_result(kept: dict[str, str]) -> None:
    """As ONNX Runtime 1.32 and 1.19 name them."""
    ours = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv_Conv_0"),
            helper.make_node("Gemm", ["c", "v"], ["y"], name="head_Gemm_1")]  # fmt: skip
    nodes = [helper.make_node("QLinearConv", ["x"], [kept["result"]], name=kept["name"]),
             helper.make_node("Gemm", [kept["result"], "v"], ["y"], name="fused head_Gemm_1")]  # fmt: skip
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    optimised, model = (helper.make_model(helper.make_graph(each, "g", made[:1], made[1:])) for each in (nodes, ours))
    assert runtime.count_kernels(optimised, model).float_layers == ("head",)


def test_kernels_are_sorted_by_the_type_they_compute_in() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2]),
        helper.make_node("Conv", ["e", "w"], ["y"], name="y_nchwc"),
    ]
    ours = [helper.make_node("Conv", ["x", "w"], ["y"], name="the.one_Conv_3")]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    optimised, model = (helper.make_model(helper.make_graph(each, "g", made[:1], made[1:])) for each in (nodes, ours))
    found = runtime.count_kernels(optimised, model)
    assert found.integer == {"MaxPool": 1}
    assert found.floating == {"MaxPool": 1, "Conv": 1}
    assert found.borders == {"QuantizeLinear": 1, "DequantizeLinear": 1}
    assert found.float_layers == ("the.one",)
