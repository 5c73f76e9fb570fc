"""The gradient of one step: predict, run every network, collect gradients, one backward pass of the hypernetwork.

The predicted tensors are detached before the networks run, so each network's activations are freed as soon as its own
backward pass is done.

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
from ghnq.training.networks.cuda_graphs import CudaGraphCache, Result
from ghnq.training.networks.fake_quant import Noise, fake_quantize_inputs, fake_quantize_weights, quantizable_layers

# oneDNN compiles a kernel for every new shape and keeps the last 1,024, which a few networks use up; compiling again
# costs more than running small convolutions. oneDNN reads the variable when it first runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


@dataclass(frozen=True, slots=True)
class StepResult:
    """Mean loss and mean accuracy (percent) over networks, as scalar tensors on the device."""

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
    cuda_graphs: CudaGraphCache | None = None,
) -> StepResult:
    """Adds the gradient of the mean loss over the meta-batch to the hypernetwork's parameters.

    Args:
        images: For each network [B, C, H, W].
        labels: For each network [B], or [B, classes] if soft.
        schemes: The scheme that each network is trained for; float if None.
        noise: For each network a generator of noise that replaces rounding.
        precision: Returns the context in which networks run.
        cuda_graphs: Captures and replays float networks; the same network seldom has the same quantized scheme again.
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
            if cuda_graphs is not None and scheme.is_float:
                loss, accuracy, gradient = cuda_graphs(module, run, tensors, x, y)
            else:
                loss, accuracy, gradient = run(tensors, x, y)
        losses.append(loss)
        accuracies.append(accuracy)
        gradients.append(gradient)
    share = 1.0 / graphs.size
    collected = [torch.stack([gradients[s.graph][s.name] for s in g.slots]).mul_(share) for g in graphs.groups]
    torch.autograd.backward(groups, collected)
    return StepResult(torch.stack(losses).mean(), 100 * torch.stack(accuracies).mean())


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
    """Runs forward and backward of one network."""
    leaves = {name: t.detach().requires_grad_() for name, t in parameters.items()}
    layers = {} if scheme.is_float else quantizable_layers(module)
    with fake_quantize_inputs(layers, scheme, noise):
        used = fake_quantize_weights(leaves, layers, scheme, noise)
        logits = functional_call(module, used, (images.contiguous(memory_format=torch.channels_last),)).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    classes = labels if labels.dim() == 1 else labels.argmax(1)
    correct = (logits.detach().argmax(1) == classes).float().mean()
    return loss.detach(), correct, dict(zip(leaves, gradients, strict=True))
