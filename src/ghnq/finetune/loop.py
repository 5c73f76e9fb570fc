"""Training one network from the weights of any source, in float or through quantization as it is deployed."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from torch import nn

from ghnq.errors import CheckpointError, TrainingError
from ghnq.files import sweep
from ghnq.finetune.build import trainable_network
from ghnq.finetune.finish import schemes_of, write_result
from ghnq.finetune.follow import MAX_ROLLBACKS, NOT_FINITE_AT_FIRST, SAVE_EVERY, Orders, share
from ghnq.finetune.job import Job
from ghnq.finetune.learner import Learner, StepReport
from ghnq.finetune.measure import accuracies, accuracy
from ghnq.finetune.progress_bar import FinetuneBar
from ghnq.finetune.rate import RangeTest, find_rate, measure_step, rate_of_predicted
from ghnq.finetune.result import Result
from ghnq.finetune.schedule import Plan, one_cycle, steps_within
from ghnq.finetune.state import Progress, State, load_state, save_state
from ghnq.finetune.statistics import estimate_statistics
from ghnq.finetune.teacher import Teacher
from ghnq.prediction import Network
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme, prepare
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.runs.interrupt import Interrupted, SignalHandler
from ghnq.runs.lock import RunLock
from ghnq.runs.metrics_log import MetricsLog
from ghnq.runs.state_files import has_state, promote_state
from ghnq.runs.write_errors import report_write_errors

LOG_EVERY = 10
VALIDATIONS = 4
"""How often held-out images are classified during a run, in equal parts of it."""
SHORT_SECONDS = 120.0
"""In a shorter budget of time they are not: that would take a noticeable part of it."""
CORRECTIONS = 20
"""How often the number of steps of a budget of time is corrected."""
TEST_SHARE = 0.1
"""Largest part of a budget of time that the range test may take."""


def finetune(
    network: Network,
    job: Job,
    scheme: QuantScheme,
    *,
    out: Path,
    resume: bool = False,
    teacher: nn.Module | None = None,
    group: WorkerGroup | None = None,
    console: Console | None = None,
) -> Result:
    """Trains a network until the budget is used, and measures it before and after.

    Writes into `out`: `weights.safetensors`, `result.json`, `log.jsonl`, `tensorboard/` and the state to resume from.

    Args:
        network: Architecture, initial weights and images.
        job: What is done; a resumed run must have the same.
        scheme: What the network is trained through.
        out: Directory of the run.
        resume: Whether to continue the run in `out`.
        teacher: A network to imitate.
        group: The process, and the device that it trains on; the CPU if None.
        console: Where progress is printed; standard error if None.

    Raises:
        TrainingError: The run cannot start or continue, or its loss stays non-finite.
        SchemeError: The scheme cannot be applied to the network.
        Interrupted: After SIGINT or SIGTERM, with the state saved.
    """
    if out.exists() and not out.is_dir():
        raise TrainingError(f"'{out}' is a file; --out must be a directory")
    if not resume:
        _check_empty(out)
    with RunLock(out) as lock:
        state = None
        if resume:
            lock.acquire()
            state = load_state(out)
            job.check_same(state.job)
        own_group = group or WorkerGroup()
        run = _Run(network, job, scheme, teacher, own_group, out, console or Console(stderr=True))
        if state is not None:
            run.resume(state)
        else:
            run.console.print(
                f"measuring {escape(job.model)} on {len(network.dataset.test):,} test images", soft_wrap=True
            )
            run.progress.before = accuracies(network, network.dataset.test, schemes_of(scheme))
        lock.acquire()
        if not resume:
            _check_empty(out)  # another process may have trained in it since it was looked at
        run.train()
        return run.finish()


def _check_empty(out: Path) -> None:
    if has_state(out):
        raise TrainingError(f"'{out}' already holds a run; add --resume to continue it, or choose another --out")


class _Run:
    """The loop of a run, with everything that it needs."""

    def __init__(
        self,
        network: Network,
        job: Job,
        scheme: QuantScheme,
        teacher: nn.Module | None,
        group: WorkerGroup,
        out: Path,
        console: Console,
    ) -> None:
        self.network, self.job, self.scheme, self.out, self.console = network, job, scheme, out, console
        self.settings = job.settings
        self.train_set, self.val_set = hold_out(network.dataset)
        trainable = trainable_network(network, scheme, self.settings.start)
        imitated = None if teacher is None else Teacher(teacher, group.device)
        self.learner = Learner(trainable, self.train_set, self.settings, imitated, group)
        self.progress = Progress()
        self.predicted = network.weights.standardise and self.settings.start == "rescaled"
        # On images of its own task a predicted network is near a minimum; where the head had to be solved it is not.
        near_minimum = self.predicted and job.head is None
        self.rate_is_tested = self.settings.lr is None and not near_minimum
        budget = self.settings.max_minutes
        self.budget_seconds = None if budget is None else 60 * budget

    def resume(self, state: State) -> None:
        """Continues from a state.

        Raises:
            CheckpointError: It is of another module.
        """
        try:
            self.learner.restore(state.tensors)
        except RuntimeError as error:
            raise CheckpointError(
                f"the state in '{self.out}' does not fit {self.job.model}, which has changed since the run began: "
                f"{error}"
            ) from error
        promote_state(self.out, state.path)
        self.progress = state.progress

    def train(self) -> None:
        """Trains to the end of the plan.

        Raises:
            TrainingError: The loss stays non-finite.
            Interrupted: After a signal, with the state saved.
        """
        with report_write_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            sweep(self.out)
            log = MetricsLog(self.out, resume_at=self.progress.step)
        with SignalHandler() as watch, log, FinetuneBar(self.console, self.job.model) as bar:
            self.clock = time.perf_counter() - self.progress.seconds
            share(self.learner, self._orders())
            if not self.progress.lr:
                self._plan(bar)
            self._save()
            last = self.progress.step >= self.progress.plan.total
            alone = self.learner.group.world_size == 1
            while not last and not (alone and watch.received is not None):
                # With other processes one more step tells them to stop.
                last = self._step(log, bar, stop=watch.received is not None)
            self._save()
            if watch.received is not None:
                raise Interrupted(watch.received)

    def finish(self) -> Result:
        """Writes the weights, measures them, and returns the result."""
        estimate_statistics(self.learner, self.progress.step)
        trained = self.learner.network.float_network()
        return write_result(self.network, self.job, self.scheme, trained, self.progress, self.out)

    def _plan(self, bar: FinetuneBar) -> None:
        """Decides on the learning rate and on the number of steps."""
        settings, progress, budget = self.settings, self.progress, self.budget_seconds
        test = None
        if self.rate_is_tested:
            test = find_rate(self.learner, max_seconds=None if budget is None else TEST_SHARE * budget)
        if budget is None:
            progress.plan = Plan(settings.steps(len(self.train_set.train)))
        else:
            step_seconds = measure_step(self.learner) if test is None else test.step_seconds
            progress.plan = Plan(steps_within(budget - self._seconds(), step_seconds))
        progress.lr, found = self._rate(test)
        epochs = progress.plan.total * settings.batch_size / len(self.train_set.train)
        bar.say(
            f"{'' if budget is None else 'about '}{progress.plan.total} steps ({epochs:.1f} epochs) of "
            f"{settings.batch_size} images; learning rate up to {progress.lr:.3g}, {found}"
        )

    def _rate(self, test: RangeTest | None) -> tuple[float, str]:
        """Returns the peak of the learning rate for the plan, and how it was found."""
        if self.settings.lr is not None:
            return self.settings.lr, "as given"
        if self.predicted:
            rate = rate_of_predicted(self.progress.plan.total, self.settings.batch_size, test)
            if test is None or rate != test.lr:
                return rate, "by the budget, as the weights are predicted"
        assert test is not None
        return test.lr, f"by a range test of {test.steps} steps"

    def _orders(self) -> Orders:
        """Returns what the other processes do before the first step."""
        unknown = not self.progress.lr
        return Orders(
            step=self.progress.step,
            finished=not unknown and self.progress.step >= self.progress.plan.total,
            find_rate=unknown and self.rate_is_tested,
            measure=unknown and not self.rate_is_tested and self.budget_seconds is not None,
        )

    def _step(self, log: MetricsLog, bar: FinetuneBar, *, stop: bool) -> bool:
        """Makes a step and returns whether it was the last one."""
        progress = self.progress
        fraction = progress.plan.progress(progress.step)
        lr = progress.peak * one_cycle(fraction)
        last = stop or progress.step + 1 >= progress.plan.total
        report = self.learner.step(progress.step, lr, last=last)
        if not report.finite:
            self._roll_back(report, log, bar)
            return False
        progress.step += 1
        progress.seconds = self._seconds()
        self._correct_plan(fraction)
        now = progress.plan.progress(progress.step)
        bar.update(progress.step, progress.plan.total, now, report)
        if progress.step % LOG_EVERY == 0 or progress.step == progress.plan.total:
            self._log(log, report, lr)
        if int(VALIDATIONS * now) > int(VALIDATIONS * fraction) and now < 1:
            self._validate(log, bar)
        if progress.step % SAVE_EVERY == 0:
            self._save()
        return last

    def _seconds(self) -> float:
        return time.perf_counter() - self.clock

    def _log(self, log: MetricsLog, report: StepReport, lr: float) -> None:
        figures = {"loss": report.loss, "accuracy": report.accuracy, "gradient_norm": report.gradient_norm, "lr": lr}
        with report_write_errors(self.out):
            log.write(self.progress.step, figures | {"seconds": self.progress.seconds})

    def _correct_plan(self, before: float) -> None:
        """Corrects the number of steps of a budget of time by the speed so far."""
        progress = self.progress
        if self.budget_seconds is None or progress.step + 1 >= progress.plan.total:
            return
        if int(CORRECTIONS * progress.plan.progress(progress.step)) > int(CORRECTIONS * before):
            left = self.budget_seconds - progress.seconds
            total = progress.step + steps_within(left, progress.seconds / progress.step) if left > 0 else 0
            progress.plan = progress.plan.corrected(progress.step, total)

    def _validate(self, log: MetricsLog, bar: FinetuneBar) -> None:
        """Measures held-out images at the scheme, as deployed."""
        short = self.budget_seconds is not None and self.budget_seconds < SHORT_SECONDS
        if self.val_set is None or short:
            return
        in_float = self.learner.network.float_network().cpu()
        prepared = prepare(
            in_float,
            self.network.calibration,
            standardise=False,
            keep_statistics=True,
            trained_through=str(self.scheme),
        )
        found = accuracy(prepared.quantize(self.scheme), self.network.dataset, self.val_set)
        with report_write_errors(self.out):
            log.write(self.progress.step, {"val/accuracy": found})
        bar.say(
            f"step {self.progress.step} of {self.progress.plan.total}  {self.progress.seconds / 60:.1f} min  "
            f"held-out images at {self.scheme}: {found:.1f} %"
        )

    def _roll_back(self, report: StepReport, log: MetricsLog, bar: FinetuneBar) -> None:
        progress, step = self.progress, self.progress.step
        if step == 0:
            raise TrainingError(NOT_FINITE_AT_FIRST)
        if progress.rollbacks >= MAX_ROLLBACKS:
            raise TrainingError(
                f"the loss was not finite at step {step + 1}, for the third time, at a learning rate of up to "
                f"{progress.peak:.3g}. Start again with a lower --lr, or from other weights (--init); the last state "
                f"is in '{self.out}'"
            )
        self.learner.restore(self.saved)
        progress.step, progress.plan = self.saved_at
        progress.rollbacks += 1
        with report_write_errors(self.out):
            log.write_facts(progress.step, {"rollback": progress.rollbacks, "lr": progress.peak})
        bar.say(
            f"the loss was not finite at step {step + 1}: back to step {progress.step}, and on with half the learning "
            f"rate (up to {progress.peak:.3g})"
        )

    def _save(self) -> None:
        """Saves the state, on disk and in memory."""
        self.progress.seconds = self._seconds()
        self.saved, self.saved_at = self.learner.snapshot(), (self.progress.step, self.progress.plan)
        with report_write_errors(self.out):
            save_state(self.out, self.job.to_json(), self.progress, self.saved)
