"""The gradient of one step: predict, run every network, collect gradients, go back through the hypernetwork once.

The predicted tensors are cut off from the hypernetwork's graph before the networks run, so each network's activations
are freed as soon as its own backward pass is done.

Dimensions: M networks, B images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ghnq.hypernet.model import FLOAT, GHN, Parameters
from ghnq.quant.scheme import QuantScheme
from ghnq.training.networks.architecture_stream import MetaBatch
from ghnq.training.networks.cuda_graphs import Replay, Result
from ghnq.training.networks.fake_quant import Noise, activations_on_grid, layers_of, on_grid

# oneDNN compiles a kernel for every new shape and keeps the last 1,024. A few networks use that many; compiling anew
# each time costs more than running small convolutions. Read by oneDNN when it first runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean loss and accuracy (percent) over networks: scalars that may still be on their way on the device."""

    loss: Tensor
    accuracy: Tensor


def accumulate_gradients(
    ghn: GHN,
    batch: MetaBatch,
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    schemes: Sequence[QuantScheme] | None = None,
    noise: Sequence[Noise] | None = None,
    label_smoothing: float = 0.0,
    precision: Callable[[], AbstractContextManager[None]] = nullcontext,
    replay: Replay | None = None,
) -> Outcome:
    """Adds the gradient of the mean loss over the meta-batch to the hypernetwork's parameters.

    images, labels: per network [B, C, H, W] and [B], or [B, classes] if soft. schemes: the precision each network is
    trained for; absent: float. noise: for each network, instead of rounding, noise from this generator. precision:
    gives the context in which networks run. replay: records networks in float and plays them again; those under other
    schemes seldom come back in the same one.
    """
    graphs = batch.graphs
    schemes = schemes or [FLOAT] * graphs.size
    groups = ghn.decode(ghn.encode(graphs, schemes), graphs, channels_last=True)
    networks: list[Parameters] = [{} for _ in range(graphs.size)]
    for group, stacked in zip(graphs.groups, groups, strict=True):
        for slot, tensor in zip(group.slots, stacked.detach().unbind(0), strict=True):
            networks[slot.graph][slot.name] = tensor
    losses, accuracies, gradients = [], [], []
    noises = noise or [None] * graphs.size
    runs = zip(batch.modules, networks, images, labels, schemes, noises, strict=True)
    for module, tensors, x, y, scheme, source in runs:
        run = partial(run_network, module, scheme=scheme, noise=source, label_smoothing=label_smoothing)
        with precision():
            if replay is not None and scheme.is_float:
                loss, accuracy, gradient = replay(module, run, tensors, x, y)
            else:
                loss, accuracy, gradient = run(tensors, x, y)
        losses.append(loss)
        accuracies.append(accuracy)
        gradients.append(gradient)
    share = 1.0 / graphs.size
    collected = [torch.stack([gradients[s.graph][s.name] for s in g.slots]).mul_(share) for g in graphs.groups]
    torch.autograd.backward(groups, collected)
    return Outcome(torch.stack(losses).mean(), 100 * torch.stack(accuracies).mean())


def run_network(
    module: nn.Module,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    *,
    scheme: QuantScheme = FLOAT,
    noise: Noise = None,
    label_smoothing: float,
) -> Result:
    """Forward and backward of one network."""
    leaves = {name: t.detach().requires_grad_() for name, t in parameters.items()}
    layers = {} if scheme.is_float else layers_of(module)
    with activations_on_grid(layers, scheme, noise):
        used = on_grid(leaves, layers, scheme, noise)
        logits = functional_call(module, used, (images.contiguous(memory_format=torch.channels_last),)).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    classes = labels if labels.dim() == 1 else labels.argmax(1)
    correct = (logits.detach().argmax(1) == classes).float().mean()
    return loss.detach(), correct, dict(zip(leaves, gradients, strict=True))
