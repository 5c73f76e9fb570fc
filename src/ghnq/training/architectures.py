"""The architectures of every step: a pure function of the step, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from torch import nn

from ghnq.graph.batch import GraphBatch
from ghnq.graph.ir import ArchGraph
from ghnq.graph.trace import trace
from ghnq.spaces import convnets

Shape3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class MetaBatch:
    """The networks of a step: modules on `meta` in training mode, without batch-norm buffers, and their graphs."""

    indices: tuple[int, ...]
    modules: tuple[nn.Module, ...]
    graphs: GraphBatch


class ArchitectureStream:
    """Meta-batches of `train` architectures, prepared by a process of its own ahead of the step that needs them.

    reuse: an architecture takes part in `reuse` steps on average, all near each other, and is built once.
    """

    def __init__(self, *, meta_batch: int, input_shape: Shape3, num_classes: int, seed: int, reuse: int = 1) -> None:
        self.meta_batch, self.reuse, self.seed = meta_batch, reuse, seed
        self.input_shape, self.num_classes = input_shape, num_classes
        # `fork` would copy a process that already runs threads.
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_quiet)
        self._graphs: OrderedDict[int, Future[ArchGraph]] = OrderedDict()
        self._modules: dict[int, nn.Module] = {}

    def indices(self, step: int) -> tuple[int, ...]:
        """Which architectures of split `train` a step trains on."""
        if self.reuse == 1:
            chosen = np.arange(step * self.meta_batch, (step + 1) * self.meta_batch)
        else:
            window = self.meta_batch * self.reuse
            rng = np.random.default_rng((self.seed, step))
            chosen = step * self.meta_batch // self.reuse + rng.choice(window, self.meta_batch, replace=False)
        return tuple((chosen % convnets.SPLITS["train"]).tolist())

    def meta_batch_at(self, step: int, *, ahead: int = 4) -> MetaBatch:
        """The meta-batch of a step; asks for those of the next `ahead` steps on the way."""
        wanted = self.indices(step)
        for future_step in range(step, step + ahead + 1):
            for index in self.indices(future_step):
                self._request(index)
        graphs = [self._graphs[index].result() for index in wanted]
        modules = tuple(self._module(index) for index in wanted)
        self._forget()
        return MetaBatch(wanted, modules, GraphBatch.from_graphs(graphs))

    def close(self) -> None:
        """Ends the helper process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, index: int) -> None:
        if index not in self._graphs:
            self._graphs[index] = self._pool.submit(_graph, index, self.input_shape, self.num_classes)
        self._graphs.move_to_end(index)

    def _module(self, index: int) -> nn.Module:
        if index not in self._modules:
            self._modules[index] = build_for_training(index, self.input_shape[0], self.num_classes)
        return self._modules[index]

    def _forget(self) -> None:
        keep = self.meta_batch * (2 * self.reuse + 8)
        while len(self._graphs) > keep:
            index, _ = self._graphs.popitem(last=False)
            self._modules.pop(index, None)


def build_for_training(index: int, in_channels: int, num_classes: int) -> nn.Module:
    """A `train` architecture on `meta` whose batch norm uses the statistics of the batch and keeps none."""
    spec = convnets.spec("train", index)
    return convnets.build(
        spec, in_channels=in_channels, num_classes=num_classes, device="meta", running_statistics=False
    ).train()


def _graph(index: int, input_shape: Shape3, num_classes: int) -> ArchGraph:
    module = build_for_training(index, input_shape[0], num_classes)
    graph = trace(module, input_shape)
    graph.distances()  # cached, so that it travels with the graph
    return graph


def _quiet() -> None:
    """The helper leaves the processors to the networks, and interrupts to the parent."""
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "nice"):
        os.nice(5)
    torch.set_num_threads(1)
