"""A ranking: candidates are sized, filtered by the budget, ranked by a signal round by round, and the best measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ghnq.errors import GhnqError
from ghnq.evaluation.engine import Engine
from ghnq.progress import ProgressCallback
from ghnq.search.candidates import Failure
from ghnq.search.halving import Rung, best_first, plan
from ghnq.search.latency import LatencyTest
from ghnq.search.ledger import On, RankLedger
from ghnq.search.limits import OPTIONS, Filtered, smallest, within_limits
from ghnq.search.measuring import Measurer, Sized, Task
from ghnq.search.pareto import front
from ghnq.search.settings import Settings
from ghnq.search.sizes import Sizes
from ghnq.search.subject import Budget

T = TypeVar("T")
R = TypeVar("R")
Stage = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Takes what is done now, and gives the progress callback for it."""
MAX_LISTED = 3


@dataclass(frozen=True)
class Ranked:
    """One of the best candidates.

    Attributes:
        name: Of the candidate.
        value: Of the signal that it is ranked by; None where its network is not finite.
        sizes: At the scheme that is ranked by.
        accuracy: Predicted accuracy on held-out images, percent, by scheme; None where it could not be measured.
        test: The same on test images; empty unless asked for.
        latency_ms: Median for one image on ONNX Runtime; None unless asked for.
        pareto: Whether no other of the best is as accurate, and as small in everything.
    """

    name: str
    value: float | None
    sizes: Sizes
    accuracy: Mapping[str, float | None]
    test: Mapping[str, float | None]
    latency_ms: float | None
    pareto: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The result.

    Attributes:
        best: The best candidates, in order.
        candidates: How many there were, without failures before they were built.
        filtered: What the limits took.
        failures: Candidates that failed, and why.
        rungs: The rounds.
        order: All candidates of the last round, in order.
        seconds: Of one core, by signal, that the measurements took, also those that were there already.
        sizes: Of all candidates that could be traced.
        measured: By candidate, the last round that it was in, counted from 1, and its value there; candidates that the
            limits took are not in it.
    """

    best: list[Ranked]
    candidates: int
    filtered: Filtered
    failures: list[Failure]
    rungs: list[Rung]
    order: list[str]
    seconds: dict[str, float]
    sizes: dict[str, Sizes]
    measured: dict[str, tuple[int, float | None]]


def rank(
    measurer: Measurer,
    settings: Settings,
    *,
    engine: Engine,
    ledger: RankLedger | None = None,
    stage: Stage = lambda what: nullcontext(lambda done, total: None),
    failures: Sequence[Failure] = (),
    latency: LatencyTest | None = None,
) -> Ranking:
    """Ranks the candidates of a measurer.

    Args:
        engine: Where the measurements run.
        ledger: Keeps them; what it has is not measured again. None keeps nothing.
        stage: Shows progress; by default it does not.
        failures: Candidates that failed already.
        latency: Measures the latency of one network, where there is a limit for it.

    Raises:
        GhnqError: No candidate is left; the message says what took them.
    """
    kept = RankLedger(None, {}, {}) if ledger is None else ledger
    return _Run(measurer, settings, engine, kept, stage, list(failures), latency).rank()


@dataclass
class _Run:
    measurer: Measurer
    settings: Settings
    engine: Engine
    ledger: RankLedger
    stage: Stage
    failures: list[Failure]
    latency: LatencyTest | None
    sized: dict[str, Sized] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        """The budget of the last round: no more images than there are."""
        wanted = self.settings.budget
        return Budget(min(wanted.images, len(self.measurer.bench.measured)), wanted.seconds)

    @property
    def scheme(self) -> str:
        """The name of the scheme that is ranked by."""
        return next(iter(self.measurer.schemes))

    def rank(self) -> Ranking:
        names = list(self.measurer.candidates)
        filtered = self._filter(names)
        settings = self.settings
        rungs = plan(len(filtered.kept), settings.top, settings.by, self.budget, halve=settings.halve)
        order, values = filtered.kept, dict[str, float | None]()
        measured: dict[str, tuple[int, float | None]] = {}
        for number, rung in enumerate(rungs, start=1):
            what = f"candidates of round {number} of {len(rungs)} by '{rung.signal}'"
            found = self._values(what, order[: rung.candidates], rung.signal, [self.scheme], rung.budget)
            values = found[self.scheme]
            measured |= {name: (number, value) for name, value in values.items()}
            order = best_first([name for name in order if name in values], values)
            if not order:
                raise self._all_failed(len(names))
        chosen, latencies = self._fast_enough(order)
        best = self._finish(chosen, values, latencies)
        return Ranking(
            best=best,
            candidates=len(names),
            filtered=filtered,
            failures=self.failures,
            rungs=rungs,
            order=order,
            seconds=self.seconds,
            sizes={name: each.sizes for name, each in self.sized.items()},
            measured=measured,
        )

    def _filter(self, names: list[str]) -> Filtered:
        found = self._run("candidates traced", self.measurer.size, names)
        self.sized = {each.name: each for each in found if isinstance(each, Sized)}
        sizes = {name: self.sized[name].sizes for name in names if name in self.sized}
        if not sizes:
            raise self._all_failed(len(self.failures))
        filtered = within_limits(sizes, self.settings.limits)
        if not filtered.kept:
            least = smallest(sizes.values())
            needed = ", ".join(
                f"{OPTIONS[name]} {least[name]:,}" for name in self.settings.limits.set() if name in least
            )
            raise GhnqError(
                f"none of {len(sizes):,} candidates is left: {filtered.explain(self.settings.limits)}. The least of "
                f"each among them: {needed}"
            )
        return filtered

    def _values(
        self, what: str, names: Sequence[str], signal: str, schemes: Sequence[str], budget: Budget, on: On = "val"
    ) -> dict[str, dict[str, float | None]]:
        """Returns a signal by scheme and name; what fails is left out, and remembered."""
        tasks = {
            (scheme, name): Task(name, self.sized[name].network, signal, scheme, budget, on)
            for name in names
            for scheme in schemes
        }
        # Equal networks are measured once.
        missing = {_key(task): task for task in tasks.values() if _key(task) not in self.ledger}
        self._run(what, self.measurer.measure, list(missing.values()), keep=self.ledger)
        values: dict[str, dict[str, float | None]] = {scheme: {} for scheme in schemes}
        reasons = {each.name: each.reason for each in self.failures}
        for (scheme, name), task in tasks.items():
            if _key(task) in self.ledger:
                row = self.ledger[_key(task)]
                values[scheme][name] = row["value"]
                self.seconds[signal] = self.seconds.get(signal, 0.0) + row["seconds"]
            elif name not in reasons:  # it was measured under the name of an equal one
                self.failures.append(Failure(name, reasons[missing[_key(task)].candidate]))
        return values

    def _run(
        self,
        what: str,
        function: Callable[[T], R | Failure],
        tasks: list[T],
        keep: RankLedger | None = None,
    ) -> list[R]:
        done: list[R] = []
        if not tasks:
            return done
        with self.stage(what) as report, closing(self.engine.run(function, tasks)) as results:
            report(0, len(tasks))
            for number, result in enumerate(results, start=1):
                if isinstance(result, Failure):
                    self.failures.append(result)
                else:
                    done.append(result)
                    if keep is not None:
                        keep.add([result])  # type: ignore[list-item]
                report(number, len(tasks))
        return done

    def _fast_enough(self, order: list[str]) -> tuple[list[str], dict[str, float]]:
        """Returns the best candidates whose latency is allowed, and their latencies, measured one by one."""
        settings = self.settings
        if settings.max_latency is None or self.latency is None:
            return order[: settings.top], {}
        latencies: dict[str, float] = {}
        slow: list[float] = []
        with self.stage("latencies") as report:
            for number, name in enumerate(order):
                if len(latencies) == settings.top:
                    break
                report(number, len(order))
                found = self.latency.measure(name, self.measurer.network(name, self.budget.images))
                if isinstance(found, Failure):
                    self.failures.append(found)
                elif found <= settings.max_latency:
                    latencies[name] = found
                else:
                    slow.append(found)
            report(len(order), len(order))
        if not latencies:
            least = f"; the fastest takes {min(slow):.3f} ms" if slow else ""
            raise GhnqError(
                f"none of the best {len(order):,} candidates is within --max-latency {settings.max_latency:g}{least}"
            )
        return list(latencies), latencies

    def _finish(self, chosen: list[str], values: dict[str, float | None], latencies: dict[str, float]) -> list[Ranked]:
        """Measures the best at every scheme, with all images of the budget."""
        schemes, budget = list(self.measurer.schemes), Budget(self.budget.images)
        found = self._values("measurements of the best", chosen, "accuracy", schemes, budget)
        test: dict[str, dict[str, float | None]] = {}
        if self.settings.on == "test":
            everything = Budget(len(self.measurer.bench.dataset.test))
            what = "measurements of the best on test images"
            test = self._values(what, chosen, "accuracy", schemes, everything, "test")
        best = [
            Ranked(
                name=name,
                value=values[name],
                sizes=self.sized[name].sizes,
                accuracy={scheme: found[scheme].get(name) for scheme in schemes},
                test={scheme: test[scheme].get(name) for scheme in test},
                latency_ms=latencies.get(name),
            )
            for name in chosen
        ]
        return _with_front(best, self.scheme)

    def _all_failed(self, count: int) -> GhnqError:
        which = "the only candidate" if count == 1 else f"all {count:,} candidates"
        return GhnqError(f"{which} failed: {self._first_failures()}")

    def _first_failures(self) -> str:
        listed = "; ".join(f"{each.name}: {each.reason}" for each in self.failures[:MAX_LISTED])
        more = len(self.failures) - MAX_LISTED
        return listed + (f"; and {more:,} more" if more > 0 else "")


def _key(task: Task) -> tuple[str, str, str, str, Budget]:
    return task.network, task.signal, task.scheme, task.on, task.budget


def _with_front(best: list[Ranked], scheme: str) -> list[Ranked]:
    """Marks the Pareto front of accuracy against multiply-adds, bytes and peak memory."""
    points = {}
    for each in best:
        accuracy, memory = each.accuracy[scheme], each.sizes.peak_memory
        if accuracy is not None:
            costs = (each.sizes.multiply_adds, each.sizes.bytes, 0 if memory is None else memory)
            points[each.name] = (accuracy, *(-float(cost) for cost in costs))
    names = set(front(points))
    return [replace(each, pareto=each.name in names) for each in best]
