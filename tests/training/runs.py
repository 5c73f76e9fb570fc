"""Runs in a folder: begun, ended without warning, gone on with, read and compared."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from ghnq.runs.state_files import STATE
from ghnq.training import Recipe, train
from ghnq.training.run import trainer as trainer_module


def go(recipe: Recipe, out: Path, **options: Any) -> Path:
    return train(recipe, out=out, console=Console(file=io.StringIO()), **options)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in log(out) if "loss" in line]


def go_until(recipe: Recipe, out: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies without warning when it begins a step."""
    real_step = trainer_module.Trainer.step

    def dies(self: Any, **arguments: Any) -> Any:
        if self.progress.step == step:
            raise RuntimeError("the lights go out")
        return real_step(self, **arguments)

    monkeypatch.setattr(trainer_module.Trainer, "step", dies)
    with pytest.raises(RuntimeError, match="lights"):
        go(recipe, out)
    monkeypatch.undo()


def die_and_resume(recipe: Recipe, out: Path, *, at_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a run without warning one step after a saving, and goes on with it."""
    go_until(recipe, out, at_step, monkeypatch)
    go(recipe, out, resume=True)


def assert_same_end(a: Path, b: Path) -> None:
    first, second = load_file(a / STATE), load_file(b / STATE)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def assert_same_run(a: Path, b: Path) -> None:
    assert_same_end(a, b)
    assert losses(a) == losses(b)
