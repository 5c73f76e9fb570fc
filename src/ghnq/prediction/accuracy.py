"""The accuracy of one network, as a count of images.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ghnq.data import ImageDataset, Images
from ghnq.prediction.inference import BATCH_SIZE


@dataclass(frozen=True)
class Count:
    """How many images were classified correctly, and for how many a logit was NaN or infinite."""

    correct: int
    nonfinite: int


@torch.inference_mode()
def count_correct(network: nn.Module, dataset: ImageDataset, images: Images) -> Count:
    """Classifies images with a network in eval mode: normalised images [B, C, H, W] -> logits [B, K].

    An image with a NaN or infinite logit counts as wrong. Of equal largest logits the first class is taken.
    """
    correct = nonfinite = 0
    for start in range(0, len(images), BATCH_SIZE):
        logits = network(dataset.normalise(images.pixels[start : start + BATCH_SIZE]))
        finite = logits.isfinite().all(1)
        right = (logits.argmax(1) == images.labels[start : start + BATCH_SIZE]) & finite
        correct += int(right.sum())
        nonfinite += int((~finite).sum())
    return Count(correct, nonfinite)
