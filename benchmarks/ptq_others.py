"""What a user would otherwise run on the same float network: ONNX Runtime's quantize_static, torchao's pt2e flow."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ghnq.quant import LayerBits

Bits = dict[str, LayerBits]


class OrtNetwork(nn.Module):
    """An ONNX file as a module: images in, logits out, on ONNX Runtime with integer kernels where it has them."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        (logits,) = self.session.run(None, {"x": x.numpy()})
        return torch.from_numpy(logits)


def onnx_runtime(network: nn.Module, images: Tensor, weight_bits: int) -> nn.Module:
    """quantize_static: QDQ, per channel, min-max on the images, 8-bit activations, weights of 8 bits or QInt4."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, ready, done = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        torch.onnx.export(
            network, (images[:2],), str(plain), dynamo=False, opset_version=17, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
        if weight_bits == 4:  # 4-bit integers came with opset 21
            onnx.save(onnx.version_converter.convert_version(onnx.load(plain), 21), plain)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready), str(done), _Reader(images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt4 if weight_bits == 4 else QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, extra_options={"ActivationSymmetric": False},
        )  # fmt: skip
        return OrtNetwork(done)


class _Reader:
    """Calibration images in batches, in the interface of ONNX Runtime."""

    def __init__(self, images: Tensor) -> None:
        self.batches = iter(images.split(64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch.contiguous().numpy()}


def torchao_pt2e(network: nn.Module, images: Tensor, bits: Bits) -> nn.Module:
    """prepare_pt2e and convert_pt2e, X86 Inductor quantizer: per-channel symmetric weights, histogram ranges."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=2, max=4096)
        exported = torch.export.export(network, (images[:8],), dynamic_shapes=({0: batch},)).module()
        schemes = list(bits.values())
        common = max(set(schemes), key=schemes.count)
        quantizer = X86InductorQuantizer().set_global(_config(common))
        for name, scheme in bits.items():
            if scheme != common:
                quantizer.set_module_name_qconfig(name, _config(scheme))
        prepared = prepare_pt2e(exported, quantizer)
        for part in images.split(256):
            prepared(part)
        converted = convert_pt2e(prepared)
        move_exported_model_to_eval(converted)
    return converted


def _config(bits: LayerBits) -> Any:
    """The quantizer's default configuration with other bit-widths; low bits are values within int8 and uint8."""
    from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    assert bits.weight is not None
    assert bits.activation is not None
    largest = 2 ** (bits.weight - 1) - 1
    activation = QuantizationSpec(
        dtype=torch.uint8, quant_min=0, quant_max=2**bits.activation - 1, qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=2**-12),
    )  # fmt: skip
    weight = QuantizationSpec(
        dtype=torch.int8, quant_min=-largest, quant_max=largest, qscheme=torch.per_channel_symmetric, ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
    )  # fmt: skip
    return QuantizationConfig(activation, activation, weight, None, False)
