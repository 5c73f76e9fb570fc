"""Statistics from calibration images: batch-norm mean and variance, and activation ranges.

Legend: B images, C channels.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.errors import DataError, NotFiniteError
from ghnq.quant.eval_mode import eval_mode
from ghnq.quant.quantized_layers import QuantLayer
from ghnq.quant.ranges import ActivationObserver
from ghnq.torch_compat import BatchNorm


def check_images(network: nn.Module, images: Tensor) -> Tensor:
    """Returns calibration images [B, C, H, W] in the dtype and on the device of the network.

    Raises:
        DataError: not a float tensor of four dimensions, fewer than two images, or NaN or infinity among them.
    """
    if not isinstance(images, Tensor) or images.dim() != 4:
        came = f"a tensor of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"calibration must be images [B, C, H, W], got {came}")
    if not images.is_floating_point():
        raise DataError(
            f"calibration images must be normalised floats, got {images.dtype}: normalise them as in training"
        )
    if len(images) < 2 or images.numel() == 0:
        raise DataError(f"calibration needs at least 2 images (512 are usual), got shape {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise DataError("calibration images hold NaN or infinite values")
    like = next((p for p in network.parameters() if p.is_floating_point()), None)
    return images if like is None else images.to(device=like.device, dtype=like.dtype)


def batches(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Splits images evenly into batches of about `batch_size`; never a batch of one, which batch norm cannot take."""
    if batch_size < 2:
        raise DataError(f"batch_size must be at least 2, got {batch_size}")
    count = max(1, min(math.ceil(len(images) / batch_size), len(images) // 2))
    yield from images.tensor_split(count)


def estimate_batch_norm(module: nn.Module, images: Tensor, batch_size: int = 256) -> nn.Module:
    """Returns a copy in eval mode whose batch norms hold the statistics of calibration images [B, C, H, W].

    While the images run, each batch is normalised with its own statistics. What each norm keeps is the mean and the
    unbiased variance over all values it saw, pooled over batches (not an average of batch variances), so for norms
    whose input does not depend on other norms the result is exact whatever the batch size. Norms without running
    statistics get them.

    Raises:
        DataError: unusable images.
    """
    network = copy.deepcopy(module).eval()
    estimate_in_place(network, check_images(network, images), batch_size)
    return network


@torch.no_grad()
def estimate_in_place(network: nn.Module, images: Tensor, batch_size: int) -> None:
    """`estimate_batch_norm` for callers that own the network and have checked the images."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    with eval_mode(network):
        handles = []
        pools = {norm: _Pool() for norm in norms}
        kept = {norm: norm.momentum for norm in norms}
        for norm in norms:
            _track(norm)
            norm.train()
            norm.momentum = 1.0  # so that the running statistics are those of the last batch
            handles.append(norm.register_forward_hook(pools[norm].hook))
        try:
            for batch in batches(images, batch_size):
                network(batch)
        finally:
            for handle in handles:
                handle.remove()
            for norm in norms:
                norm.momentum = kept[norm]
                pools[norm].store(norm)


def _track(norm: BatchNorm) -> None:
    """Gives a norm without running statistics its buffers: batch statistics at test time cannot be deployed."""
    if norm.running_mean is None or norm.running_var is None:
        like = next(iter(norm.parameters()), None)
        options: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
        norm.register_buffer("running_mean", torch.zeros(norm.num_features, **options))
        norm.register_buffer("running_var", torch.ones(norm.num_features, **options))
        norm.register_buffer("num_batches_tracked", torch.tensor(0))
    norm.track_running_stats = True


class _Pool:
    """Mean and squared deviations of all values a norm saw, merged batch by batch (Chan et al. 1979), float64."""

    def __init__(self) -> None:
        self.count, self.calls = 0, 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def hook(self, norm: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        count = output.numel() // output.shape[1]
        total = self.count + count
        step = norm.running_mean.double() - self.mean
        self.squares = self.squares + norm.running_var.double() * (count - 1) + step**2 * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count, self.calls = total, self.calls + 1

    def store(self, norm: BatchNorm) -> None:
        if self.calls:  # a norm that never ran keeps what it had
            assert isinstance(norm.running_mean, Tensor)
            assert isinstance(norm.running_var, Tensor)
            assert isinstance(self.squares, Tensor)
            norm.running_mean.copy_(torch.as_tensor(self.mean))
            norm.running_var.copy_(self.squares / (self.count - 1))
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(self.calls)


@torch.no_grad()
def fix_activation_ranges(network: nn.Module, images: Tensor, batch_size: int) -> None:
    """Fixes, in place, the input range of every quantized layer from the images, run once with the weights quantized.

    Layers that read the same tensor observe it separately and get equal ranges.

    Raises:
        NotFiniteError: a layer's input is NaN or infinite; the message names the layer.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, QuantLayer) and module.bits.activation is not None
    }
    if not layers:
        return
    try:
        for layer in layers.values():
            assert layer.bits.activation is not None
            layer.observer = ActivationObserver(layer.bits.activation, layer.scheme.activation_range)
        for batch in batches(images, batch_size):
            network(batch)
        for name, layer in layers.items():
            assert layer.observer is not None
            low, high = layer.observer.range()
            if not bool((low.isfinite() & high.isfinite()).all()):
                raise NotFiniteError(
                    f"layer {name!r}: its input on the calibration images ranges from {low.item()} to {high.item()}; "
                    "the network must stay finite to be quantized"
                )
            layer.fix_input_range(low, high)
    finally:
        for layer in layers.values():
            layer.observer = None
