"""Counting correct answers, with networks whose logits are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.prediction.accuracy import count_correct
from ghnq.prediction.inference import BATCH_SIZE


class ReturnsFirstPixel(nn.Module):
    """Logits that are largest for the class in the first pixel; some are broken on purpose."""

    def __init__(self, dataset: ImageDataset, broken: float = 0.0) -> None:
        super().__init__()
        self.dataset, self.broken = dataset, broken

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) <= BATCH_SIZE
        first = (x[:, 0, 0, 0] * self.dataset.std[0] + self.dataset.mean[0]).mul(255).round().long()
        logits = nn.functional.one_hot(first, 10).float()
        if self.broken:
            logits[first == 3, 3] = self.broken  # argmax would still be 3
            logits[first == 4, 9] = -self.broken
        return logits


def answers(count: int) -> ImageDataset:
    """Images whose first pixel is a class number, right for every image but each seventh."""
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(count) % 10
    classes = torch.where(torch.arange(count) % 7 == 0, (labels + 1) % 10, labels)
    pixels[:, 0, 0, 0] = classes.to(torch.uint8)
    images = Images(pixels, labels)
    return ImageDataset.build("answers", images, images, tuple("abcdefghij"), flip=False)


@pytest.mark.parametrize("count", [1, 7, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 2 * BATCH_SIZE + 13])
def test_every_image_is_counted_once(count: int) -> None:
    dataset = answers(count)
    right = sum(index % 7 != 0 for index in range(count))
    result = count_correct(ReturnsFirstPixel(dataset), dataset, dataset.test)
    assert (result.correct, result.nonfinite) == (right, 0)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_nonfinite_logits_count_as_wrong_and_are_counted(broken: float) -> None:
    dataset = answers(700)
    classes = dataset.test.pixels[:, 0, 0, 0]
    affected = (classes == 3) | (classes == 4)
    result = count_correct(ReturnsFirstPixel(dataset, broken), dataset, dataset.test)
    assert result.nonfinite == int(affected.sum())
    assert result.correct == int(((classes == dataset.test.labels) & ~affected).sum())
