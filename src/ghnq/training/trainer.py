"""What every process of a run holds and does: the same hypernetwork, its own networks, the same update."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ghnq.data import ImageDataset
from ghnq.errors import TrainingError
from ghnq.hypernet.config import Task
from ghnq.hypernet.model import GHN
from ghnq.quant.scheme import QuantScheme
from ghnq.training.architectures import ArchitectureStream, MetaBatch
from ghnq.training.precision import MIXED, draw_scheme
from ghnq.training.recipe import Recipe
from ghnq.training.schedule import rate_factor
from ghnq.training.simulation import layers_of
from ghnq.training.state import Progress
from ghnq.training.step import accumulate_gradients
from ghnq.training.team import Team

MOST_SKIPPED = 20
"""So many steps in a row that are not finite end the run."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """A step as the whole team did it.

    loss: mean. accuracy: percent. speed: networks per second. last: no more steps.
    """

    loss: float
    accuracy: float
    gradient_norm: float
    lr: float
    speed: float
    last: bool


class Trainer:
    """Hypernetwork, weight average, optimizer, progress, and this process's share of the networks."""

    def __init__(self, recipe: Recipe, dataset: ImageDataset, team: Team) -> None:
        self.recipe, self.dataset, self.team = recipe, dataset, team
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.ghn = GHN(recipe.hypernet, task=task_of(recipe, dataset))
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if recipe.ema else {}
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer.name]
        o = recipe.optimizer
        self.optimizer = kind(self.ghn.parameters(), lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, fused=True)
        self.progress = Progress()
        self.share = recipe.meta_batch // team.size
        self.stream = ArchitectureStream(
            size=self.share,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            seed=recipe.seed,
            reuse=recipe.reuse,
            rank=team.rank,
            world=team.size,
        )

    def start_from(self, ghn: GHN) -> None:
        """Takes the weights of a hypernetwork of the same configuration, before the first step."""
        self.ghn.load_state_dict(ghn.state_dict())
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if self.recipe.ema else {}

    def step(self, *, fraction_done: float, last: bool) -> StepReport:
        """One update. Both arguments are the first process's to say; what the others give is ignored.

        Raises TrainingError where loss or gradient stay non-finite for MOST_SKIPPED steps.
        """
        started = time.perf_counter()
        recipe, progress = self.recipe, self.progress
        images, labels = self._images(progress.step)
        self.ghn.train()
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.stream.meta_batch_at(progress.step)
        outcome = accumulate_gradients(
            self.ghn,
            batch,
            images,
            labels,
            schemes=self._schemes(batch),
            noise=self._noise(progress.step),
            label_smoothing=recipe.label_smoothing,
        )
        said = [fraction_done, float(last)] if self.team.leads else [0.0, 0.0]
        loss, accuracy, fraction, stop = self._exchange([outcome.loss, outcome.accuracy], said)
        norm = float(torch.nn.utils.clip_grad_norm_(self.ghn.parameters(), recipe.optimizer.clip))
        lr = recipe.optimizer.lr * rate_factor(recipe.schedule, step=progress.step, progress=fraction)
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self._update(lr)
        self._count(finite)
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        return StepReport(loss, accuracy, norm, lr, recipe.meta_batch / seconds, bool(stop))

    def averaged(self) -> GHN:
        """The hypernetwork that is measured and saved: with averaged weights where the recipe asks for them."""
        ghn = GHN(self.ghn.config, task=self.ghn.task)
        ghn.load_state_dict(self.average or self.ghn.state_dict())
        return ghn.eval()

    def _exchange(self, averaged: list[float], summed: list[float]) -> list[float]:
        """Averages gradients and figures over the team, sums the rest; one vector, one exchange."""
        if self.team.size == 1:
            return [*averaged, *torch.tensor(summed).tolist()]  # float32 here as well: a run is the same to the bit
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.ghn.parameters()]
        numbers = torch.tensor([*averaged, *(self.team.size * s for s in summed)])
        total = self.team.sum(torch.cat([*(g.flatten() for g in gradients), numbers])).div_(self.team.size)
        *parts, numbers = torch.split(total, [*(g.numel() for g in gradients), len(numbers)])
        for parameter, part in zip(self.ghn.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return numbers.tolist()

    def _schemes(self, batch: MetaBatch) -> list[QuantScheme]:
        """The precision of each of this process's networks."""
        mix = self.recipe.quantization.mix
        return [
            draw_scheme(mix, list(layers_of(module)) if MIXED in mix else [], (self.recipe.seed, self.progress.step, i))
            for module, i in zip(batch.modules, batch.indices, strict=True)
        ]

    def _noise(self, step: int) -> torch.Generator | None:
        """What the noise of this process's share of a step is drawn from."""
        if self.recipe.quantization.strategy == "round":
            return None
        key = np.random.SeedSequence((self.recipe.seed, step, self.team.rank))
        return torch.Generator().manual_seed(int(key.generate_state(1)[0]))

    def _images(self, step: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One batch for each of this process's networks, or the same for all networks of all processes."""
        recipe = self.recipe
        if recipe.share_images:
            x, y = self.dataset.train_batch(step, recipe.batch_size, recipe.seed, augment=recipe.augment)
            return (x,) * self.share, (y,) * self.share
        part, count = step * self.team.size + self.team.rank, recipe.batch_size * self.share
        x, y = self.dataset.train_batch(part, count, recipe.seed, augment=recipe.augment)
        return torch.split(x, recipe.batch_size), torch.split(y, recipe.batch_size)

    def _update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if self.average:
            # A short memory at first, or the average would remember the random start.
            decay = min(self.recipe.ema, (1 + self.progress.step) / (10 + self.progress.step))
            state = self.ghn.state_dict()
            torch._foreach_lerp_(list(self.average.values()), [state[k] for k in self.average], 1 - decay)

    def _count(self, finite: bool) -> None:
        progress = self.progress
        progress.step += 1
        progress.skipped_in_a_row = 0 if finite else progress.skipped_in_a_row + 1
        progress.skipped += not finite
        if progress.skipped_in_a_row >= MOST_SKIPPED:
            raise TrainingError(
                f"loss or gradient was not finite in {MOST_SKIPPED} steps in a row (up to step {progress.step}); "
                "start again with a lower optimizer.lr or optimizer.clip"
            )


def task_of(recipe: Recipe, dataset: ImageDataset) -> Task:
    """What a recipe and its data make of the hypernetwork's task."""
    return Task(
        data=dataset.name,
        image_shape=dataset.input_shape,
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
        space=recipe.space,
    )
