"""Training a hypernetwork from a recipe."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from ghnq.data import ImageDataset, Images, load
from ghnq.errors import RecipeError, TrainingError
from ghnq.files import sweep, write_text
from ghnq.hypernet.model import GHN
from ghnq.training.distributed.launch import gather
from ghnq.training.distributed.process_group import Team
from ghnq.training.distributed.topology import choose_place
from ghnq.training.networks.soft_labels import with_soft_labels
from ghnq.training.run.initial_checkpoint import with_hypernet
from ghnq.training.run.interrupt import Interrupted, SignalWatch
from ghnq.training.run.lock import Claim
from ghnq.training.run.metrics_log import Journal
from ghnq.training.run.progress_bar import TrainingBar
from ghnq.training.run.recipe import Recipe, dump_recipe
from ghnq.training.run.resume import Changes, check_data, resumed, started_with
from ghnq.training.run.state import State, read_state, write_state
from ghnq.training.run.state_files import holds_run, last_state, next_state, settle
from ghnq.training.run.trainer import StepReport, Trainer, task_of
from ghnq.training.run.validation import held_out, validate
from ghnq.training.run.write_errors import writing

LAST, BEST, RECIPE = "last", "best", "recipe.yaml"
MEASURES = {"data", "validation.architectures", "validation.calibration"}
"""Keys that decide what a validation measures."""


def train(
    recipe: Recipe,
    *,
    out: Path,
    data: str | None = None,
    resume: bool = False,
    override: bool = False,
    max_minutes: float | None = None,
    devices: int | None = None,
    console: Console | None = None,
) -> Path:
    """Trains until the recipe's steps or minutes of training are done; `max_minutes` replaces the latter.

    resume: go on with the run in `out`, whose recipe must be the same; override: or may be changed where it can.

    Writes into `out`: `last/` and `best/` (checkpoints), the state to resume from, `recipe.yaml`, `log.jsonl`,
    `tensorboard/`. Returns the directory of the best checkpoint. devices: how many CUDA devices to use, each by the
    recipe's `cuda_workers`, or threads of the CPU; absent: one CUDA device, or the recipe's `workers`. If
    torchrun has not started the processes, they are started here; a script that calls this needs the
    usual `if __name__ == "__main__":`.
    Raises TrainingError, DataError, CheckpointError; Interrupted after SIGINT or SIGTERM, with the state saved.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise TrainingError(f"--max-minutes is {max_minutes}; give a number above 0")
    if override and not resume:
        raise TrainingError("--override changes the recipe of a run that is resumed; add --resume, or leave it out")
    recipe = recipe.model_copy(update={"data": data}) if data else recipe
    place = choose_place(recipe, devices)
    _check_directory(out, resume)
    with Claim(out) as claim:
        if place.rank == 0 and holds_run(out):
            claim.take()  # a new run takes it when it is ready: what is refused leaves nothing behind
        state = last_state(out) if resume else None
        before = None if state is None else started_with(state)
        train_set, val_set = _images(recipe)
        if recipe.init is not None:
            # What a run goes on with is in its state: the checkpoint it started from may be gone.
            recipe = with_hypernet(recipe, before.hypernet if before else GHN.from_pretrained(recipe.init).config)
        if state is not None and before is not None:
            check_data(state, before, recipe, train_set)
        recipe = _with_classes(recipe, train_set)
        changes: Changes = {}
        if before is not None:
            recipe, changes = resumed(recipe, before, override=override)
        if max_minutes is not None:
            recipe = recipe.model_copy(update={"max_minutes": max_minutes})
        threads = torch.get_num_threads()
        team = gather(place, _follow, recipe, None if state is None else state.path)
        try:
            torch.set_num_threads(1)
            with closing(_trainer(recipe, train_set, team, state)) as trainer:
                if not team.leads:
                    with SignalWatch():  # torchrun tells all; the first process decides
                        _take_part(trainer)
                    return out / BEST
                claim.take()
                if state is not None:
                    settle(out, state)
                _Leader(trainer, val_set, out, console or Console(stderr=True)).run(changes)
        finally:
            torch.set_num_threads(threads)
            team.leave()
    return out / BEST


def _follow(team: Team, recipe: Recipe, resume_from: Path | None) -> None:
    """What a process does that the first has started."""
    state = None if resume_from is None else read_state(resume_from)
    with closing(_trainer(recipe, _images(recipe)[0], team, state)) as trainer:
        _take_part(trainer)


def _take_part(trainer: Trainer) -> None:
    """The work of every process but the first: the same steps until the first says that one was the last."""
    if _fraction_done(trainer) < 1:
        while not trainer.step(fraction_done=0.0, last=False).last:
            pass


def _images(recipe: Recipe) -> tuple[ImageDataset, Images]:
    dataset = load(recipe.data, image_size=recipe.image_size)
    if recipe.soft_labels is not None:
        dataset = with_soft_labels(dataset, recipe.soft_labels)
    return held_out(dataset, recipe.validation.images, recipe.seed)


def _trainer(recipe: Recipe, train_set: ImageDataset, team: Team, state: State | None) -> Trainer:
    """What every process of a team makes; returns when all have read what they start from."""
    trainer = Trainer(recipe, train_set, team)
    if state is not None:
        state.restore(trainer.ghn, trainer.average, trainer.optimizer)
        trainer.progress = replace(state.progress)
    elif recipe.init is not None:
        trainer.start_from(GHN.from_pretrained(recipe.init))
    team.wait_for_all()
    return trainer


