"""Training a hypernetwork from a recipe."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from ghnq.data import ImageDataset, Images, load, reading
from ghnq.data.read_options import current
from ghnq.errors import DataError, GhnqWarning, RecipeError, TrainingError
from ghnq.files import sweep, write_text
from ghnq.hypernet.memory_need import memory_shortage
from ghnq.hypernet.model import GHN
from ghnq.runs.distributed.launch import start_workers
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.runs.interrupt import Interrupted, SignalHandler
from ghnq.runs.lock import RunLock
from ghnq.runs.metrics_log import MetricsLog
from ghnq.runs.state_files import has_state, promote_state, writing_state
from ghnq.runs.write_errors import report_write_errors
from ghnq.training.distributed.topology import choose_topology
from ghnq.training.networks.soft_labels import with_soft_labels
from ghnq.training.recipe import Recipe, dump_recipe
from ghnq.training.run.initial_checkpoint import use_checkpoint_config
from ghnq.training.run.progress_bar import TrainingBar
from ghnq.training.run.resume import Changes, check_data, merge_recipes, reading_difference, recipe_of, without_folders
from ghnq.training.run.state import State, load_last_state, read_state, write_state
from ghnq.training.run.trainer import StepReport, Trainer
from ghnq.training.run.validation import split_validation, validate

LAST, BEST, RECIPE = "last", "best", "recipe.yaml"
VALIDATION_KEYS = {"data", "validation.architectures", "validation.calibration", "quantization.protocol"}
"""Keys that change what a validation measures."""


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
    """Trains a hypernetwork until the recipe's steps or minutes of training are done.

    Writes into `out`: `last/` and `best/` (checkpoints), the state to resume from, `recipe.yaml`, `log.jsonl`,
    `tensorboard/`. Processes that torchrun has not started are started here; a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
        out: Directory of the run.
        data: Replaces the recipe's `data`.
        resume: Whether to continue the run in `out`, whose recipe must be the same.
        override: Whether the recipe of a resumed run may differ, except in the keys that cannot change.
        max_minutes: Replaces the recipe's minutes of training.
        devices: Number of CUDA devices, each used by the recipe's `cuda_workers`, or of processes on the CPU. None: one
            CUDA device, or the recipe's `workers`.
        console: Where progress is printed; standard error if None.

    Returns:
        The directory of the best checkpoint.

    Raises:
        TrainingError: The run cannot start or continue, or its loss stays non-finite.
        DataError, CheckpointError: The images or a checkpoint cannot be used.
        Interrupted: After SIGINT or SIGTERM, with the state saved.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise TrainingError(f"--max-minutes is {max_minutes}; give a number above 0")
    if override and not resume:
        raise TrainingError("--override changes the recipe of a run that is resumed; add --resume, or leave it out")
    # Options of the command line, which started processes do not see, are keys of the recipe from here on.
    recipe = recipe.model_copy(update={**({"data": data} if data else {}), **current().record()})
    topology = choose_topology(recipe, devices)
    _check_directory(out, resume)
    with RunLock(out) as lock:
        if topology.rank == 0 and has_state(out):
            lock.acquire()  # a new run acquires it once it is known to start: a refused one leaves no files behind
        start = _prepare_start(recipe, load_last_state(out) if resume else None, override, max_minutes)
        _check_memory(start.recipe, topology.local_world_size)
        threads = torch.get_num_threads()
        group = start_workers(topology, _run_worker, start.recipe, None if start.state is None else start.state.path)
        try:
            torch.set_num_threads(1)
            with closing(_trainer(start.recipe, start.train_set, group, start.state, start.data_sha256)) as trainer:
                if not group.is_first:
                    with SignalHandler():  # torchrun signals all processes; the first one decides
                        _run_steps(trainer)
                    return out / BEST
                lock.acquire()
                _check_directory(out, resume)  # another process may have trained in it since it was looked at
                if start.state is not None:
                    promote_state(out, start.state.path)
                _RunLoop(trainer, start.val_set, out, console or Console(stderr=True)).run(start.changes)
        finally:
            torch.set_num_threads(threads)
            group.close()
    return out / BEST


@dataclass(frozen=True)
class _Start:
    """What a run starts or resumes with.

    Attributes:
        recipe: The recipe, complete.
        changes: Keys of a resumed run's recipe that differ from before.
        state: The state that the run resumes from.
        train_set: The data set without the images for validation.
        val_set: The images for validation.
        data_sha256: The hash of the data set with them.
    """

    recipe: Recipe
    changes: Changes
    state: State | None
    train_set: ImageDataset
    val_set: Images
    data_sha256: str


