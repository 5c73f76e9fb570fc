"""The architectures of every step: a pure function of the step, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ghnq import spaces
from ghnq.errors import RecipeError
from ghnq.graph.batching.batch import GraphBatch
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.trace import trace
from ghnq.quant.standardisation import attach_norms, unnormalised_layers
from ghnq.spaces import Space, Spec
from ghnq.torch_compat import BatchNorm
from ghnq.training.distributed.balance import effort, homes, spread
from ghnq.training.networks.depthwise import with_quick_gradients
from ghnq.training.run.recipe import Curriculum

Shape3 = tuple[int, int, int]
_STRIDE = 100_003  # without a common factor with the size of the split, so that every member is reached
_ALL = Curriculum()


@dataclass(frozen=True, slots=True)
class MetaBatch:
    """The networks that one process trains in a step.

    positions: their places in the meta-batch of the whole team, rising. indices: which architectures of split `train`.
    modules: on `meta`, in training mode, without batch-norm buffers. graphs: of the modules.
    """

    positions: tuple[int, ...]
    indices: tuple[int, ...]
    modules: tuple[nn.Module, ...]
    graphs: GraphBatch


class ArchitectureStream:
    """Meta-batches of `train` architectures, each spread over the processes of a team.

    Args:
        size: Networks of a step, in all processes together; which ones does not depend on how many processes there are.
        space: The search space that they come from.
        batch_size: Images of each network, on which the balance between processes depends.
        reuse: An architecture takes part in `reuse` steps on average, all near each other; each process that trains it
            builds and traces it once.
        curriculum: Which architectures are drawn at first.
        at_home: An architecture is trained by the same process whenever it comes (unless that leaves another idle),
            instead of by the one that has least to do.
    """

    def __init__(
        self,
        *,
        size: int,
        input_shape: Shape3,
        num_classes: int,
        seed: int,
        reuse: int = 1,
        batch_size: int = 64,
        space: str = spaces.DEFAULT,
        curriculum: Curriculum = _ALL,
        rank: int = 0,
        world: int = 1,
        at_home: bool = False,
    ) -> None:
        self.space = spaces.get(space)
        self.curriculum, self.at_home = curriculum, at_home
        self.size, self.reuse, self.seed, self.rank, self.world = size, reuse, seed, rank, world
        self.input_shape, self.num_classes, self.batch_size = input_shape, num_classes, batch_size
        self._built: OrderedDict[int, tuple[nn.Module, ArchGraph]] = OrderedDict()
        self._efforts: OrderedDict[int, float] = OrderedDict()
        self._admitted: OrderedDict[int, bool] = OrderedDict()

    def indices(self, step: int) -> tuple[int, ...]:
        """Which architectures of split `train` the team trains in a step."""
        if self.reuse == 1:
            chosen = np.arange(step * self.size, (step + 1) * self.size)
        else:
            rng = np.random.default_rng((self.seed, 0, step))
            chosen = step * self.size // self.reuse + rng.choice(self.size * self.reuse, self.size, replace=False)
        indices: list[int] = (chosen % self.space.splits["train"]).tolist()
        if step < self.curriculum.steps:
            return tuple(self._easy(index) for index in indices)
        return tuple(indices)

    def positions(self, step: int) -> tuple[int, ...]:
        """Which places of the meta-batch of a step this process trains."""
        if self.world == 1:
            return tuple(range(self.size))
        indices = self.indices(step)
        if self.at_home:
            owners = homes(indices, self.world)
        else:
            owners = spread([self._effort(index) for index in indices], self.world)
        return tuple(position for position, owner in enumerate(owners) if owner == self.rank)

    def meta_batch_at(self, step: int) -> MetaBatch:
        """This process's part of the meta-batch of a step."""
        indices, positions = self.indices(step), self.positions(step)
        own = tuple(indices[position] for position in positions)
        built = [self._build(index) for index in own]
        for known in (self._built, self._efforts, self._admitted):
            self._forget(known)
        modules, graphs = zip(*built, strict=True)
        return MetaBatch(positions, own, modules, GraphBatch.from_graphs(graphs))

    def _build(self, index: int) -> tuple[nn.Module, ArchGraph]:
        if index not in self._built:
            module = build_for_training(self.space, index, self.input_shape[0], self.num_classes)
            graph = trace(module, self.input_shape)
            if not any(isinstance(layer, BatchNorm) for layer in module.modules()):
                names = unnormalised_layers(module, torch.empty(2, *self.input_shape, device="meta"))
                attach_norms(module, names, running_statistics=False)
            self._built[index] = with_quick_gradients(module), graph
        self._built.move_to_end(index)
        return self._built[index]

    def _easy(self, index: int) -> int:
        """The architecture itself, or the first of its followers that the curriculum admits."""
        size = self.space.splits["train"]
        for _ in range(size):
            if self._admits(index):
                return index
            # Not the next one, which another place of the meta-batch may stand at.
            index = (index + _STRIDE) % size
        raise RecipeError(
            f"the curriculum admits no architecture of split 'train' of the space '{self.space.name}'; change its keys"
        )

    def _admits(self, index: int) -> bool:
        """Whatever the data are: the space's own image counts."""
        if index not in self._admitted:
            self._admitted[index] = self.curriculum.admits(self.space, self.space.spec("train", index))
        self._admitted.move_to_end(index)
        return self._admitted[index]

    def _effort(self, index: int) -> float:
        if index not in self._efforts:
            spec = self.space.spec("train", index)
            cost = self.space.cost(spec, input_shape=self.input_shape, num_classes=self.num_classes)
            self._efforts[index] = effort(cost, self.batch_size)
        self._efforts.move_to_end(index)
        return self._efforts[index]

    def _forget(self, known: OrderedDict[int, Any]) -> None:
        while len(known) > 8 * self.size * self.reuse:
            known.popitem(last=False)


def build_for_training(space: Space[Spec], index: int, in_channels: int, num_classes: int) -> nn.Module:
    """A `train` architecture on `meta` whose batch norm uses the statistics of the batch and keeps none."""
    return space.build(
        space.spec("train", index),
        in_channels=in_channels,
        num_classes=num_classes,
        device="meta",
        running_statistics=False,
    ).train()
