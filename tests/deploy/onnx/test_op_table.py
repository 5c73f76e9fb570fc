"""Each supported operator is written to ONNX and read back."""

from __future__ import annotations

from collections import Counter

import pytest

from ghnq.deploy.graph.quantize_ops import dequantize, quantize
from ghnq.deploy.graph.supported_ops import KINDS
from ghnq.deploy.onnx.op_table import OPS, READ, WRITE


def test_every_supported_operator_can_be_written() -> None:
    assert KINDS.keys() | {quantize, dequantize} <= WRITE.keys()


def test_no_operator_has_two_records() -> None:
    assert max(Counter(op.target for op in OPS if op.write is not None).values()) == 1
    assert max(Counter(op.name for op in OPS if op.read is not None).values()) == 1


def test_everything_that_is_written_can_be_read() -> None:
    assert {op.name for op in OPS} == READ.keys()


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        READ["Relu"] = READ["Tanh"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        OPS[0].name = "Other"  # type: ignore[misc]