def _prepare_start(recipe: Recipe, state: State | None, override: bool, max_minutes: float | None) -> _Start:
    """Loads the images and completes the recipe by the checkpoint, the data and the resumed run.

    Raises:
        TrainingError, RecipeError, DataError, CheckpointError: They do not fit together.
    """
    before = None if state is None else recipe_of(state)
    try:
        dataset = _dataset(recipe)
    except DataError as error:
        if before is not None and (difference := reading_difference(before, recipe)):
            raise DataError(f"{error} The run was started otherwise: {difference}.") from error
        raise
    train_set, val_set = split_validation(dataset, recipe.validation.images, recipe.seed)
    if recipe.init is not None:
        # A resumed run has its configuration in the state: the checkpoint it started from may be gone.
        config = before.hypernet if before else GHN.from_pretrained(recipe.init).config
        recipe = use_checkpoint_config(recipe, config)
    if state is not None and before is not None:
        before = check_data(state, before, recipe, dataset)
    recipe = _with_classes(recipe, train_set)
    changes: Changes = {}
    if before is not None:
        recipe, changes = merge_recipes(recipe, before, override=override)
    if max_minutes is not None:
        recipe = recipe.model_copy(update={"max_minutes": max_minutes})
    return _Start(recipe, changes, state, train_set, val_set, dataset.content_hash)


def _check_memory(recipe: Recipe, processes: int) -> None:
    """Checks that hypernetwork, gradient, both moments of Adam and the weight average fit into memory, by process.

    Raises:
        TrainingError: They do not.
    """
    copies = 4 + bool(recipe.ema)
    if shortage := memory_shortage(recipe.hypernet, copies=copies * processes):
        raise TrainingError(
            f"{shortage}: {copies} tensors for each parameter (gradient, optimizer{', average' if recipe.ema else ''}) "
            f"in {processes} process{'es' if processes > 1 else ''}; make hypernet.max_shape or hypernet.channel_rank "
            "smaller, choose decoder 'lowrank', or take fewer workers"
        )


def _run_worker(group: WorkerGroup, recipe: Recipe, resume_from: Path | None) -> None:
    """Runs in every process that the first one has started."""
    state = None if resume_from is None else read_state(resume_from)
    train_set, _ = split_validation(_dataset(recipe), recipe.validation.images, recipe.seed)
    with closing(_trainer(recipe, train_set, group, state)) as trainer:
        _run_steps(trainer)


def _run_steps(trainer: Trainer) -> None:
    """Runs steps until the first process announces the last one; what every other process does."""
    if _progress_fraction(trainer) < 1:
        while not trainer.step(fraction_done=0.0, last=False).last:
            pass


def _dataset(recipe: Recipe) -> ImageDataset:
    with reading(recipe.read_options):
        dataset = load(recipe.data)
    if recipe.soft_labels is not None:
        dataset = with_soft_labels(dataset, recipe.soft_labels)
    return dataset


def _trainer(
    recipe: Recipe, train_set: ImageDataset, group: WorkerGroup, state: State | None, data_sha256: str | None = None
) -> Trainer:
    """Returns the trainer of one process, once all processes have loaded their initial weights."""
    trainer = Trainer(recipe, train_set, group, data_sha256=data_sha256)
    if state is not None:
        state.restore(trainer.ghn, trainer.average, trainer.optimizer)
        trainer.progress = replace(state.progress)
    elif recipe.init is not None:
        trainer.start_from(GHN.from_pretrained(recipe.init))
    group.barrier()
    return trainer


def _progress_fraction(trainer: Trainer) -> float:
    minutes = trainer.recipe.max_minutes
    by_time = 0.0 if minutes is None else trainer.progress.seconds / (60 * minutes)
    return max(trainer.progress.step / trainer.recipe.steps, by_time)


