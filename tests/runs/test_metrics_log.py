"""The log and TensorBoard's events, cut at any place: whole lines stay, the rest is written again."""

import json
import shutil
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ghnq.runs.metrics_log import MetricsLog


def test_a_log_cut_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, resume_at=0) as metrics_log:
        for step in range(1, 4):
            metrics_log.write(step, {"loss": 1 / step})
    log = tmp_path / "log.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        log.write_bytes(whole[:length])
        with MetricsLog(tmp_path, resume_at=2) as metrics_log:
            metrics_log.write(3, {"loss": 0.5})
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        kept = [step for step in (1, 2) if length >= len(b"".join(lines[:step])) - 1]  # the newline may be missing
        assert steps == [*kept, 3]


def test_a_log_with_a_hole_of_zeros_or_no_text_is_mended(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\0\n\xff\xfe\n7\n[]\n{"step": 2}\n')
    MetricsLog(tmp_path, resume_at=2).__exit__(None, None, None)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def scalars(folder: Path) -> list[tuple[int, float]]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return [(e.step, e.value) for e in board.Scalars("loss")]


def test_tensorboard_shows_what_the_log_shows_also_after_a_kill_in_an_event(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path, resume_at=0)
    for step in range(1, 5):
        metrics_log.write(step, {"loss": step / 2})
    # Not closed: a killed process closes nothing.
    [events] = (tmp_path / "tensorboard").iterdir()
    whole = events.read_bytes()
    for cut in range(1, 60, 7):
        shutil.rmtree(tmp_path / "tensorboard")
        events.parent.mkdir()
        events.write_bytes(whole[:-cut])
        with MetricsLog(tmp_path, resume_at=2) as again:
            again.write(3, {"loss": 9.0})
        assert scalars(tmp_path / "tensorboard") == [(1, 0.5), (2, 1.0), (3, 9.0)]
    metrics_log.__exit__(None, None, None)
