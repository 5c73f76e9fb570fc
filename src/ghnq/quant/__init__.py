"""Quantization: schemes, straight-through simulation, calibration, folding."""

from ghnq.quant.calibrate import estimate_batch_norm as estimate_batch_norm
from ghnq.quant.dynamic import fake_quantize_activation as fake_quantize_activation
from ghnq.quant.dynamic import fake_quantize_weight as fake_quantize_weight
from ghnq.quant.fold import fold_batch_norm as fold_batch_norm
from ghnq.quant.layers import QuantLayer as QuantLayer
from ghnq.quant.pipeline import Prepared as Prepared
from ghnq.quant.pipeline import prepare as prepare
from ghnq.quant.pipeline import quantize as quantize
from ghnq.quant.scheme import PROTOCOLS as PROTOCOLS
from ghnq.quant.scheme import LayerBits as LayerBits
from ghnq.quant.scheme import QuantScheme as QuantScheme
from ghnq.quant.simulate import fake_quantize as fake_quantize
from ghnq.quant.simulate import scale_zero_point as scale_zero_point
