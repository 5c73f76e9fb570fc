"""Quantization: schemes, fake quantization, calibration, folding, post-training steps."""

from __future__ import annotations

from ghnq.quant.affine import fake_quantize as fake_quantize
from ghnq.quant.affine import scale_zero_point as scale_zero_point
from ghnq.quant.bias_correction import correct_bias as correct_bias
from ghnq.quant.bit_widths import LayerBits as LayerBits
from ghnq.quant.calibration import estimate_batch_norm as estimate_batch_norm
from ghnq.quant.dynamic_ranges import fake_quantize_activation as fake_quantize_activation
from ghnq.quant.dynamic_ranges import fake_quantize_weight as fake_quantize_weight
from ghnq.quant.equalization import equalize as equalize
from ghnq.quant.folding import fold_batch_norm as fold_batch_norm
from ghnq.quant.pipeline import Prepared as Prepared
from ghnq.quant.pipeline import prepare as prepare
from ghnq.quant.quantization import quantize as quantize
from ghnq.quant.quantized_layers import QuantLayer as QuantLayer
from ghnq.quant.scheme import POST_TRAINING_STEPS as POST_TRAINING_STEPS
from ghnq.quant.scheme import PROTOCOLS as PROTOCOLS
from ghnq.quant.scheme import QuantScheme as QuantScheme
from ghnq.quant.scheme_file import dump_scheme as dump_scheme
from ghnq.quant.scheme_file import load_scheme as load_scheme
from ghnq.quant.scheme_file import read_scheme as read_scheme
from ghnq.quant.scheme_file import scheme_from_text as scheme_from_text
from ghnq.quant.scheme_mapping import is_scheme_file as is_scheme_file
from ghnq.quant.squant import squant as squant
from ghnq.quant.trainable import TrainableNetwork as TrainableNetwork
