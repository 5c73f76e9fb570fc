"""What every process of a run holds and does: the same hypernetwork, its share of the networks, the same update."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ghnq.data import ImageDataset
from ghnq.errors import TrainingError
from ghnq.hypernet.config import Task
from ghnq.hypernet.model import GHN
from ghnq.memory import keep_freed_memory
from ghnq.quant.scheme import QuantScheme
from ghnq.torch_compat import interpolate_tensors
from ghnq.training.distributed.process_group import Team
from ghnq.training.networks.architecture_stream import ArchitectureStream, MetaBatch
from ghnq.training.networks.cuda_graphs import Replay
from ghnq.training.networks.fake_quant import layers_of
from ghnq.training.networks.prefetch import Ahead
from ghnq.training.networks.scheme_mix import MIXED, draw_scheme
from ghnq.training.networks.step import accumulate_gradients
from ghnq.training.run.lr_schedule import rate_factor
from ghnq.training.run.recipe import Recipe
from ghnq.training.run.state import Progress

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
        keep_freed_memory()
        self.recipe, self.dataset, self.team = recipe, dataset, team
        if recipe.crop is not None and recipe.crop > min(dataset.input_shape[1:]):
            raise TrainingError(
                f"crop is {recipe.crop} pixels, but the images of '{dataset.name}' are "
                f"{dataset.input_shape[1]} x {dataset.input_shape[2]}; give a smaller crop, or leave the key out"
            )
        self._near = replace(dataset, train=dataset.train.to(team.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.ghn = GHN(recipe.hypernet, task=task_of(recipe, dataset)).to(team.device)
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if recipe.ema else {}
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer.name]
        o = recipe.optimizer
        self.optimizer = kind(self.ghn.parameters(), lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, fused=True)
        self.progress = Progress()
        record = recipe.cuda_graphs and team.device.type == "cuda"
        self.stream = ArchitectureStream(
            size=recipe.meta_batch,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            seed=recipe.seed,
            reuse=recipe.reuse,
            batch_size=recipe.batch_size,
            space=recipe.space,
            curriculum=recipe.curriculum,
            rank=team.rank,
            world=team.size,
            at_home=record,
        )
        most = 2 * recipe.meta_batch * recipe.reuse // team.size  # few come back later than that
        self.replay = Replay(most) if record else None
        usual = 2 if team.device.type == "cuda" else 0
        self.batches = Ahead(self._batch, usual if recipe.prefetch is None else recipe.prefetch)

    def start_from(self, ghn: GHN) -> None:
        """Takes the weights of a hypernetwork before the first step.

        Its configuration is the same, but for `condition` and `channel_rank`, which may be new.
        """
        loaded = self.ghn.load_state_dict(ghn.state_dict(), strict=False)
        new = ("precision.", "vector_modulation.", "decoder.modulation.")
        if loaded.unexpected_keys or any(not key.startswith(new) for key in loaded.missing_keys):
            raise TrainingError(f"the checkpoint to start from is another hypernetwork: {ghn.config}")
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if self.recipe.ema else {}

    def step(self, *, fraction_done: float, last: bool) -> StepReport:
        """One update. Both arguments are the first process's to say; what the others give is ignored.

        Raises TrainingError where loss or gradient stay non-finite for MOST_SKIPPED steps.
        """
        started = time.perf_counter()
        recipe, progress = self.recipe, self.progress
        self.ghn.train()
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.batches(progress.step)
        images, labels = self._images(progress.step, batch.positions)
        outcome = accumulate_gradients(
            self.ghn,
            batch,
            self._shrunk(images, progress.step, batch.positions),
            labels,
            schemes=self._schemes(batch),
            noise=self._noise(batch),
            label_smoothing=recipe.label_smoothing,
            precision=self.team.precision,
            replay=self.replay,
        )
        said = torch.tensor([fraction_done, float(last)] if self.team.leads else [0.0, 0.0])
        shared = self._exchange(torch.stack([outcome.loss, outcome.accuracy]), said, len(batch.positions))
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.ghn.parameters(), recipe.optimizer.clip)
        # All that the step tells the host, in one go: no network waits for the device before this line.
        loss, accuracy, fraction, stop, norm = torch.cat([shared, gradient_norm.view(1)]).tolist()
        lr = recipe.optimizer.lr * rate_factor(recipe.schedule, step=progress.step, progress=fraction)
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self._update(lr)
        self._count(finite)
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        return StepReport(loss, accuracy, norm, lr, recipe.meta_batch / seconds, bool(stop))

    def close(self) -> None:
        """Ends what runs beside the steps."""
        self.batches.close()

    def averaged(self) -> GHN:
        """The hypernetwork that is measured and saved: with averaged weights where the recipe asks for them."""
        ghn = GHN(self.ghn.config, task=self.ghn.task)  # on the CPU
        ghn.load_state_dict(self.average or self.ghn.state_dict())
        return ghn.eval()

    def _batch(self, step: int) -> MetaBatch:
        """This process's networks of a step, on its device, with all that the encoder will ask of their graphs."""
        batch = self.stream.meta_batch_at(step)
        graphs = batch.graphs.to(self.team.device)
        if self.recipe.hypernet.encoder == "gatedgnn":
            _ = graphs.forward, graphs.backward  # made when they are first asked for, which is here
        return replace(batch, graphs=graphs)

    def _exchange(self, averaged: Tensor, summed: Tensor, networks: int) -> Tensor:
        """Averages gradients and figures over all networks of the step, sums the rest; one vector, one exchange.

        networks: of this process, over which the gradients and figures so far are means. Returns the figures.
        """
        summed = summed.to(averaged.device)
        if self.team.size == 1:
            return torch.cat([averaged, summed])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.ghn.parameters()]
        means = torch.cat([*(g.flatten() for g in gradients), averaged]).mul_(networks / self.recipe.meta_batch)
        total = self.team.sum(torch.cat([means, summed]))
        *parts, figures = torch.split(total, [*(g.numel() for g in gradients), len(averaged) + len(summed)])
        for parameter, part in zip(self.ghn.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return figures

    def _schemes(self, batch: MetaBatch) -> list[QuantScheme]:
        """The precision that each of this process's networks is trained for."""
        mix, layered = self.recipe.quantization.mix, MIXED in self.recipe.quantization.mix
        steps = self.recipe.quantization.steps
        return [
            draw_scheme(mix, list(layers_of(module)) if layered else [], self._key(position), steps)
            for module, position in zip(batch.modules, batch.positions, strict=True)
        ]

    def _noise(self, batch: MetaBatch) -> list[torch.Generator] | None:
        """For each of this process's networks what its noise is drawn from."""
        if self.recipe.quantization.strategy == "round":
            return None
        seeds = [int(np.random.SeedSequence(self._key(p)).generate_state(1)[0]) for p in batch.positions]
        return [torch.Generator(self.team.device).manual_seed(seed) for seed in seeds]

    def _key(self, position: int) -> tuple[int, int, int]:
        """What the random choices for one network of this step hang on, in whatever process it runs."""
        return (self.recipe.seed, self.progress.step, position)

    def _images(self, step: int, positions: tuple[int, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One batch for each of these places of the meta-batch, or the same for all networks of all processes."""
        recipe, near = self.recipe, self._near
        if recipe.share_images:
            x, y = near.train_batch(step, recipe.batch_size, recipe.seed, augment=recipe.augment)
            return (x,) * len(positions), (y,) * len(positions)
        numbers = (step * recipe.meta_batch + position for position in positions)
        batches = [near.train_batch(n, recipe.batch_size, recipe.seed, augment=recipe.augment) for n in numbers]
        images, labels = zip(*batches, strict=True)
        return images, labels

    def _shrunk(self, images: tuple[Tensor, ...], step: int, positions: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The images cropped as the recipe wants them, and shrunk as the curriculum does at a step."""
        if self.recipe.crop is not None:
            images = tuple(self._cropped(x, step, position) for x, position in zip(images, positions, strict=True))
        size = self.recipe.curriculum.image_size
        if size is None or step >= self.recipe.curriculum.steps:
            return images
        return tuple(F.interpolate(x, size=(size, size), mode="bilinear", antialias=True) for x in images)

    def _cropped(self, images: Tensor, step: int, position: int) -> Tensor:
        """[B, C, H, W] -> [B, C, crop, crop]: the same random window of all images of one network."""
        size = self.recipe.crop
        assert size is not None
        rng = np.random.default_rng((self.recipe.seed, 1, step, position))
        top, left = (int(rng.integers(0, side - size + 1)) for side in images.shape[2:])
        return images[:, :, top : top + size, left : left + size]

    def _update(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if self.average:
            # A short memory at first, or the average would remember the random start.
            decay = min(self.recipe.ema, (1 + self.progress.step) / (10 + self.progress.step))
            state = self.ghn.state_dict()
            interpolate_tensors(list(self.average.values()), [state[k] for k in self.average], 1 - decay)

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
