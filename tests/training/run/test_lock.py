"""A run's directory is one process's at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from ghnq.errors import TrainingError
from ghnq.runs.lock import RunLock
from ghnq.training import Recipe
from tests.training.runs import go


def hold(directory: Path, taken: Event) -> None:
    with RunLock(directory) as lock:
        lock.acquire()
        taken.set()
        signal.pause()


def test_another_process_is_refused_until_the_holder_is_gone(tiny: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(tiny, run)
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    holder = context.Process(target=hold, args=(run, taken))
    holder.start()
    try:
        assert taken.wait(60)
        with pytest.raises(TrainingError, match=rf"another process \({holder.pid}\)"):
            go(tiny.model_copy(update={"steps": 8}), run, resume=True, override=True)
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    go(tiny.model_copy(update={"steps": 8}), run, resume=True, override=True)


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path / "new") as lock:
            lock.acquire()
            lock.acquire()
            with RunLock(tmp_path / "new") as other, pytest.raises(TrainingError, match="another --out"):
                other.acquire()
