"""Statistics of norms at the end of a run: of the weights as they are then.

The running averages of training reach back some ten steps, over weights that were still changing, and in a run of few
steps a part of them is older than the run. So they are estimated anew, with the weights of the end (Wu and Johnson
2021, arXiv 2105.07576, section 3): on augmented images, through quantization, as in training.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ghnq.data import ImageDataset
from ghnq.finetune.job import Settings
from ghnq.finetune.learner import Learner
from ghnq.quant.calibration import estimate_in_place

MAX_IMAGES = 4096
MAX_VALUES = 2**27
"""Of large images, as many as have so many values together: half a gigabyte."""


def estimate_statistics(learner: Learner, step: int, max_images: int = MAX_IMAGES) -> None:
    """Estimates the statistics of all norms of the network in place, on the images that steps from `step` on would see.

    Every process that calls this gets the same, however many there are.
    """
    images = statistics_images(learner.dataset, learner.settings, step, max_images)
    estimate_in_place(learner.network.network, images, learner.settings.batch_size, keep_buffers=True)


def statistics_images(dataset: ImageDataset, settings: Settings, step: int, max_images: int = MAX_IMAGES) -> Tensor:
    """Returns the images [B, C, H, W]: whole batches, at least one."""
    batch = settings.batch_size
    images = min(max_images, MAX_VALUES // prod(dataset.input_shape))
    numbers = range(step, step + max(1, images // batch))
    return torch.cat([dataset.train_batch(number, batch, settings.seed)[0] for number in numbers])
