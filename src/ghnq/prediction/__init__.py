"""One network: an architecture, where its parameters come from, and the images it is calibrated with."""

from __future__ import annotations

from ghnq.prediction.accuracy import Count as Count
from ghnq.prediction.accuracy import count_correct as count_correct
from ghnq.prediction.dataset_fit import are_own_images as are_own_images
from ghnq.prediction.dataset_fit import check_dataset as check_dataset
from ghnq.prediction.dataset_fit import check_outputs as check_outputs
from ghnq.prediction.dataset_fit import dataset_for as dataset_for
from ghnq.prediction.dataset_fit import space_of as space_of
from ghnq.prediction.dataset_fit import warn_about_other_images as warn_about_other_images
from ghnq.prediction.inference import logits_of as logits_of
from ghnq.prediction.network import CALIBRATION_IMAGES as CALIBRATION_IMAGES
from ghnq.prediction.network import CALIBRATION_SEED as CALIBRATION_SEED
from ghnq.prediction.network import Network as Network
from ghnq.prediction.stored_weights import StoredWeights as StoredWeights
from ghnq.prediction.weights import PredictedWeights as PredictedWeights
from ghnq.prediction.weights import WeightSource as WeightSource
