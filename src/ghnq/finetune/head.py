"""The classification layer of a network: which one it is, what comes into it, and a new one in its place.

Dimensions: B images, C channels, H height, W width, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ghnq.errors import GraphError
from ghnq.finetune.ridge import LinearClassifier


@torch.no_grad()
def find_head(network: nn.Module, images_BCHW: Tensor) -> str:
    """Returns the name of the layer whose output, up to its shape, is the logits of two or more images.

    It is an `nn.Linear`, or a 1 x 1 convolution at the end.

    Raises:
        GraphError: There is none: the network does something else with the output of its last layer.
    """
    outputs: list[tuple[str, Tensor]] = []
    handles = [
        child.register_forward_hook(lambda _, args, output, name=name: outputs.append((name, output)))
        for name, child in network.named_modules()
        if _may_be_head(child)
    ]
    try:
        logits_BK = network(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    for name, output in reversed(outputs):
        if output.numel() == logits_BK.numel() and torch.equal(output.reshape(logits_BK.shape), logits_BK):
            return name
    raise GraphError(
        "the classification layer cannot be found, so it cannot be solved for other classes: the network must return "
        "the output of an nn.Linear, or of a 1 x 1 convolution, as it is"
        + (f" (the last such layer is '{outputs[-1][0]}')" if outputs else "")
    )


@torch.no_grad()
def features_of(network: nn.Module, head: str, batches: Iterator[Tensor]) -> Tensor:
    """Returns what comes into the head, [B, F], for batches of images [B, C, H, W].

    Raises:
        GraphError: It is not one vector for each image.
    """
    layer, found = network.get_submodule(head), []
    with _recorded_inputs(layer) as inputs:
        for batch in batches:
            network(batch)
            x = inputs.pop()
            if x.numel() != x.shape[0] * _in_features(layer):
                raise GraphError(
                    f"'{head}' takes inputs of shape {tuple(x.shape)}, more than one vector for each image; it cannot "
                    "be solved for other classes"
                )
            found.append(x.reshape(len(x), -1))
    return torch.cat(found)


@torch.no_grad()
def replace_head(network: nn.Module, head: str, classifier: LinearClassifier) -> None:
    """Writes a solved classifier into the head, in place; without a bias in the head, the bias is dropped.

    Raises:
        GraphError: The head has another number of outputs.
    """
    layer = network.get_submodule(head)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    if len(weight) != len(classifier.bias):
        raise GraphError(f"'{head}' has {len(weight)} outputs, but there are {len(classifier.bias)} classes")
    weight.copy_(classifier.weight.view_as(weight))
    if isinstance(bias, Tensor):
        bias.copy_(classifier.bias)


def _may_be_head(child: nn.Module) -> bool:
    pointwise = isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and child.groups == 1
    return isinstance(child, nn.Linear) or pointwise


def _in_features(layer: nn.Module) -> int:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.shape[1]


@contextmanager
def _recorded_inputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    inputs: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        handle.remove()
