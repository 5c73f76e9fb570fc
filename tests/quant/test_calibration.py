"""Statistics and ranges from images against numpy over all images at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghnq.errors import DataError
from ghnq.quant import estimate_batch_norm
from ghnq.quant.calibration import batches
from tests.quant.nets import images, network


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(dim=1), values.var(dim=1)


@pytest.mark.parametrize("batch_size", [2, 7, 16, 64, 1000])
def test_one_norm_is_exact_at_any_batch_size(batch_size: int) -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), images(50)
    norm = estimate_batch_norm(net, x, batch_size)[1]
    with torch.no_grad():
        mean, var = moments(net[0](x))
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-5, atol=1e-6)


def test_one_batch_equals_batch_statistics() -> None:
    """With all images in one batch, eval mode then equals batch-statistics mode up to the unbiased variance."""
    net, x = network().double(), images(32).double()
    estimated = estimate_batch_norm(net, x, batch_size=32)
    with torch.no_grad():
        for name, norm in estimated.named_modules():
            if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
                assert norm.running_var is not None
                count = 32 if name == "9" else None
                if count:  # exact once the bias of the variance is taken out
                    norm.running_var.mul_((count - 1) / count)
        expected = net.train()(x)
        torch.testing.assert_close(estimated(x), expected, rtol=0.02, atol=0.02)


def test_a_norm_that_runs_twice() -> None:
    norm = nn.BatchNorm2d(3)
    x = images(20)
    net = nn.Sequential(norm, nn.Hardtanh(-0.5, 2), norm)
    estimated = estimate_batch_norm(net, x, batch_size=20)[0]
    with torch.no_grad():
        first = nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        mean, var = moments(torch.cat([x, nn.functional.hardtanh(first, -0.5, 2)]))
    torch.testing.assert_close(estimated.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(estimated.running_var.double(), var, rtol=1e-4, atol=1e-5)


def test_a_norm_without_running_statistics_gets_them() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False, affine=False))
    estimated = estimate_batch_norm(net, images(8), 4)
    assert net[0].running_mean is None
    mean, _ = moments(images(8))
    torch.testing.assert_close(estimated[0].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # one image alone is possible now, and does not look at its neighbours
        torch.testing.assert_close(estimated(images(8)[:1]), estimated(images(8))[:1])


def test_the_network_and_the_momentum_are_not_changed() -> None:
    net = network().train()
    net[1].momentum = 0.3
    before = {name: value.clone() for name, value in net.state_dict().items()}
    estimated = estimate_batch_norm(net, images(8), 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not estimated.training
    assert not any(child.training or child._forward_hooks for child in estimated.modules())
    assert estimated[1].momentum == 0.3


@pytest.mark.parametrize(("count", "size"), [(3, 2), (5, 2), (9, 4), (257, 256), (2, 256), (512, 256)])
def test_batches_have_every_image_once_and_at_least_two(count: int, size: int) -> None:
    x = torch.arange(count)
    parts = list(batches(x, size))
    assert torch.equal(torch.cat(parts), x)
    assert all(2 <= len(part) <= size + 1 for part in parts)


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (torch.zeros(3, 16, 16), r"\(3, 16, 16\)"),
        (torch.zeros(4, 768), r"\[B, C, H, W\]"),
        ([1, 2], "list"),
        (torch.zeros(0, 3, 16, 16), "at least 2"),
        (torch.zeros(1, 3, 16, 16), "at least 2"),
        (torch.zeros(4, 3, 0, 16), r"\(4, 3, 0, 16\)"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "uint8"),
        (torch.full((4, 3, 16, 16), float("nan")), "NaN"),
        (torch.full((4, 3, 16, 16), float("-inf")), "infinite"),
    ],
)
def test_invalid_images_are_refused(bad: torch.Tensor, part: str) -> None:
    with pytest.raises(DataError, match=part):
        estimate_batch_norm(network(), bad)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(DataError, match="batch_size"):
        estimate_batch_norm(network(), images(4), batch_size=1)
