"""Arguments of another type end in an error that says what is taken, whatever public function they are given to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import ghnq


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


@pytest.fixture(scope="module")
def ghn() -> ghnq.GHN:
    return ghnq.GHN.from_pretrained("digits")


IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (IMAGES.to_sparse(), "must be a dense tensor, got one of layout torch.sparse_coo"),
        (IMAGES.to("meta"), "must be a dense tensor, got one on the meta device, without values"),
        (IMAGES.numpy(), r"must be images \[B, C, H, W\], got ndarray"),
        (IMAGES.to(torch.complex64), "must be normalised floats, got torch.complex64"),
        ((IMAGES * 9).to(torch.uint8), "must be normalised floats, got torch.uint8"),
        (None, r"must be images \[B, C, H, W\], got NoneType"),
    ],
)
def test_calibration_images(network: nn.Module, images: torch.Tensor, says: str) -> None:
    with pytest.raises(ghnq.DataError, match=says):
        ghnq.quantize(network, "w8a8", calibration=images)


@pytest.mark.parametrize("scheme", [8, None, ("w8a8",), b"w8a8", Path("w8a8")])
def test_schemes(network: nn.Module, scheme: str) -> None:
    with pytest.raises(ghnq.SchemeError, match=f"text such as 'w8a8', or a QuantScheme, got {type(scheme).__name__}"):
        ghnq.quantize(network, scheme, calibration=IMAGES)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, ghn: ghnq.initialize(net, "digits"), r"initialize\(\) takes a GHN, got str: ghnq.GHN.from_pre"),
        (lambda net, ghn: ghnq.transfer(net, "digits", None), r"transfer\(\) takes a GHN, got str"),
        (lambda net, ghn: ghnq.transfer(net, ghn, "digits"), r"transfer\(\) takes an ImageDataset, got str: ghnq.load"),
        (lambda net, ghn: ghnq.score(net, "digits"), r"score\(\) takes an ImageDataset, got str"),
        (lambda net, ghn: ghn.predict(net), r"predict\(\) takes an ArchGraph, got Sequential: ghnq.trace"),
        (lambda net, ghn: ghnq.trace(net, IMAGES), r"input_shape is a tensor; .* of these images \(1, 8, 8\)"),
        (lambda net, ghn: ghnq.load_dataset("digits", image_size="8"), "image_size is '8'; it must be an integer"),
        (lambda net, ghn: ghnq.load_dataset("digits", image_size=8.5), "image_size is 8.5; it must be an integer"),
        (lambda net, ghn: ghnq.load_dataset("digits", holdout="0.2"), "holdout is '0.2'; it must be a number"),
        (lambda net, ghn: ghnq.load_dataset("digits", holdout=True), "holdout is True; it must be a number"),
    ],
)
def test_other_arguments(
    network: nn.Module, ghn: ghnq.GHN, call: Callable[[nn.Module, ghnq.GHN], object], says: str
) -> None:
    with pytest.raises(ghnq.GhnqError, match=says):
        call(network, ghn)
