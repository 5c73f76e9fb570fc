"""A study that a sampler works on in memory, and that several processes share through a storage."""

from __future__ import annotations

import secrets

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ghnq.search.study import storage_errors

_WRITER = "writer"


class SharedStudy:
    """Asks a sampler in memory, and writes every finished trial to a stored study at once, whole.

    Optuna writes each parameter of a running trial separately: with 71 of them 0.05 s of processor time and as many
    waits for the disk. Here an interrupted trial leaves nothing, and the trials of other processes are read before
    each proposal.
    """

    def __init__(self, stored: optuna.Study, sampler: BaseSampler, where: str) -> None:
        self.stored, self._where = stored, where
        self._writer = secrets.token_hex(8)
        self._read = 0
        self._study = optuna.create_study(directions=stored.directions, sampler=sampler)

    def trials(self) -> list[FrozenTrial]:
        """Returns the finished trials of all processes."""
        self._read_others()
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def ask(self, space: dict[str, BaseDistribution]) -> optuna.Trial:
        """Returns a new trial with all its parameters."""
        self._read_others()
        return self._study.ask(space)

    def tell(self, trial: optuna.Trial, values: list[float]) -> None:
        """Finishes a trial and writes it; NSGA-II needs those that are not allowed, too, to count its generations."""
        trial.set_user_attr(_WRITER, self._writer)
        finished = self._study.tell(trial, values)
        with storage_errors(self._where):
            self.stored.add_trial(finished)

    def drop(self, trial: optuna.Trial) -> None:
        """Ends a trial without values; it is not written."""
        self._study.tell(trial, state=TrialState.FAIL)

    def _read_others(self) -> None:
        with storage_errors(self._where):
            stored = self.stored.get_trials(deepcopy=False)
        for trial in stored[self._read :]:
            if trial.state.is_finished() and trial.user_attrs.get(_WRITER) != self._writer:
                self._study.add_trial(trial)
        self._read = len(stored)
