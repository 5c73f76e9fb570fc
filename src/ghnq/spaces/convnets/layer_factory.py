"""Convolutions, batch norms and linear layers: as PyTorch's constructors make them, or on `meta`, five times faster.

Training builds hundreds of architectures per second only to read their shapes. On `meta`, PyTorch's constructors spend
most of their time on initialising tensors without storage. `MetaLayerFactory` runs each constructor once per kind of
layer and copies the result, so that class, attributes and state names are PyTorch's own, whatever its version.
"""

from __future__ import annotations

from functools import cache
from typing import Generic, TypeVar

import torch
from torch import nn

from ghnq.torch_compat import own_buffers, own_parameters

Pair = tuple[int, int]
_META = torch.device("meta")
M = TypeVar("M", bound=nn.Module)


class LayerFactory:
    """Makes the parameterised layers of one network.

    Args:
        norm: Whether convolutions are followed by batch norms.
        device: Of the parameters; None is PyTorch's default.
        running_statistics: Whether batch norms keep running statistics; if not, they always use the batch's.
    """

    def __init__(self, *, norm: bool, device: torch.device | None, running_statistics: bool) -> None:
        self.norm = norm
        self.device = device
        self.running_statistics = running_statistics

    def conv(
        self, inputs: int, outputs: int, kernel: Pair, *, stride: Pair, dilation: int, groups: int, bias: bool
    ) -> nn.Conv2d:
        """A convolution padded such that stride 1 keeps height and width; He-initialised."""
        layer = nn.Conv2d(
            inputs, outputs, kernel, stride, _padding(kernel, dilation), dilation, groups, bias, device=self.device
        )
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    def batch_norm(self, channels: int) -> nn.BatchNorm2d:
        """A batch norm over `channels`."""
        return nn.BatchNorm2d(channels, track_running_stats=self.running_statistics, device=self.device)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer with bias."""
        return nn.Linear(inputs, outputs, device=self.device)


class MetaLayerFactory(LayerFactory):
    """The same layers on `meta`, uninitialised."""

    def __init__(self, *, norm: bool, running_statistics: bool) -> None:
        super().__init__(norm=norm, device=_META, running_statistics=running_statistics)

    def conv(
        self, inputs: int, outputs: int, kernel: Pair, *, stride: Pair, dilation: int, groups: int, bias: bool
    ) -> nn.Conv2d:
        """A convolution on `meta`."""
        layer = _conv_template(kernel, stride, dilation, bias).copy_with(
            in_channels=inputs, out_channels=outputs, groups=groups
        )
        own_parameters(layer)["weight"] = _parameter(outputs, inputs // groups, *kernel)
        if bias:
            own_parameters(layer)["bias"] = _parameter(outputs)
        return layer

    def batch_norm(self, channels: int) -> nn.BatchNorm2d:
        """A batch norm on `meta`."""
        layer = _norm_template(self.running_statistics).copy_with(num_features=channels)
        own_parameters(layer)["weight"] = _parameter(channels)
        own_parameters(layer)["bias"] = _parameter(channels)
        if self.running_statistics:
            own_buffers(layer)["running_mean"] = torch.empty(channels, device=_META)
            own_buffers(layer)["running_var"] = torch.empty(channels, device=_META)
            own_buffers(layer)["num_batches_tracked"] = torch.empty((), dtype=torch.long, device=_META)
        return layer

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer on `meta`."""
        layer = _linear_template().copy_with(in_features=inputs, out_features=outputs)
        own_parameters(layer)["weight"] = _parameter(outputs, inputs)
        own_parameters(layer)["bias"] = _parameter(outputs)
        return layer


class _LayerTemplate(Generic[M]):
    """Makes copies of a layer, each with containers of its own for parameters, buffers and hooks."""

    def __init__(self, layer: M) -> None:
        self.cls = layer.__class__
        self.state = dict(layer.__dict__)
        self.containers = [(key, value) for key, value in self.state.items() if isinstance(value, dict | set)]

    def copy_with(self, **attributes: int) -> M:
        """Returns a copy with other attributes; its tensors are those of the template, and the caller replaces them."""
        layer = self.cls.__new__(self.cls)
        state = self.state.copy()
        for key, container in self.containers:
            state[key] = container.copy()
        state.update(attributes)
        object.__setattr__(layer, "__dict__", state)
        return layer


def _padding(kernel: Pair, dilation: int) -> Pair:
    return kernel[0] // 2 * dilation, kernel[1] // 2 * dilation


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device=_META))


@cache
def _conv_template(kernel: Pair, stride: Pair, dilation: int, bias: bool) -> _LayerTemplate[nn.Conv2d]:
    return _LayerTemplate(nn.Conv2d(1, 1, kernel, stride, _padding(kernel, dilation), dilation, 1, bias, device=_META))


@cache
def _norm_template(running_statistics: bool) -> _LayerTemplate[nn.BatchNorm2d]:
    return _LayerTemplate(nn.BatchNorm2d(1, track_running_stats=running_statistics, device=_META))


@cache
def _linear_template() -> _LayerTemplate[nn.Linear]:
    return _LayerTemplate(nn.Linear(1, 1, device=_META))
