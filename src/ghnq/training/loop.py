"""Training a hypernetwork from a recipe."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from ghnq.data import ImageDataset, load
from ghnq.errors import TrainingError
from ghnq.files import write_text
from ghnq.hypernet.config import Task
from ghnq.hypernet.model import GHN
from ghnq.training.architectures import ArchitectureStream, MetaBatch
from ghnq.training.interrupt import Interrupted, SignalWatch
from ghnq.training.journal import Journal
from ghnq.training.recipe import Recipe, dump_recipe
from ghnq.training.report import TrainingBar
from ghnq.training.schedule import rate_factor
from ghnq.training.state import STATE, Progress, load_state, read_recipe, save_state
from ghnq.training.step import NetworkRunner, accumulate_gradients
from ghnq.training.validate import held_out, validate

MOST_SKIPPED = 20
"""So many steps in a row that are not finite end the run."""
LAST, BEST, RECIPE = "last", "best", "recipe.yaml"


def train(
    recipe: Recipe,
    *,
    out: Path,
    data: str | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    console: Console | None = None,
) -> Path:
    """Trains until the recipe's steps, or `max_minutes` of training (resumed parts included), are done.

    Writes into `out`: `last/` and `best/` (checkpoints), the state to resume from, `recipe.yaml`, `log.jsonl`,
    `tensorboard/`. Returns the directory of the best checkpoint.
    Raises TrainingError, DataError, CheckpointError; Interrupted after SIGINT or SIGTERM, with the state saved.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise TrainingError(f"--max-minutes is {max_minutes}; give a number above 0")
    recipe = recipe.model_copy(update={"data": data}) if data else recipe
    _check_directory(out, resume)
    if resume:
        _check_same(recipe, out / STATE)
    dataset = load(recipe.data, image_size=recipe.image_size)
    run = _Run(recipe, dataset, out, max_minutes, console or Console(stderr=True))
    try:
        run.go(resume)
    finally:
        run.close()
    return out / BEST


_Inputs = tuple[MetaBatch, tuple[Tensor, ...], tuple[Tensor, ...]]


