"""The architectures of every step: a pure function of the step, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
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
    """Meta-batches of `train` architectures for one of several processes; each process has architectures of its own.

    size: networks of a step in this process. reuse: an architecture takes part in `reuse` steps on average, all near
    each other, and is built and traced once.
    """

    def __init__(
        self,
        *,
        size: int,
        input_shape: Shape3,
        num_classes: int,
        seed: int,
        reuse: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.size, self.reuse, self.seed, self.rank, self.world = size, reuse, seed, rank, world
        self.input_shape, self.num_classes = input_shape, num_classes
        self._built: OrderedDict[int, tuple[nn.Module, ArchGraph]] = OrderedDict()

    def indices(self, step: int) -> tuple[int, ...]:
        """Which architectures of split `train` this process trains in a step."""
        if self.reuse == 1:
            own = np.arange(step * self.size, (step + 1) * self.size)
        else:
            rng = np.random.default_rng((self.seed, self.rank, step))
            own = step * self.size // self.reuse + rng.choice(self.size * self.reuse, self.size, replace=False)
        return tuple(((own * self.world + self.rank) % convnets.SPLITS["train"]).tolist())

    def meta_batch_at(self, step: int) -> MetaBatch:
        """The meta-batch of a step."""
        indices = self.indices(step)
        built = [self._build(index) for index in indices]
        while len(self._built) > 2 * self.size * self.reuse:
            self._built.popitem(last=False)
        modules, graphs = zip(*built, strict=True)
        return MetaBatch(indices, modules, GraphBatch.from_graphs(graphs))

    def _build(self, index: int) -> tuple[nn.Module, ArchGraph]:
        if index not in self._built:
            module = build_for_training(index, self.input_shape[0], self.num_classes)
            self._built[index] = module, trace(module, self.input_shape)
        self._built.move_to_end(index)
        return self._built[index]


def build_for_training(index: int, in_channels: int, num_classes: int) -> nn.Module:
    """A `train` architecture on `meta` whose batch norm uses the statistics of the batch and keeps none."""
    spec = convnets.spec("train", index)
    return convnets.build(
        spec, in_channels=in_channels, num_classes=num_classes, device="meta", running_statistics=False
    ).train()
