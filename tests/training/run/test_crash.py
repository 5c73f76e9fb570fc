"""Crashes at every moment and in every file: no run is lost, and what went wrong is said."""

import errno
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ghnq.errors import CheckpointError, GhnqWarning, TrainingError
from ghnq.runs.metrics_log import MetricsLog
from ghnq.runs.state_files import PREVIOUS, STATE
from ghnq.training import Recipe
from ghnq.training.recipe import dump_recipe
from ghnq.training.run import loop as loop_module
from ghnq.training.run import trainer as trainer_module
from ghnq.training.run.state import load_last_state
from tests.training.runs import assert_same_end, go, go_until


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if ".tmp" in p.name]


@pytest.mark.parametrize("size", [0, 20, 3000, -1])
def test_a_damaged_state_costs_the_steps_since_the_one_before(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    go(tiny, tmp_path / "whole")
    go_until(tiny, tmp_path / "run", 5, monkeypatch)
    state = tmp_path / "run" / STATE
    state.write_bytes(state.read_bytes()[:size])
    with pytest.warns(GhnqWarning, match=rf"{STATE} is truncated .*resuming from step 2, .*{PREVIOUS}"):
        go(tiny, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_a_damaged_state_never_pushes_out_the_good_one(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_until(tiny, tmp_path, 5, monkeypatch)
    (tmp_path / STATE).write_bytes(b"")
    monkeypatch.setattr(loop_module, "write_state", lambda *_: 1 / 0)  # dies in the first saving after the resume
    with pytest.warns(GhnqWarning, match="step 2"), pytest.raises(ZeroDivisionError):
        go(tiny, tmp_path, resume=True)
    assert load_last_state(tmp_path).progress.step == 2


def test_two_damaged_states_are_told_and_nothing_starts(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tiny, tmp_path)
    for name in (STATE, PREVIOUS):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    monkeypatch.setattr(trainer_module.Trainer, "step", lambda *_: pytest.fail("started"))
    with pytest.raises(CheckpointError, match=rf"{STATE}.*{PREVIOUS}.*another --out"):
        go(tiny, tmp_path, resume=True)
    with pytest.raises(TrainingError, match="already holds a run"):
        go(tiny, tmp_path)


def test_a_run_killed_between_the_renames_goes_on(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tiny, tmp_path / "whole")
    go_until(tiny, tmp_path / "run", 5, monkeypatch)
    os.replace(tmp_path / "run" / STATE, tmp_path / "run" / PREVIOUS)
    (tmp_path / "run" / f".state.{'ab' * 4}.tmp.safetensors").write_bytes(b"half")  # what the killed writer left
    with pytest.raises(TrainingError, match="already holds a run"):
        go(tiny, tmp_path / "run")
    go(tiny, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "run")
    assert leftovers(tmp_path) == []


def _full(path: Path, *_: Any) -> None:
    path.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_ends_the_run_and_keeps_the_state(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tiny, tmp_path / "whole")
    go_until(tiny, tmp_path / "run", 5, monkeypatch)
    before = (tmp_path / "run" / STATE).read_bytes()
    monkeypatch.setattr(loop_module, "write_state", _full)
    with pytest.raises(TrainingError, match=r"No space left.*--resume"):
        go(tiny, tmp_path / "run", resume=True)
    monkeypatch.undo()
    assert (tmp_path / "run" / STATE).read_bytes() == before
    assert leftovers(tmp_path) == []
    go(tiny, tmp_path / "run", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("name", ["write_facts", "write"])
def test_a_log_that_cannot_be_written_ends_the_run_in_words(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(MetricsLog, name, lambda self, *_: _full(self.path.with_name("x")))
    with pytest.raises(TrainingError, match="No space left"):
        go(tiny, tmp_path)


@pytest.mark.slow
def test_a_disk_without_room_in_a_real_process(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may not grow beyond half a state: what the operating system refuses, half written, is not rehearsed."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny))
    out = tmp_path / "run"
    go(tiny, tmp_path / "whole")
    go_until(tiny, out, 5, monkeypatch)
    before = (out / STATE).read_bytes()

    def resume(limit: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ghnq", "train", "recipe.yaml", "--out", "run", "--resume"],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
        )  # fmt: skip

    done = resume(len(before) // 2)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert (out / STATE).read_bytes() == before
    assert leftovers(out) == []
    done = resume(resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr
    assert_same_end(tmp_path / "whole", out)


def test_nothing_hangs_on_a_random_generator_that_runs_on(tiny: Recipe, tmp_path: Path) -> None:
    """Why a state holds none."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the one a library would draw from
        go(tiny, tmp_path / str(seed))
    assert_same_end(tmp_path / "1", tmp_path / "2")


def test_a_run_that_ends_between_a_step_and_its_validation_validates_when_it_goes_on(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = loop_module.validate

    def dies(*_: Any) -> Any:
        raise RuntimeError("the lights go out")

    monkeypatch.setattr(loop_module, "validate", dies)
    with pytest.raises(RuntimeError, match="lights"):
        go(tiny, tmp_path)
    monkeypatch.setattr(loop_module, "validate", real)
    go(tiny, tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/accuracy" in line] == [4, 6]
    go(tiny, tmp_path, resume=True)  # a finished run has nothing more to say
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(lines)


KILLS = """
import io, os, random, signal, sys, time
from pathlib import Path
import torch
from rich.console import Console
import ghnq.evaluation.evaluator, ghnq.runs.distributed.fabric
import tensorboard.compat.proto.event_pb2, tensorboard.summary.writer.record_writer
from ghnq.training import load_recipe, train
from ghnq.runs.state_files import has_state

recipe, out, rng = load_recipe("recipe.yaml"), Path("run"), random.Random(20)
torch.set_num_threads(1)


def begin():
    "Training in a process of its own, without the seconds that a start would take."
    pid = os.fork()
    if pid == 0:
        train(recipe, out=out, resume=has_state(out), console=Console(file=io.StringIO()))
        os._exit(0)
    return pid


def lines():
    return (out / "log.jsonl").read_bytes().count(b"\\n") if (out / "log.jsonl").exists() else 0


for kill in range(20):
    pid, wanted = begin(), lines() + rng.randint(1, 3)
    if kill % 4:  # in every fourth trial, while the run still makes ready
        while lines() < wanted and os.waitpid(pid, os.WNOHANG)[0] == 0:
            time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.06))  # a step and its saving take about that
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "it had ended before"
assert os.waitpid(begin(), 0)[1] == 0
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tiny: Recipe, tmp_path: Path) -> None:
    measured = tiny.validation.model_copy(update={"every": 30, "architectures": 1})
    recipe = tiny.model_copy(update={"steps": 80, "meta_batch": 1, "batch_size": 4, "validation": measured})
    go(recipe, tmp_path / "whole")
    recipe = recipe.model_copy(update={"save_every": 1})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    (tmp_path / "kills.py").write_text(KILLS)
    done = subprocess.run(
        [sys.executable, "kills.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_end(tmp_path / "whole", tmp_path / "run")
    for name in ("last", "best"):
        weights = [(tmp_path / run / name / "model.safetensors").read_bytes() for run in ("whole", "run")]
        assert weights[0] == weights[1]
    assert leftovers(tmp_path) == []
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "run")]
    figures = [
        [(line["step"], line.get("loss"), line.get("val/accuracy")) for line in map(json.loads, log)] for log in logs
    ]
    assert figures[0] == figures[1]
