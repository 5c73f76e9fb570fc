"""Networks of a training step on a GPU, recorded as CUDA graphs and played again.

A small network is some hundred kernels that a GPU runs faster than Python can ask for them. A CUDA graph asks for all
of them at once. Recording one takes about as long as running the network, so a network is recorded when it comes back
for the first time, and pays where it comes back often (the recipe's `reuse`).

All graphs have their activations in the same memory: they are played one after another, and what a graph has computed
is copied before the next one begins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.hypernet.model import FLOAT, Parameters
from ghnq.quant.scheme import QuantScheme
from ghnq.training.simulation import Noise
from ghnq.training.step import run_network

Key = tuple[int, QuantScheme, tuple[int, ...], tuple[int, ...]]
Result = tuple[Tensor, Tensor, Parameters]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, where it reads its inputs, and where it leaves what it computes; module: kept, so that its id is its."""

    module: nn.Module
    graph: torch.cuda.CUDAGraph
    parameters: Parameters
    images: Tensor
    labels: Tensor
    result: Result

    def play(self, parameters: Parameters, images: Tensor, labels: Tensor) -> Result:
        torch._foreach_copy_(list(self.parameters.values()), [parameters[name] for name in self.parameters])
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        loss, accuracy, gradients = self.result
        copies = [torch.empty_like(g) for g in gradients.values()]
        torch._foreach_copy_(copies, list(gradients.values()))
        return loss.clone(), accuracy.clone(), dict(zip(gradients, copies, strict=True))


class Replay:
    """Does what `run_network` does, from a network's second time on by a graph; keeps the `most` that came last."""

    def __init__(self, most: int, precision: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.most, self.precision = most, precision
        self._seen: OrderedDict[Key, _Recorded | None] = OrderedDict()
        self._memory: Any = None

    def __call__(
        self,
        module: nn.Module,
        parameters: Parameters,
        images: Tensor,
        labels: Tensor,
        *,
        scheme: QuantScheme = FLOAT,
        noise: Noise = None,
        label_smoothing: float,
    ) -> Result:
        """Loss, accuracy in 0..1, and the gradient by parameter name, as `run_network` returns them."""
        if noise is not None:  # drawn on the way, from a generator that a graph does not know
            return run_network(
                module, parameters, images, labels, scheme=scheme, noise=noise, label_smoothing=label_smoothing
            )
        key = (id(module), scheme, tuple(images.shape), tuple(labels.shape))
        known = key in self._seen
        recorded = self._seen.get(key)
        if not known:
            self._seen[key] = None
            self._forget()
            return run_network(
                module, parameters, images, labels, scheme=scheme, noise=noise, label_smoothing=label_smoothing
            )
        if recorded is None:
            recorded = self._seen[key] = self._record(module, parameters, images, labels, scheme, label_smoothing)
        self._seen.move_to_end(key)
        return recorded.play(parameters, images, labels)

    def _record(
        self,
        module: nn.Module,
        parameters: Parameters,
        images: Tensor,
        labels: Tensor,
        scheme: QuantScheme,
        label_smoothing: float,
    ) -> _Recorded:
        kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        images, labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile, such as preparing the next step, is not part of it, and no error.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"), self.precision():
            result = run_network(module, kept, images, labels, scheme=scheme, label_smoothing=label_smoothing)
        self._memory = self._memory or graph.pool()
        return _Recorded(module, graph, kept, images, labels, result)

    def _forget(self) -> None:
        while len(self._seen) > self.most:
            self._seen.popitem(last=False)
