"""What every process of a run does in a step: its share of the networks, then the same update of the hypernetwork."""

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
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.torch_compat import interpolate_tensors
from ghnq.training.networks.architecture_stream import BLOCK, ArchitectureStream, MetaBatch
from ghnq.training.networks.cuda_graphs import CudaGraphCache
from ghnq.training.networks.fake_quant import quantizable_layers
from ghnq.training.networks.prefetch import Prefetcher
from ghnq.training.networks.step import accumulate_gradients
from ghnq.training.recipe import Recipe
from ghnq.training.recipe.scheme_mix import MIXED, draw_scheme
from ghnq.training.run.initial_checkpoint import CLASS_DECODERS, for_other_classes
from ghnq.training.run.lr_schedule import rate_factor
from ghnq.training.run.state import Progress
from ghnq.training.run.wider_decoder import is_wider, with_wider_decoder

MAX_SKIPPED = 20
"""Number of consecutive steps with a non-finite loss or gradient that ends a run."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of all processes.

    Attributes:
        loss: Mean over networks.
        accuracy: Mean over networks on training images, percent.
        gradient_norm: Norm of the hypernetwork's gradient before clipping.
        lr: Learning rate.
        speed: Networks per second.
        last: Whether this was the last step.
    """

    loss: float
    accuracy: float
    gradient_norm: float
    lr: float
    speed: float
    last: bool


