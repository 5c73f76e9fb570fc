"""Signals that need no hypernetwork: scores of a network with random weights, as baselines.

Dimensions: B images, R ReLU outputs of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.errors import GraphError
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.network_outputs import take_output
from ghnq.search.subject import Subject

NASWOT_IMAGES = 64
_RELUS = frozenset(
    [F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.hardtanh, F.hardtanh_]
)


def synflow(subject: Subject) -> float | None:
    """Returns log10 of the synaptic flow (Tanaka et al. 2020, arXiv 2006.05467, Eq. 1; as a score of architectures:
    Abdelfattah et al. 2021, arXiv 2101.08134).

    That is sum |theta * dR/dtheta| for R = the sum of the logits of an image of ones, in the network of |theta|, with
    norms in eval mode, in float64. None where it is zero or infinite.
    """
    network = _random_network(subject).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    image = torch.ones(1, *subject.network.dataset.input_shape, dtype=torch.float64)
    torch.autograd.backward(network(image).sum())
    gradients = [(p.detach(), p.grad) for p in network.parameters() if p.grad is not None]
    flow = sum(float((parameter * gradient).abs().sum()) for parameter, gradient in gradients)
    return math.log10(flow) if 0 < flow < math.inf else None


@torch.no_grad()
def naswot(subject: Subject) -> float | None:
    """Returns log |det K|, K[i, j] the number of ReLUs that are equally on or off for images i and j (Mellor et al.
    2021, arXiv 2006.04647, Eq. 2), for NASWOT_IMAGES training images and norms in train mode.

    None where the determinant is zero: two images turn the same ReLUs on.

    Raises:
        GraphError: The network has no ReLU.
    """
    network = _random_network(subject).train()
    train = subject.bench.training.train
    images = train.balanced(min(NASWOT_IMAGES, len(train)), subject.bench.seed)
    with _Codes(len(images)) as codes:
        network(subject.network.dataset.normalise(images.pixels))
    if not codes.found:
        raise GraphError("has no ReLU, and naswot counts which ReLUs are on; rank it by another signal (--by)")
    code_BR = torch.cat(codes.found, 1).double()
    agreeing_BB = code_BR @ code_BR.T + (1 - code_BR) @ (1 - code_BR).T
    sign, value = torch.linalg.slogdet(agreeing_BB)
    return float(value) if float(sign) > 0 and bool(value.isfinite()) else None


def _random_network(subject: Subject) -> nn.Module:
    """Returns the network with He's random weights; the seed is that of the ranking."""
    network, dataset = subject.network, subject.network.dataset
    random = KaimingWeights(subject.bench.seed).network(network.module, network.graph, subject.scheme).eval()
    with torch.no_grad():
        take_output(random, torch.zeros(2, *dataset.input_shape), num_classes=dataset.num_classes)
    return random


class _Codes(TorchFunctionMode):
    """Records which outputs of ReLUs are positive, bool [B, R] each."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.found = images, list[Tensor]()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _RELUS and isinstance(result, Tensor) and len(result) == self.images:
            self.found.append((result > 0).flatten(1))
        return result