class _RunLoop:
    """The loop of the first process: it decides when to stop, and alone reports, validates and writes."""

    def __init__(self, trainer: Trainer, val_set: Images, out: Path, console: Console) -> None:
        self.trainer, self.val_set, self.out, self.console = trainer, val_set, out, console

    def run(self, changes: Changes) -> None:
        """Trains to the end.

        Args:
            changes: Keys of a resumed run's recipe that differ from before.
        """
        trainer, recipe = self.trainer, self.trainer.recipe
        with report_write_errors(self.out):
            for folder in (self.out, self.out / LAST, self.out / BEST):
                sweep(folder)
            write_text(self.out / RECIPE, dump_recipe(without_folders(recipe)))
            metrics_log = MetricsLog(self.out, resume_at=trainer.progress.step)
        with SignalHandler() as watch, metrics_log, TrainingBar(self.console, recipe) as bar:
            if changes:
                self._override(changes, metrics_log)
            self._validate_if_due(metrics_log, bar)  # the run may have been killed between a step and its validation
            last = _progress_fraction(trainer) >= 1
            while not last:
                stop = watch.received is not None or self._ends_with_this_step()
                report = trainer.step(fraction_done=_progress_fraction(trainer), last=stop)
                last = report.last
                self._log(report, metrics_log, bar)
                if not last:
                    # In this order: a state saved before a validation repeats it, one saved after has its result.
                    self._validate_if_due(metrics_log, bar)
                    if trainer.progress.step % recipe.save_every == 0:
                        self._save()
            if watch.received is None and trainer.progress.measured < trainer.progress.step:
                self._validate(metrics_log, bar)
            self._save()
            if watch.received is not None:
                raise Interrupted(watch.received)
        if trainer.progress.skipped:
            self.console.print(f"[yellow]{trainer.progress.skipped} steps were not finite and were skipped[/]")

    def _override(self, changes: Changes, metrics_log: MetricsLog) -> None:
        progress = self.trainer.progress
        if not changes.keys().isdisjoint(VALIDATION_KEYS):
            progress.best = float("nan")  # not comparable any more
        with report_write_errors(self.out):
            metrics_log.write_facts(progress.step, {"override": changes})
        self._save()

    def _ends_with_this_step(self) -> bool:
        return _progress_fraction(self.trainer) >= 1 or self.trainer.progress.step + 1 >= self.trainer.recipe.steps

    def _log(self, report: StepReport, metrics_log: MetricsLog, bar: TrainingBar) -> None:
        progress = self.trainer.progress
        bar.update(progress, report)
        if progress.step % self.trainer.recipe.log_every == 0:
            figures = {"loss": report.loss, "accuracy": report.accuracy, "gradient_norm": report.gradient_norm}
            figures |= {"lr": report.lr, "seconds": progress.seconds, "skipped": progress.skipped}
            with report_write_errors(self.out):
                metrics_log.write(progress.step, figures)

    def _validate_if_due(self, metrics_log: MetricsLog, bar: TrainingBar) -> None:
        progress = self.trainer.progress
        if progress.measured < progress.step and progress.step % self.trainer.recipe.validation.every == 0:
            self._validate(metrics_log, bar)

    def _validate(self, metrics_log: MetricsLog, bar: TrainingBar) -> None:
        trainer, progress = self.trainer, self.trainer.progress
        ghn = trainer.averaged()
        figures = validate(ghn, trainer.dataset, self.val_set, trainer.recipe)
        progress.measured = progress.step
        bar.validated(progress, figures)
        with report_write_errors(self.out):
            metrics_log.write(progress.step, figures)
            if not figures["val/accuracy"] <= progress.best:  # true for the first, where best is NaN
                progress.best = figures["val/accuracy"]
                ghn.save_pretrained(self.out / BEST)

    def _save(self) -> None:
        trainer = self.trainer
        recipe, task = without_folders(trainer.recipe).model_dump_json(), trainer.task
        with report_write_errors(self.out):
            trainer.averaged().save_pretrained(self.out / LAST)
            with writing_state(self.out) as path:
                write_state(path, trainer.ghn, trainer.average, trainer.optimizer, trainer.progress, recipe, task)


def _check_directory(out: Path, resume: bool) -> None:
    if not resume and has_state(out):
        raise TrainingError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")
    if out.exists() and not out.is_dir():
        raise TrainingError(f"'{out}' is a file; --out must be a directory")


def _with_classes(recipe: Recipe, dataset: ImageDataset) -> Recipe:
    """Returns the recipe with the data's number of classes.

    Raises:
        RecipeError: The recipe is for another number.
    """
    asked, classes = recipe.hypernet.num_classes, dataset.num_classes
    if recipe.init is not None and asked != classes:
        warnings.warn(
            f"the checkpoint '{recipe.init}' (init) predicts networks for {asked} classes, '{dataset.name}' has "
            f"{classes}: everything but the decoder of the classification layer is kept",
            GhnqWarning,
            stacklevel=2,
        )
    elif "num_classes" in recipe.hypernet.model_fields_set and asked != classes:
        raise RecipeError(
            f"hypernet.num_classes is {asked}, but '{dataset.name}' has {classes} classes; leave the key out"
        )
    return recipe.model_copy(update={"hypernet": recipe.hypernet.model_copy(update={"num_classes": classes})})
