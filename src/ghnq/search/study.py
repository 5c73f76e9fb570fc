"""The study of a search: Optuna's storage, and what its trials have in common, so that other ones are refused."""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ghnq.errors import GhnqError, WriteError, nearest
from ghnq.search.journal import journal

SIZES = {"macs": "multiply_adds", "bytes": "bytes", "memory": "peak_memory"}
"""Objectives that are minimized, and the attribute of `Sizes` that each one is."""
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize",
    "macs": "minimize",
    "bytes": "minimize",
    "memory": "minimize",
}
"""All objectives and their directions; accuracy is in percent."""
JOURNAL = "study.journal"
STUDY_NAME = "ghnq-search"
_SETTINGS = "settings"
_PROCESS = "process:"


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of objectives.

    Raises:
        GhnqError: One is unknown or twice, or there is none.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise GhnqError(
                f"there is no objective '{name}'{nearest(name, OBJECTIVES)}; there are {', '.join(OBJECTIVES)}"
            )
    if not names or len(set(names)) < len(names):
        raise GhnqError(f"--objectives {','.join(names)}: give one or more of {', '.join(OBJECTIVES)}, each once")
    return tuple(names)


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Returns the storage at a database's URL, or the journal file in a folder.

    Raises:
        GhnqError: It cannot be reached or read.
    """
    if url is None:
        with storage_errors(str(folder / JOURNAL)):
            return JournalStorage(journal(folder / JOURNAL))
    with storage_errors(url):
        return RDBStorage(url, engine_kwargs={"poolclass": NullPool})  # connections end with their use


def open_study(
    storage: BaseStorage,
    where: str,
    *,
    objectives: Sequence[str],
    settings: Mapping[str, object],
    resume: bool,
) -> optuna.Study:
    """Returns the study in a storage, or a new one.

    Args:
        where: The storage, as messages name it.
        settings: What decides the values of trials; strings and numbers.
        resume: Whether a study that has trials may be gone on with.

    Raises:
        GhnqError: The study has other objectives or settings, or trials without `resume`; the storage fails.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line for every trial; progress is ours
    asked: dict[str, object] = {"objectives": ",".join(objectives), **settings}
    with storage_errors(where):
        study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            directions=[OBJECTIVES[name] for name in objectives],
            load_if_exists=True,
        )
        found = study.user_attrs.get(_SETTINGS)
        if found is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_SETTINGS, json.dumps(asked))
            with warnings.catch_warnings():
                # Optuna calls these names experimental; they are what its dashboard shows.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(objectives))
            return study
    _check_settings(where, None if found is None else json.loads(found), asked)
    if not resume and study.get_trials(deepcopy=False):
        raise GhnqError(f"{where} already has a study with trials; go on with it (--resume) or give another folder")
    return study


def _check_settings(where: str, found: object, asked: Mapping[str, object]) -> None:
    if not isinstance(found, dict):
        raise GhnqError(f"{where} has a study named {STUDY_NAME} that ghnq did not make; give another storage")
    for name in sorted({*found, *asked}):
        if found.get(name) != asked.get(name):
            raise GhnqError(
                f"{where} has a study whose {name} is {_say(found.get(name))}, not {_say(asked.get(name))}; its trials "
                "do not compare with others, so give another folder or storage"
            )


def _say(value: object) -> str:
    return "not given" if value is None else str(value)


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Inside the block, errors of a storage are told as GhnqError."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"'{where}' cannot be written ({error.strerror or error}); when that is mended, the same command with "
            "--resume goes on from the trials in it"
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise GhnqError(
            f"the storage '{where}' cannot be used: {reason}. A storage is the URL of a database, such as "
            "sqlite:///study.db or postgresql://user@host/name"
        ) from error


def register_process(study: optuna.Study, where: str) -> int:
    """Notes in the study that another process works on it, and returns how many did before.

    Raises:
        GhnqError: The storage fails.
    """
    with storage_errors(where):
        before = sum(name.startswith(_PROCESS) for name in study.user_attrs)
        study.set_user_attr(f"{_PROCESS}{secrets.token_hex(8)}", True)
    return before
