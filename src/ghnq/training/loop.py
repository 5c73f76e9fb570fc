"""Training a hypernetwork from a recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from ghnq.data import ImageDataset, Images, load
from ghnq.errors import TrainingError
from ghnq.files import write_text
from ghnq.training.interrupt import Interrupted, SignalWatch
from ghnq.training.journal import Journal
from ghnq.training.recipe import Recipe, dump_recipe
from ghnq.training.report import TrainingBar
from ghnq.training.state import STATE, load_state, read_recipe, save_state
from ghnq.training.team import Team
from ghnq.training.trainer import StepReport, Trainer
from ghnq.training.validate import held_out, validate

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
    """Trains until the recipe's steps, or `max_minutes` of training (its own if None; resumed parts count), are done.

    Writes into `out`: `last/` and `best/` (checkpoints), the state to resume from, `recipe.yaml`, `log.jsonl`,
    `tensorboard/`. Returns the directory of the best checkpoint. With `workers` above 1 further processes are started;
    a script that calls this needs the usual `if __name__ == "__main__":`.
    Raises TrainingError, DataError, CheckpointError; Interrupted after SIGINT or SIGTERM, with the state saved.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise TrainingError(f"--max-minutes is {max_minutes}; give a number above 0")
    max_minutes = recipe.max_minutes if max_minutes is None else max_minutes
    recipe = recipe.model_copy(update={"data": data}) if data else recipe
    _check_directory(out, resume)
    if resume:
        _check_same(recipe, out / STATE)
    train_set, val_set = _images(recipe)
    threads = torch.get_num_threads()
    team = Team.gather(recipe.workers, _follow, recipe, out if resume else None, max_minutes)
    try:
        torch.set_num_threads(1)
        trainer = _trainer(recipe, train_set, team, out if resume else None)
        _Leader(trainer, val_set, out, max_minutes, console or Console(stderr=True)).run()
    finally:
        torch.set_num_threads(threads)
        team.leave()
    return out / BEST


def _follow(team: Team, recipe: Recipe, resume_from: Path | None, max_minutes: float | None) -> None:
    """The work of every process but the first: the same steps until the first says that one was the last."""
    trainer = _trainer(recipe, _images(recipe)[0], team, resume_from)
    if not _finished(trainer, max_minutes):
        while not trainer.step(fraction_done=0.0, last=False).last:
            pass


def _images(recipe: Recipe) -> tuple[ImageDataset, Images]:
    return held_out(load(recipe.data, image_size=recipe.image_size), recipe.validation.images, recipe.seed)


def _trainer(recipe: Recipe, train_set: ImageDataset, team: Team, resume_from: Path | None) -> Trainer:
    trainer = Trainer(recipe, train_set, team)
    if resume_from is not None:
        trainer.progress = load_state(resume_from / STATE, trainer.ghn, trainer.average, trainer.optimizer)
    return trainer


def _fraction_done(trainer: Trainer, max_minutes: float | None) -> float:
    by_time = 0.0 if max_minutes is None else trainer.progress.seconds / (60 * max_minutes)
    return max(trainer.progress.step / trainer.recipe.steps, by_time)


def _finished(trainer: Trainer, max_minutes: float | None) -> bool:
    return _fraction_done(trainer, max_minutes) >= 1


class _Leader:
    """The first process: it decides when to stop, and it alone reports, measures and writes."""

    def __init__(
        self, trainer: Trainer, val_set: Images, out: Path, max_minutes: float | None, console: Console
    ) -> None:
        self.trainer, self.val_set, self.out = trainer, val_set, out
        self.max_minutes, self.console = max_minutes, console

    def run(self) -> None:
        trainer, recipe = self.trainer, self.trainer.recipe
        write_text(self.out / RECIPE, dump_recipe(recipe))
        with (
            SignalWatch() as watch,
            Journal(self.out, resume_at=trainer.progress.step) as journal,
            TrainingBar(self.console, recipe, None if self.max_minutes is None else 60 * self.max_minutes) as bar,
        ):
            last = _finished(trainer, self.max_minutes)
            while not last:
                stop = watch.received is not None or self._ends_with_this_step()
                report = trainer.step(fraction_done=_fraction_done(trainer, self.max_minutes), last=stop)
                last = report.last
                self._log(report, journal, bar)
                if not last and trainer.progress.step % recipe.save_every == 0:
                    self._save()
                if not last and trainer.progress.step % recipe.validation.every == 0:
                    self._validate(journal, bar)
            if watch.received is None:
                self._validate(journal, bar)
            self._save()
            if watch.received is not None:
                raise Interrupted(watch.received)
        if trainer.progress.skipped:
            self.console.print(f"[yellow]{trainer.progress.skipped} steps were not finite and were skipped[/]")

    def _ends_with_this_step(self) -> bool:
        by_time = self.max_minutes is not None and self.trainer.progress.seconds >= 60 * self.max_minutes
        return by_time or self.trainer.progress.step + 1 >= self.trainer.recipe.steps

    def _log(self, report: StepReport, journal: Journal, bar: TrainingBar) -> None:
        progress = self.trainer.progress
        bar.update(progress, report)
        if progress.step % self.trainer.recipe.log_every == 0:
            figures = {"loss": report.loss, "accuracy": report.accuracy, "gradient_norm": report.gradient_norm}
            figures |= {"lr": report.lr, "seconds": progress.seconds, "skipped": progress.skipped}
            journal.write(progress.step, figures)

    def _validate(self, journal: Journal, bar: TrainingBar) -> None:
        trainer, progress = self.trainer, self.trainer.progress
        ghn = trainer.averaged()
        figures = validate(ghn, trainer.dataset, self.val_set, trainer.recipe)
        journal.write(progress.step, figures)
        bar.validated(progress, figures)
        if not figures["val/accuracy"] <= progress.best:  # true for the first, where best is NaN
            progress.best = figures["val/accuracy"]
            ghn.save_pretrained(self.out / BEST)

    def _save(self) -> None:
        trainer = self.trainer
        trainer.averaged().save_pretrained(self.out / LAST)
        recipe = trainer.recipe.model_dump_json()
        save_state(self.out / STATE, trainer.ghn, trainer.average, trainer.optimizer, replace(trainer.progress), recipe)


def _check_directory(out: Path, resume: bool) -> None:
    if not resume and (out / STATE).exists():
        raise TrainingError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")
    if out.exists() and not out.is_dir():
        raise TrainingError(f"'{out}' is a file; --out must be a directory")


def _check_same(recipe: Recipe, state: Path) -> None:
    """A run is resumed with the recipe it was started with."""
    before, now = json.loads(read_recipe(state)), json.loads(recipe.model_dump_json())
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        raise TrainingError(
            "a resumed run must keep its recipe; changed: "
            + ", ".join(f"{k} (was {before.get(k)!r}, now {now.get(k)!r})" for k in changed)
        )