class _Run:
    """What lives as long as a training run."""

    def __init__(
        self, recipe: Recipe, dataset: ImageDataset, out: Path, max_minutes: float | None, console: Console
    ) -> None:
        config = recipe.hypernet.model_copy(update={"num_classes": dataset.num_classes})
        self.recipe = recipe.model_copy(update={"hypernet": config})
        self.out, self.console = out, console
        self.max_seconds = None if max_minutes is None else 60 * max_minutes
        self.train_set, self.val_set = held_out(dataset, recipe.validation.images, recipe.seed)
        task = Task(
            data=dataset.name,
            image_shape=dataset.input_shape,
            mean=tuple(dataset.mean.tolist()),
            std=tuple(dataset.std.tolist()),
            space=recipe.space,
        )
        torch.set_num_threads(recipe.workers)
        torch.manual_seed(recipe.seed)
        self.ghn = GHN(config, task=task)
        self.average = {k: v.clone() for k, v in self.ghn.state_dict().items()} if recipe.ema else {}
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer.name]
        o = recipe.optimizer
        self.optimizer = kind(self.ghn.parameters(), lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, fused=True)
        self.progress = Progress()
        self._next: _Inputs | None = None
        self.stream = ArchitectureStream(
            meta_batch=recipe.meta_batch,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            seed=recipe.seed,
            reuse=recipe.reuse,
        )
        self.runner = NetworkRunner(recipe.workers, label_smoothing=recipe.label_smoothing)

    def close(self) -> None:
        self.stream.close()
        self.runner.close()

    def go(self, resume: bool) -> None:
        if resume:
            self.progress = load_state(self.out / STATE, self.ghn, self.average, self.optimizer)
        write_text(self.out / RECIPE, dump_recipe(self.recipe))
        with (
            SignalWatch() as watch,
            Journal(self.out, resume_at=self.progress.step) as journal,
            TrainingBar(self.console, self.recipe, self.max_seconds) as bar,
        ):
            while not self.done:
                self._step(journal, bar)
                if watch.received is not None:
                    self._save()
                    raise Interrupted(watch.received)
                if self.progress.step % self.recipe.save_every == 0:
                    self._save()
                if self.progress.step % self.recipe.validation.every == 0 and not self.done:
                    self._validate(journal, bar)
            self._validate(journal, bar)
            self._save()
        if self.progress.skipped:
            self.console.print(f"[yellow]{self.progress.skipped} steps were not finite and were skipped[/]")

    @property
    def done(self) -> bool:
        out_of_time = self.max_seconds is not None and self.progress.seconds >= self.max_seconds
        return out_of_time or self.progress.step >= self.recipe.steps

    @property
    def fraction_done(self) -> float:
        by_time = 0.0 if self.max_seconds is None else self.progress.seconds / self.max_seconds
        return max(self.progress.step / self.recipe.steps, by_time)

    def _step(self, journal: Journal, bar: TrainingBar) -> None:
        started = time.perf_counter()
        recipe, progress = self.recipe, self.progress
        batch, images, labels = self._next or self._prepare(progress.step)
        self.ghn.train()
        self.optimizer.zero_grad(set_to_none=True)
        outcome = accumulate_gradients(
            self.ghn, batch, images, labels, self.runner, lambda: self._prepare(progress.step + 1)
        )
        norm = torch.nn.utils.clip_grad_norm_(self.ghn.parameters(), recipe.optimizer.clip)
        factor = rate_factor(recipe.schedule, step=progress.step, progress=self.fraction_done)
        finite = math.isfinite(outcome.loss) and bool(torch.isfinite(norm))
        if finite:
            self._update(recipe.optimizer.lr * factor)
        self._count(finite)
        progress.seconds += time.perf_counter() - started
        bar.update(progress, outcome, recipe.meta_batch / (time.perf_counter() - started))
        if progress.step % recipe.log_every == 0:
            figures = {"loss": outcome.loss, "accuracy": outcome.accuracy, "gradient_norm": float(norm)}
            figures |= {"lr": recipe.optimizer.lr * factor, "seconds": progress.seconds, "skipped": progress.skipped}
            journal.write(progress.step, figures)

    def _prepare(self, step: int) -> _Inputs:
        """Makes the inputs of a step and keeps them for it."""
        self._next = (self.stream.meta_batch_at(step), *self._images(step))
        return self._next

    def _images(self, step: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One batch per network, or the same for all."""
        recipe = self.recipe
        count = recipe.batch_size * (1 if recipe.share_images else recipe.meta_batch)
        pixels, labels = self.train_set.train_batch(step, count, recipe.seed, augment=recipe.augment)
        if recipe.share_images:
            return (pixels,) * recipe.meta_batch, (labels,) * recipe.meta_batch
        return torch.split(pixels, recipe.batch_size), torch.split(labels, recipe.batch_size)

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
                "lower optimizer.lr or optimizer.clip. The last good state is in " + str(self.out / STATE)
            )

    def averaged(self) -> GHN:
        """The hypernetwork that is measured and saved: with averaged weights where the recipe asks for them."""
        ghn = GHN(self.ghn.config, task=self.ghn.task)
        ghn.load_state_dict(self.average or self.ghn.state_dict())
        return ghn.eval()

    def _validate(self, journal: Journal, bar: TrainingBar) -> None:
        ghn = self.averaged()
        figures = validate(ghn, self.train_set, self.val_set, self.recipe)
        journal.write(self.progress.step, figures)
        bar.validated(self.progress, figures)
        if not figures["val/accuracy"] <= self.progress.best:  # true for the first, where best is NaN
            self.progress.best = figures["val/accuracy"]
            ghn.save_pretrained(self.out / BEST)

    def _save(self) -> None:
        self.averaged().save_pretrained(self.out / LAST)
        recipe = self.recipe.model_dump_json()
        save_state(self.out / STATE, self.ghn, self.average, self.optimizer, replace(self.progress), recipe)


def _check_directory(out: Path, resume: bool) -> None:
    if not resume and (out / STATE).exists():
        raise TrainingError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")
    if out.exists() and not out.is_dir():
        raise TrainingError(f"'{out}' is a file; --out must be a directory")


def _check_same(recipe: Recipe, state: Path) -> None:
    """A run is resumed with the recipe it was started with."""
    before, now = json.loads(read_recipe(state)), json.loads(recipe.model_dump_json())
    before["hypernet"].pop("num_classes"), now["hypernet"].pop("num_classes")  # the data's, not the recipe's
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        raise TrainingError(
            "a resumed run must keep its recipe; changed: "
            + ", ".join(f"{k} (was {before.get(k)!r}, now {now.get(k)!r})" for k in changed)
        )
