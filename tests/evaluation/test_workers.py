"""Processes: every task once, errors as they are, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ghnq.errors import DataError, GhnqError
from ghnq.evaluation.workers import run_tasks, usable_workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked, which is safe on Linux only")


def square(number: int) -> tuple[int, int]:
    return number * number, torch.get_num_threads()


def refuse_seven(number: int) -> int:
    if number == 7:
        raise DataError("seven is not allowed")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def own_process(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.parametrize(("tasks", "workers"), [(0, 2), (1, 2), (2, 2), (25, 3)])
def test_every_task_is_answered_once(tasks: int, workers: int) -> None:
    answers = sorted(run_tasks(square, range(tasks), workers))
    assert answers == [(number * number, 1) for number in range(tasks)]


def test_one_worker_is_this_process_in_order() -> None:
    assert [number for number, _ in run_tasks(square, range(5), 1)] == [0, 1, 4, 9, 16]
    assert set(run_tasks(own_process, range(2), 1)) == {os.getpid()}
    assert len(set(run_tasks(own_process, range(8), 2)) - {os.getpid()}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive_as_they_are(workers: int) -> None:
    with pytest.raises(DataError, match="seven is not allowed") as caught:
        list(run_tasks(refuse_seven, range(20), workers))
    if workers > 1:
        assert any("refuse_seven" in note for note in caught.value.__notes__)


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(GhnqError, match=r"killed \(exit code -9\), perhaps because memory ran out"):
        list(run_tasks(die_at_three, range(6), 2))


def test_closing_kills_the_workers() -> None:
    pids = run_tasks(own_process, range(100), 2)
    first = {next(pids) for _ in range(6)}
    pids.close()
    assert not any(_alive(pid) for pid in first)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from ghnq.evaluation.workers import run_tasks\n"
        "def work(number):\n"
        "    time.sleep(0.05)\n"
        "    return os.getpid()\n"
        "for pid in run_tasks(work, range(10000), 3):\n"
        "    print(pid, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(12)}
        parent.kill()
    assert len(pids) == 3
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert [usable_workers(None, tasks) for tasks in (0, 1, 3, 100)] == [1, 1, 3, 4]
    assert usable_workers(9, 5) == 5
    with pytest.raises(GhnqError, match="workers is 0; give at least 1"):
        usable_workers(0, 5)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert usable_workers(None, 100) == 1
    with pytest.raises(GhnqError, match="2 workers need Linux"):
        usable_workers(2, 5)


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def convolve(number: int) -> float:
    images = torch.full((32, 16, 24, 24), float(number))
    return torch.nn.functional.conv2d(images, torch.ones(16, 16, 3, 3)).sum().item()


def test_workers_run_torch_after_their_parent_ran_it_on_several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # a forked child inherits a thread pool without threads, and must not wait for it
    try:
        alone = [convolve(number) for number in range(6)]
        assert torch.get_num_threads() == 2
        assert sorted(run_tasks(convolve, range(6), 2)) == pytest.approx(alone, rel=1e-6)
    finally:
        torch.set_num_threads(before)
