"""The head of a classifier: the last linear layer or convolution, of which the logits are an affine function.

The logits must be `features @ weight.T + bias`, up to a number that all classes of an image share (a log-softmax
subtracts one). Features are the input of the layer; where its output is averaged over positions (a 1x1 convolution
before global pooling, a linear layer on tokens), they are the mean over positions. Whether that holds is found out by
running the network with random heads, not from its code, so that it holds for the data flow as it is.

Dimensions: B images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.finetune.ridge import LinearClassifier
from ghnq.torch_compat import ConvNd

_TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order


@dataclass(frozen=True, eq=False)
class Head:
    """The head of a network.

    Attributes:
        name: Of the layer.
        layer: The layer itself.
    """

    name: str
    layer: nn.Linear | ConvNd

    @classmethod
    def of(cls, network: nn.Module, name: str) -> Self:
        """Returns the layer of that name as a head, which it must be."""
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear | ConvNd)
        return cls(name, layer)

    @property
    def weight(self) -> Tensor:
        """The weight as a matrix [K, D], a view."""
        return self.layer.weight.detach().flatten(1)

    @torch.no_grad()
    def replace(self, classifier: LinearClassifier) -> None:
        """Writes a solved classifier into the layer, in place.

        Raises:
            GraphError: The layer has another number of outputs.
        """
        weight = self.layer.weight
        if len(weight) != len(classifier.weight):
            raise GraphError(f"'{self.name}' has {len(weight)} outputs, but there are {len(classifier.weight)} classes")
        weight.copy_(classifier.weight.view_as(weight))
        if self.layer.bias is not None:
            self.layer.bias.copy_(classifier.bias)

    def features(self, inputs: Tensor) -> Tensor:
        """Returns the features [B, D] of an input of the layer.

        Raises:
            ValueError: The layer does more than a linear layer; the message says what.
        """
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return inputs.flatten(1, -2).mean(1) if inputs.dim() > 2 else inputs
        if layer.groups != 1 or any(padding != 0 for padding in layer.padding):
            raise ValueError("is a convolution with groups or padding")
        if tuple(inputs.shape[2:]) == tuple(layer.kernel_size):
            return inputs.flatten(1)
        if any(size != 1 for size in layer.kernel_size):
            raise ValueError(f"is a convolution with a kernel of {'x'.join(map(str, layer.kernel_size))} positions")
        for dim, stride in enumerate(layer.stride, start=2):
            inputs = inputs[(slice(None),) * dim + (slice(None, None, stride),)]
        return inputs.flatten(2).mean(2)


@torch.no_grad()
def find_head(network: nn.Module, images: Tensor) -> Head:
    """Returns the head of a network in eval mode, which is left as it was.

    Args:
        network: With finite parameters.
        images: A few normalised images [B, C, H, W].

    Raises:
        GraphError: There is none; the message says why the last layer is not.
    """
    order = _layers_by_last_call(network, images)
    if not order:
        raise GraphError(
            "the head cannot be solved: the network calls no nn.Linear or nn.Conv layer; write its last layer as one"
        )
    refusals = []
    for name in reversed(order):
        head = Head.of(network, name)
        refusal = _refusal(network, head, images)
        if not refusal:
            return head
        refusals.append(f"'{name}' {refusal}")
    raise GraphError(
        f"the head cannot be solved: {refusals[0]}. The logits must be the output of the last nn.Linear or 1x1 "
        "convolution, or its mean over positions; move what follows (softmax, an activation) out of the network"
    )


@torch.no_grad()
def features_of(network: nn.Module, head: Head, batches: Iterator[Tensor]) -> Tensor:
    """Returns the features [B, D] of normalised images, by a network in eval mode."""
    found: list[Tensor] = []
    with _watching(head.layer, lambda inputs: found.append(head.features(inputs).detach().clone())):
        for batch in batches:
            network(batch)
    return torch.cat(found)


def _layers_by_last_call(network: nn.Module, images: Tensor) -> list[str]:
    """Returns the names of the linear layers and convolutions that run, ordered by their last call."""
    names: dict[str, None] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            names.pop(name, None)
            names[name] = None

        return hook

    handles = [
        child.register_forward_hook(watch(name))
        for name, child in network.named_modules()
        if isinstance(child, nn.Linear | ConvNd)
    ]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return list(names)


def _refusal(network: nn.Module, head: Head, images: Tensor) -> str:
    """Returns why a layer is not the head; empty if it is. The layer's values are random inside."""
    own = [head.layer.weight] + ([] if head.layer.bias is None else [head.layer.bias])
    if not all(isinstance(tensor, nn.Parameter) for tensor in own) or hasattr(head.layer, "parametrizations"):
        return "has a weight or bias that is computed from others"
    before = [tensor.detach().clone() for tensor in own]
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []
    try:
        for _ in range(2):
            for tensor in own:
                tensor.normal_(generator=generator)
            calls: list[Tensor] = []
            with _watching(head.layer, calls.append):
                logits = network(images)
            if len(calls) != 1:
                return f"is called {len(calls)} times"
            seen.append(head.features(calls[0]).double())
            if refusal := _differs(logits, head, seen[-1]):
                return refusal
    except ValueError as error:
        return str(error)
    finally:
        for tensor, value in zip(own, before, strict=True):
            tensor.copy_(value)
    return "" if torch.equal(*seen) else "shares its weight with a layer before it"


def _differs(logits: object, head: Head, features_BD: Tensor) -> str:
    """Returns how the logits differ from those of a linear layer; empty if they do not."""
    weight = head.weight.double()
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (len(features_BD), len(weight)):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        return f"has {len(weight)} outputs, and the network returns {shape}"
    expected = features_BD @ weight.T
    if head.layer.bias is not None:
        expected = expected + head.layer.bias.double()
    difference = logits.double() - expected
    difference = difference - difference.mean(1, keepdim=True)
    close = float(difference.abs().max()) <= _TOLERANCE * float(expected.abs().max().clamp(min=1e-6))
    return "" if close else "is the last layer, but the network changes its output before it returns it"


@contextmanager
def _watching(layer: nn.Module, take: Callable[[Tensor], object]) -> Iterator[None]:
    """Passes the input of each call of a layer to a function."""
    handle = layer.register_forward_pre_hook(lambda _, args, kwargs: _pass(take, args, kwargs), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _pass(take: Callable[[Tensor], object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    inputs = args[0] if args else next(iter(kwargs.values()))
    assert isinstance(inputs, Tensor)
    take(inputs)
