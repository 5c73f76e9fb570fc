"""The architectures of every step: a pure function of the step, so that a resumed run sees the same ones."""

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
from ghnq.training.distributed.balance import assign_fixed, balance_by_cost, training_cost
from ghnq.training.networks.depthwise import with_fast_depthwise
from ghnq.training.recipe import Curriculum

Shape3 = tuple[int, int, int]
_INDEX_STRIDE = 100_003  # no common factor with the size of the split, so that every member is reached
_ALL = Curriculum()

BLOCK = 16
"""Steps in which every architecture of a block is used once, where architectures are reused."""


@dataclass(frozen=True, slots=True)
class MetaBatch:
    """The networks that one process trains in a step.

    Attributes:
        positions: Their positions in the meta-batch of all processes, ascending.
        indices: Their indices in split `train`.
        modules: On `meta`, in training mode, without batch-norm buffers.
        graphs: Graphs of the modules.
    """

    positions: tuple[int, ...]
    indices: tuple[int, ...]
    modules: tuple[nn.Module, ...]
    graphs: GraphBatch


class ArchitectureStream:
    """Meta-batches of `train` architectures, each shared by the processes of a run.

    Args:
        size: Networks of a step, in all processes together; they do not depend on the number of processes.
        space: The search space that they come from.
        batch_size: Images of each network, on which the balance between processes depends.
        reuse: An architecture takes part in `reuse` steps. Blocks of `BLOCK * size` architectures follow each other,
            each passed over `reuse` times in a new order, so that all new architectures come at once and none of the
            processes waits for another that builds one. Each process that trains an architecture builds it once.
        curriculum: Which architectures are drawn at first.
        fixed_assignment: Whether an architecture is trained by the same process in every step, unless that leaves
            another process without a network, instead of by the one with the least to do.
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
        world_size: int = 1,
        fixed_assignment: bool = False,
    ) -> None:
        self.space = spaces.get(space)
        self.curriculum, self.fixed_assignment = curriculum, fixed_assignment
        self.size, self.reuse, self.seed, self.rank, self.world_size = size, reuse, seed, rank, world_size
        self.input_shape, self.num_classes, self.batch_size = input_shape, num_classes, batch_size
        self._built: OrderedDict[int, tuple[nn.Module, ArchGraph]] = OrderedDict()
        self._costs: OrderedDict[int, float] = OrderedDict()
        self._admitted: OrderedDict[int, bool] = OrderedDict()

    def indices(self, step: int) -> tuple[int, ...]:
        """Returns the indices in split `train` of the architectures of a step, in all processes."""
        if self.reuse == 1:
            chosen = np.arange(step * self.size, (step + 1) * self.size)
        else:
            passes, row = divmod(step, BLOCK)
            members = np.arange(BLOCK * self.size).reshape(BLOCK, self.size)
            # Each column in an order of its own: a step has one index of every remainder modulo the size, and
            # `fixed_assignment` gives every process equally many.
            rng = np.random.default_rng((self.seed, 0, passes))
            chosen = passes // self.reuse * BLOCK * self.size + rng.permuted(members, axis=0)[row]
        indices: list[int] = (chosen % self.space.splits["train"]).tolist()
        if step < self.curriculum.steps:
            return tuple(self._first_admitted(index) for index in indices)
        return tuple(indices)

    def positions(self, step: int) -> tuple[int, ...]:
        """Returns the positions of the meta-batch of a step that this process trains."""
        if self.world_size == 1:
            return tuple(range(self.size))
        indices = self.indices(step)
        if self.fixed_assignment:
            ranks = assign_fixed(indices, self.world_size)
        else:
            ranks = balance_by_cost([self._training_cost(index) for index in indices], self.world_size)
        return tuple(position for position, rank in enumerate(ranks) if rank == self.rank)

    def meta_batch_at(self, step: int) -> MetaBatch:
        """Returns this process's part of the meta-batch of a step."""
        indices, positions = self.indices(step), self.positions(step)
        own = tuple(indices[position] for position in positions)
        built = [self._build(index) for index in own]
        for cache in (self._built, self._costs, self._admitted):
            self._evict(cache)
        modules, graphs = zip(*built, strict=True)
        return MetaBatch(positions, own, modules, GraphBatch.from_graphs(graphs))

    def _build(self, index: int) -> tuple[nn.Module, ArchGraph]:
        if index not in self._built:
            module = build_on_meta(self.space, index, self.input_shape[0], self.num_classes)
            graph = trace(module, self.input_shape)
            if not any(isinstance(layer, BatchNorm) for layer in module.modules()):
                names = unnormalised_layers(module, torch.empty(2, *self.input_shape, device="meta"))
                attach_norms(module, names, running_statistics=False)
            self._built[index] = with_fast_depthwise(module), graph
        self._built.move_to_end(index)
        return self._built[index]

    def _first_admitted(self, index: int) -> int:
        """Returns the index itself, or the first one after it, in strides, that the curriculum admits."""
        size = self.space.splits["train"]
        for _ in range(size):
            if self._admits(index):
                return index
            # Not the next index, which may be at another position of the meta-batch.
            index = (index + _INDEX_STRIDE) % size
        raise RecipeError(
            f"the curriculum admits no architecture of split 'train' of the space '{self.space.name}'; change its keys"
        )

    def _admits(self, index: int) -> bool:
        """Returns whether the curriculum admits an architecture, by its cost for an image of the space."""
        if index not in self._admitted:
            self._admitted[index] = self.curriculum.admits(self.space, self.space.spec("train", index))
        self._admitted.move_to_end(index)
        return self._admitted[index]

    def _training_cost(self, index: int) -> float:
        if index not in self._costs:
            spec = self.space.spec("train", index)
            cost = self.space.cost(spec, input_shape=self.input_shape, num_classes=self.num_classes)
            self._costs[index] = training_cost(cost, self.batch_size)
        self._costs.move_to_end(index)
        return self._costs[index]

    def _evict(self, cache: OrderedDict[int, Any]) -> None:
        while len(cache) > 2 * BLOCK * self.size:
            cache.popitem(last=False)


def build_on_meta(space: Space[Spec], index: int, in_channels: int, num_classes: int) -> nn.Module:
    """Returns a `train` architecture on `meta` whose batch norms use the statistics of the batch and keep none."""
    return space.build(
        space.spec("train", index),
        in_channels=in_channels,
        num_classes=num_classes,
        device="meta",
        running_statistics=False,
    ).train()
