"""Standardised convolutions: what takes the place of norms in a network that has none.

Predicted weights of a network without norms are of the right size only roughly, and the error grows from layer to
layer. So the output of every convolution that meets no norm is brought to mean 0 and variance 1, channel by channel, on
calibration images (data-dependent initialisation, Krähenbühl et al. 2016, arXiv 1511.06856, Eq. 4): a batch norm
without scale and shift is attached to the layer, calibrated like any other, and folded into weight and bias.

A convolution whose output goes straight into another convolution or linear layer is left as it is: the two are one
linear map, whose end is standardised.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.torch_compat import BatchNorm, ConvNd, remove_forward_hook, tree_leaves

NAME = "standardisation"
"""The name under which a layer holds its norm."""
_NORM_FUNCTIONS = frozenset(
    ["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"]
)
_NORMS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


@torch.no_grad()
def unnormalised_layers(network: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Returns the names of the convolutions that run once and whose output meets no norm, in module order.

    An output meets a norm if it reaches one, through whatever functions, before another convolution or linear layer.
    The network runs once on the images, which may live on `meta`.
    """
    watch = _Watch(network)
    with _watching(network, watch), watch:
        network(images_BCHW)
    return watch.unnormalised()


def attach_norms(network: nn.Module, names: list[str]) -> None:
    """Gives these layers a batch norm without scale and shift, applied to their output; in place.

    The norms use the statistics of the batch until they are calibrated.
    """
    for name in names:
        layer = network.get_submodule(name)
        assert isinstance(layer, ConvNd)
        norm = next(norm for kind, norm in _NORMS.items() if isinstance(layer, kind))
        layer.add_module(NAME, norm(layer.out_channels, affine=False, track_running_stats=False).train(layer.training))
        layer.register_forward_hook(standardise)


def detach_norm(layer: nn.Module) -> None:
    """Takes from a layer what `attach_norms` gave it, once that is folded."""
    remove_forward_hook(layer, standardise)
    delattr(layer, NAME)


def standardise(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """The forward hook of a standardised layer."""
    return torch.as_tensor(layer.get_submodule(NAME)(output))


def pairs_of(names: list[str]) -> tuple[tuple[str, str], ...]:
    """The (layer, norm) pairs to fold."""
    return tuple((name, f"{name}.{NAME}") for name in names)


@contextmanager
def _watching(network: nn.Module, watch: _Watch) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(watch.enter) for module in network.modules()]
    handles += [module.register_forward_hook(watch.leave) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Follows the outputs of convolutions through functions, to norms and to the next layers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self.calls: defaultdict[nn.Module, int] = defaultdict(int)
        self.inside: list[nn.Module] = []
        self.sources: dict[int, frozenset[nn.Module]] = {}  # tensor -> convolutions whose output is on its way in it
        self.outputs: dict[int, nn.Module] = {}
        self.kept: list[Tensor] = []  # so that no id is used twice
        self.normalised: set[nn.Module] = set()
        self.read_by_layer: set[nn.Module] = set()
        self.read_by_function: set[nn.Module] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.inside or not isinstance(self.inside[-1], ConvNd | nn.Linear | BatchNorm):
            given = _tensors((args, kwargs))
            sources = frozenset().union(*(self.sources.get(id(x), frozenset()) for x in given))
            self.read_by_function |= {self.outputs[id(x)] for x in given if id(x) in self.outputs}
            if getattr(func, "__name__", "") in _NORM_FUNCTIONS:
                self.normalised |= sources
                sources = frozenset()
            if sources:
                for tensor in _tensors(result):
                    self._carry(tensor, sources)
        return result

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inside.append(module)
        self.calls[module] += 1
        for tensor in _tensors(args):
            if isinstance(module, BatchNorm):
                self.normalised |= self.sources.get(id(tensor), frozenset())
            elif isinstance(module, ConvNd | nn.Linear) and id(tensor) in self.outputs:
                self.read_by_layer.add(self.outputs[id(tensor)])

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.inside.pop()
        if isinstance(module, ConvNd) and isinstance(output, Tensor):
            self._carry(output, frozenset([module]))
            self.outputs[id(output)] = module

    def unnormalised(self) -> list[str]:
        """The answer, once the network has run."""
        part_of_the_next = self.read_by_layer - self.read_by_function
        return [
            name
            for module, name in self.names.items()
            if isinstance(module, ConvNd)
            and name
            and self.calls[module] == 1
            and module not in self.normalised
            and module not in part_of_the_next
        ]

    def _carry(self, tensor: Tensor, sources: frozenset[nn.Module]) -> None:
        self.sources[id(tensor)] = sources
        self.kept.append(tensor)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
