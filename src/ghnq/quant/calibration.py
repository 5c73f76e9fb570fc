"""Statistics from calibration images: batch-norm mean and variance, and activation ranges.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from ghnq.errors import DataError, NotFiniteError
from ghnq.quant.batch_statistics import BatchStatistics, PooledStatistics
from ghnq.quant.entry import as_network, take_network
from ghnq.quant.eval_mode import eval_mode
from ghnq.quant.quantized_layers import QuantLayer
from ghnq.quant.ranges import ActivationObserver
from ghnq.torch_compat import BatchNorm


def check_images(network: nn.Module, images: Tensor) -> Tensor:
    """Returns calibration images [B, C, H, W] in the dtype and on the device of the network.

    Raises:
        DataError: The images are not a dense float tensor of four dimensions, fewer than two, or not finite.
    """
    if not isinstance(images, Tensor) or images.dim() != 4:
        given = f"a tensor of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"calibration must be images [B, C, H, W], got {given}")
    if images.layout is not torch.strided or images.is_meta:
        kind = "on the meta device, without values" if images.is_meta else f"of layout {images.layout}"
        raise DataError(f"calibration images must be a dense tensor, got one {kind}")
    if not images.is_floating_point():
        raise DataError(
            f"calibration images must be normalised floats, got {images.dtype}: normalise them as in training"
        )
    if len(images) < 2 or images.numel() == 0:
        raise DataError(f"calibration needs at least 2 images (512 are usual), got shape {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise DataError("calibration images contain NaN or infinite values")
    return as_network(network, images)


def batches(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Splits images evenly into batches of about `batch_size`, of at least two images each, as batch norm needs them.

    Raises:
        DataError: `batch_size` is less than 2.
    """
    if batch_size < 2:
        raise DataError(f"batch_size must be at least 2, got {batch_size}")
    count = max(1, min(math.ceil(len(images) / batch_size), len(images) // 2))
    yield from images.tensor_split(count)


def estimate_batch_norm(module: nn.Module, images: Tensor, batch_size: int = 256) -> nn.Module:
    """Returns a copy in eval mode whose batch norms have the statistics of calibration images [B, C, H, W].

    During the estimation, each batch is normalised with its own statistics. The running statistics become the mean and
    the unbiased variance over all input values of the norm, pooled over batches (not an average of batch variances), so
    that they do not depend on the batch size for norms whose input does not depend on other norms. Norms without
    running statistics get them.

    Raises:
        DataError: `check_images` refuses the images.
    """
    network = take_network(module, "estimate_batch_norm")
    estimate_in_place(network, check_images(network, images), batch_size)
    return network


@torch.no_grad()
def estimate_in_place(
    network: nn.Module, images: Tensor, batch_size: int, *, keep: Collection[nn.Module] = (), keep_buffers: bool = False
) -> list[tuple[str, str]]:
    """Does what `estimate_batch_norm` does, in place, with images that are checked already.

    Args:
        keep: Norms that keep the running statistics that they have, and normalise with them.
        keep_buffers: Whether the same holds for buffers with which the network calls `F.batch_norm` itself.

    Returns:
        Names of such buffers, mean and variance, that were estimated.
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm) and module not in keep]
    buffers = {} if keep_buffers else _buffers_beside_norms(network)
    if not norms and not buffers:
        return []
    with eval_mode(network):
        momenta = {norm: norm.momentum for norm in norms}
        for norm in norms:
            _add_running_statistics(norm)
            norm.train()
            norm.momentum = 1.0  # so that the running statistics are those of the last batch
        means = [norm.running_mean for norm in norms if isinstance(norm.running_mean, Tensor)]
        observed = BatchStatistics([*means, *buffers.values()])
        handles = [norm.register_forward_hook(observed.after_norm) for norm in norms]
        try:
            with observed:
                for batch in batches(images, batch_size):
                    network(batch)
        finally:
            for handle in handles:
                handle.remove()
            for norm in norms:
                norm.momentum = momenta[norm]
                _store(observed.of(norm), norm)
    return _store_buffers(network, buffers, observed)


def _buffers_beside_norms(network: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers [C] that may be running means of an `F.batch_norm` that is called without a norm module."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in network.named_modules()
        if not isinstance(module, BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.dim() == 1 and buffer.is_floating_point()
    }


def norms_with_statistics(network: nn.Module) -> set[nn.Module]:
    """Returns the batch norms that have running statistics."""
    norms = (module for module in network.modules() if isinstance(module, BatchNorm))
    return {norm for norm in norms if norm.running_mean is not None and norm.running_var is not None}


def _add_running_statistics(norm: BatchNorm) -> None:
    """Adds running statistics to a norm that has none: batch statistics at test time cannot be deployed."""
    if norm.running_mean is None or norm.running_var is None:
        like = next(iter(norm.parameters()), None)
        mean = torch.zeros(norm.num_features) if like is None else like.new_zeros(norm.num_features)
        norm.register_buffer("running_mean", mean)
        norm.register_buffer("running_var", torch.ones_like(mean))
        norm.register_buffer("num_batches_tracked", torch.tensor(0))
    norm.track_running_stats = True


def _store(statistics: PooledStatistics | None, norm: BatchNorm) -> None:
    """Writes the statistics into the norm; a norm that did not run keeps its own."""
    if statistics is not None:
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        statistics.store(norm.running_mean, norm.running_var)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(statistics.runs)


def _store_buffers(network: nn.Module, buffers: dict[str, Tensor], observed: BatchStatistics) -> list[tuple[str, str]]:
    """Writes the statistics of norms without a module into their buffers, and returns the names of these."""
    names = {id(buffer): name for name, buffer in network.named_buffers()}
    stored = []
    for name, mean in buffers.items():
        if id(mean) in observed.pooled:
            variance = observed.variances[id(mean)]
            observed.pooled[id(mean)].store(mean, variance)
            if id(variance) in names:
                stored.append((name, names[id(variance)]))
    return stored


@torch.no_grad()
def fix_activation_ranges(network: nn.Module, images: Tensor, batch_size: int) -> None:
    """Fixes the input range of every quantized layer, in place, by running the images [B, C, H, W] once.

    Weights are quantized in that run, activations are not. Layers with the same input get equal ranges.

    Raises:
        NotFiniteError: The input of a layer is NaN or infinite; the message names the layer.
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
