"""How good predicted networks are, in float and quantized: the protocol, its results, its reports."""

from ghnq.evaluation.protocol import CALIBRATION_IMAGES as CALIBRATION_IMAGES
from ghnq.evaluation.protocol import DEFAULT_SCHEMES as DEFAULT_SCHEMES
from ghnq.evaluation.protocol import evaluate as evaluate
from ghnq.evaluation.results import Results as Results
