"""The table of operators: each ATen function of a deployed graph, how it is written to ONNX and how it is read back.

Both directions are in one record, so that an operator cannot be written and not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch.fx.node import Target

from ghnq.deploy.onnx.elementwise_ops import ELEMENTWISE_OPS
from ghnq.deploy.onnx.layer_ops import LAYER_OPS
from ghnq.deploy.onnx.onnx_op import OnnxOp, Read, Write
from ghnq.deploy.onnx.pool_ops import POOL_OPS
from ghnq.deploy.onnx.quantizer_ops import QUANTIZER_OPS
from ghnq.deploy.onnx.shape_ops import SHAPE_OPS

OPS: tuple[OnnxOp, ...] = (*QUANTIZER_OPS, *LAYER_OPS, *POOL_OPS, *ELEMENTWISE_OPS, *SHAPE_OPS)

WRITE: Mapping[Target, Write] = MappingProxyType({op.target: op.write for op in OPS if op.write is not None})
"""How the calls of each ATen function are written."""

READ: Mapping[str, Read] = MappingProxyType({op.name: op.read for op in OPS if op.read is not None})
"""How the nodes of each ONNX operator are read."""