def _fraction_done(trainer: Trainer) -> float:
    minutes = trainer.recipe.max_minutes
    by_time = 0.0 if minutes is None else trainer.progress.seconds / (60 * minutes)
    return max(trainer.progress.step / trainer.recipe.steps, by_time)


class _Leader:
    """The first process: it decides when to stop, and it alone reports, measures and writes."""

    def __init__(self, trainer: Trainer, val_set: Images, out: Path, console: Console) -> None:
        self.trainer, self.val_set, self.out, self.console = trainer, val_set, out, console

    def run(self, changes: Changes) -> None:
        """Trains to the end; changes: what the recipe has that the run so far had not."""
        trainer, recipe = self.trainer, self.trainer.recipe
        with writing(self.out):
            for folder in (self.out, self.out / LAST, self.out / BEST):
                sweep(folder)
            write_text(self.out / RECIPE, dump_recipe(recipe))
            journal = Journal(self.out, resume_at=trainer.progress.step)
        with SignalWatch() as watch, journal, TrainingBar(self.console, recipe) as bar:
            if changes:
                self._override(changes, journal)
            self._validate_if_due(journal, bar)  # the run may have ended between a step and its validation
            last = _fraction_done(trainer) >= 1
            while not last:
                stop = watch.received is not None or self._ends_with_this_step()
                report = trainer.step(fraction_done=_fraction_done(trainer), last=stop)
                last = report.last
                self._log(report, journal, bar)
                if not last:
                    # In this order: a state from before a validation leads to it again, one from after has its result.
                    self._validate_if_due(journal, bar)
                    if trainer.progress.step % recipe.save_every == 0:
                        self._save()
            if watch.received is None and trainer.progress.measured < trainer.progress.step:
                self._validate(journal, bar)
            self._save()
            if watch.received is not None:
                raise Interrupted(watch.received)
        if trainer.progress.skipped:
            self.console.print(f"[yellow]{trainer.progress.skipped} steps were not finite and were skipped[/]")

    def _override(self, changes: Changes, journal: Journal) -> None:
        progress = self.trainer.progress
        if not changes.keys().isdisjoint(MEASURES):
            progress.best = float("nan")  # of another measure
        with writing(self.out):
            journal.note(progress.step, {"override": changes})
        self._save()

    def _ends_with_this_step(self) -> bool:
        return _fraction_done(self.trainer) >= 1 or self.trainer.progress.step + 1 >= self.trainer.recipe.steps

    def _log(self, report: StepReport, journal: Journal, bar: TrainingBar) -> None:
        progress = self.trainer.progress
        bar.update(progress, report)
        if progress.step % self.trainer.recipe.log_every == 0:
            figures = {"loss": report.loss, "accuracy": report.accuracy, "gradient_norm": report.gradient_norm}
            figures |= {"lr": report.lr, "seconds": progress.seconds, "skipped": progress.skipped}
            with writing(self.out):
                journal.write(progress.step, figures)

    def _validate_if_due(self, journal: Journal, bar: TrainingBar) -> None:
        progress = self.trainer.progress
        if progress.measured < progress.step and progress.step % self.trainer.recipe.validation.every == 0:
            self._validate(journal, bar)

    def _validate(self, journal: Journal, bar: TrainingBar) -> None:
        trainer, progress = self.trainer, self.trainer.progress
        ghn = trainer.averaged()
        figures = validate(ghn, trainer.dataset, self.val_set, trainer.recipe)
        progress.measured = progress.step
        bar.validated(progress, figures)
        with writing(self.out):
            journal.write(progress.step, figures)
            if not figures["val/accuracy"] <= progress.best:  # true for the first, where best is NaN
                progress.best = figures["val/accuracy"]
                ghn.save_pretrained(self.out / BEST)

    def _save(self) -> None:
        trainer = self.trainer
        recipe, task = trainer.recipe.model_dump_json(), task_of(trainer.recipe, trainer.dataset)
        with writing(self.out):
            trainer.averaged().save_pretrained(self.out / LAST)
            with next_state(self.out) as path:
                write_state(path, trainer.ghn, trainer.average, trainer.optimizer, trainer.progress, recipe, task)


def _check_directory(out: Path, resume: bool) -> None:
    if not resume and holds_run(out):
        raise TrainingError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")
    if out.exists() and not out.is_dir():
        raise TrainingError(f"'{out}' is a file; --out must be a directory")


def _with_classes(recipe: Recipe, dataset: ImageDataset) -> Recipe:
    """The recipe with the data's number of classes; one that names another is refused."""
    asked, classes = recipe.hypernet.num_classes, dataset.num_classes
    if recipe.init is not None and asked != classes:
        raise RecipeError(
            f"the checkpoint '{recipe.init}' (init) predicts networks for {asked} classes, but '{dataset.name}' has "
            f"{classes}; train on data with {asked} classes, or leave `init` out"
        )
    if "num_classes" in recipe.hypernet.model_fields_set and asked != classes:
        raise RecipeError(
            f"hypernet.num_classes is {asked}, but '{dataset.name}' has {classes} classes; leave the key out"
        )
    return recipe.model_copy(update={"hypernet": recipe.hypernet.model_copy(update={"num_classes": classes})})