class Trainer:
    """The hypernetwork, its weight average, the optimizer and this process's share of the networks.

    Args:
        recipe: What is trained, and how.
        dataset: The images, without those for validation.
        group: The processes of the run.
        data_sha256: The hash of the images with those for validation, which the checkpoint stores; None where nothing
            is saved.
    """

    def __init__(
        self, recipe: Recipe, dataset: ImageDataset, group: WorkerGroup, *, data_sha256: str | None = None
    ) -> None:
        keep_freed_memory()
        self.recipe, self.dataset, self.group = recipe, dataset, group
        if recipe.crop is not None and recipe.crop > min(dataset.input_shape[1:]):
            raise TrainingError(
                f"crop is {recipe.crop} pixels, but the images of '{dataset.name}' are "
                f"{dataset.input_shape[1]} x {dataset.input_shape[2]}; give a smaller crop, or leave the key out"
            )
        self._device_dataset = replace(dataset, train=dataset.train.to(group.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.task = task_of(recipe, dataset, data_sha256)
            self.ghn = GHN(recipe.hypernet, task=self.task).to(group.device)
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if recipe.ema else {}
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer.name]
        o = recipe.optimizer
        self.optimizer = kind(self.ghn.parameters(), lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, fused=True)
        self.progress = Progress()
        record = recipe.cuda_graphs and group.device.type == "cuda"
        self.stream = ArchitectureStream(
            size=recipe.meta_batch,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            seed=recipe.seed,
            reuse=recipe.reuse,
            batch_size=recipe.batch_size,
            space=recipe.space,
            curriculum=recipe.curriculum,
            rank=group.rank,
            world_size=group.world_size,
            fixed_assignment=record,
        )
        capacity = (BLOCK + 1) * recipe.meta_batch // group.world_size  # those of a block, and some of the next one
        self.cuda_graphs = CudaGraphCache(capacity) if record else None
        default_depth = 2 if group.device.type == "cuda" else 0
        self.batches = Prefetcher(self._batch, default_depth if recipe.prefetch is None else recipe.prefetch)

    def start_from(self, ghn: GHN) -> None:
        """Loads the weights of a hypernetwork, before the first step.

        Its configuration is the same, except that `condition` and `channel_rank` may be new, that the decoder may be
        wider, and that it may be for other classes: then the decoder of the classification layer stays as it is.

        Raises:
            TrainingError: The configuration is another.
        """
        tensors = ghn.state_dict()
        new: tuple[str, ...] = ("precision.", "vector_modulation.", "decoder.modulation.")
        if ghn.config.num_classes != self.ghn.config.num_classes:
            new += CLASS_DECODERS
            tensors = for_other_classes(tensors, ghn.config.num_classes, self.ghn.config.num_classes)
        if is_wider(self.ghn.config, ghn.config):
            tensors = with_wider_decoder(tensors, self.ghn.state_dict())
        loaded = self.ghn.load_state_dict(tensors, strict=False)
        if loaded.unexpected_keys or any(not key.startswith(new) for key in loaded.missing_keys):
            raise TrainingError(f"the checkpoint to start from is another hypernetwork: {ghn.config}")
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if self.recipe.ema else {}

    def step(self, *, fraction_done: float, last: bool) -> StepReport:
        """Makes one update. Both arguments are taken from the first process and ignored in the others.

        Args:
            fraction_done: How much of the run is done, from 0 to 1, for the learning rate.
            last: Whether this is the last step.

        Raises:
            TrainingError: Loss or gradient were non-finite in MAX_SKIPPED consecutive steps.
        """
        started = time.perf_counter()
        recipe, progress = self.recipe, self.progress
        self.ghn.train()
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.batches(progress.step)
        images, labels = self._images(progress.step, batch.positions)
        result = accumulate_gradients(
            self.ghn,
            batch,
            self.prepare_images(images, progress.step, batch.positions),
            labels,
            schemes=self._schemes(batch),
            noise=self._noise(batch),
            label_smoothing=recipe.label_smoothing,
            precision=self.group.precision,
            cuda_graphs=self.cuda_graphs,
        )
        from_first = torch.tensor([fraction_done, float(last)] if self.group.is_first else [0.0, 0.0])
        shared = self._exchange(torch.stack([result.loss, result.accuracy]), from_first, len(batch.positions))
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.ghn.parameters(), recipe.optimizer.clip)
        # One transfer to the host: nothing before this line waits for the device.
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
        """Ends the prefetching thread."""
        self.batches.close()

    def averaged(self) -> GHN:
        """Returns a copy on the CPU with averaged weights if the recipe has `ema`: what is validated and saved."""
        ghn = GHN(self.ghn.config, task=self.ghn.task)
        ghn.load_state_dict(self.average or self.ghn.state_dict())
        return ghn.eval()

    def _batch(self, step: int) -> MetaBatch:
        """Returns this process's networks of a step on its device, with the traversals that the encoder needs."""
        batch = self.stream.meta_batch_at(step)
        graphs = batch.graphs.to(self.group.device)
        if self.recipe.hypernet.encoder == "gatedgnn":
            _ = graphs.forward, graphs.backward  # computed on first access
        return replace(batch, graphs=graphs)

    def _exchange(self, averaged: Tensor, summed: Tensor, networks: int) -> Tensor:
        """Averages gradients and metrics over all networks of the step and sums the rest, in one exchange.

        Args:
            averaged: Metrics of this process, means over its networks.
            summed: Values that are summed over processes.
            networks: Number of networks of this process, over which its gradients and metrics are means.

        Returns:
            The averaged metrics, followed by the sums.
        """
        summed = summed.to(averaged.device)
        if self.group.world_size == 1:
            return torch.cat([averaged, summed])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.ghn.parameters()]
        means = torch.cat([*(g.flatten() for g in gradients), averaged]).mul_(networks / self.recipe.meta_batch)
        total = self.group.sum(torch.cat([means, summed]))
        *parts, metrics = torch.split(total, [*(g.numel() for g in gradients), len(averaged) + len(summed)])
        for parameter, part in zip(self.ghn.parameters(), parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return metrics

    def _schemes(self, batch: MetaBatch) -> list[QuantScheme]:
        """Returns the scheme that each of this process's networks is trained for."""
        asked = self.recipe.quantization
        layered = MIXED in asked.mix
        return [
            draw_scheme(
                asked.mix,
                list(quantizable_layers(module)) if layered else [],
                self._key(position),
                asked.steps,
                asked.protocol,
            )
            for module, position in zip(batch.modules, batch.positions, strict=True)
        ]

    def _noise(self, batch: MetaBatch) -> list[torch.Generator] | None:
        """Returns a generator of quantization noise for each of this process's networks, or None for rounding."""
        if self.recipe.quantization.strategy == "round":
            return None
        seeds = [int(np.random.SeedSequence(self._key(p)).generate_state(1)[0]) for p in batch.positions]
        return [torch.Generator(self.group.device).manual_seed(seed) for seed in seeds]

    def _key(self, position: int) -> tuple[int, int, int]:
        """Returns the seed of the random choices for one network of this step; it does not depend on the process."""
        return (self.recipe.seed, self.progress.step, position)

    def _images(self, step: int, positions: tuple[int, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns one batch for each of these positions of the meta-batch, or the same batch for all networks."""
        recipe, dataset = self.recipe, self._device_dataset
        if recipe.share_images:
            x, y = dataset.train_batch(step, recipe.batch_size, recipe.seed, augment=recipe.augment)
            return (x,) * len(positions), (y,) * len(positions)
        numbers = (step * recipe.meta_batch + position for position in positions)
        batches = [dataset.train_batch(n, recipe.batch_size, recipe.seed, augment=recipe.augment) for n in numbers]
        images, labels = zip(*batches, strict=True)
        return images, labels

    def prepare_images(self, images: tuple[Tensor, ...], step: int, positions: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Returns the images with the recipe's crop and the curriculum's size."""
        if self.recipe.crop is not None:
            images = tuple(self._random_crop(x, step, position) for x, position in zip(images, positions, strict=True))
        size = self.recipe.curriculum.image_size
        if size is None or step >= self.recipe.curriculum.steps:
            return images
        return tuple(F.interpolate(x, size=(size, size), mode="bilinear", antialias=True) for x in images)

    def _random_crop(self, images: Tensor, step: int, position: int) -> Tensor:
        """Returns the same random window of all images of one network, [B, C, H, W] -> [B, C, crop, crop]."""
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
            # The decay rises from 0.1, or the average would contain the random initial weights for long.
            decay = min(self.recipe.ema, (1 + self.progress.step) / (10 + self.progress.step))
            state = self.ghn.state_dict()
            interpolate_tensors(list(self.average.values()), [state[k] for k in self.average], 1 - decay)

    def _count(self, finite: bool) -> None:
        progress = self.progress
        progress.step += 1
        progress.skipped_in_a_row = 0 if finite else progress.skipped_in_a_row + 1
        progress.skipped += not finite
        if progress.skipped_in_a_row >= MAX_SKIPPED:
            raise TrainingError(
                f"loss or gradient was not finite in {MAX_SKIPPED} steps in a row (up to step {progress.step}); "
                "start again with a lower optimizer.lr or optimizer.clip"
            )


def task_of(recipe: Recipe, dataset: ImageDataset, data_sha256: str | None) -> Task:
    """Returns what the checkpoint stores about the images and the space.

    Args:
        recipe: The recipe of the run.
        dataset: The images, without those for validation.
        data_sha256: The hash of all images, with those for validation, where it is known.
    """
    return Task(
        data=dataset.name,
        image_shape=dataset.input_shape,
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
        space=recipe.space,
        data_sha256=data_sha256,
        read_options=dataset.read_options.record() or None,
    )
