"""One state: truncated anywhere, changed in any byte, or never renamed; what is damaged is never taken for whole."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.errors import CheckpointError
from ghnq.hypernet import GHN, GHNConfig, Task
from ghnq.runs.state_files import PREVIOUS, STATE, writing_state
from ghnq.training.run.state import Progress, load_last_state, read_state, write_state

TASK = Task(data="digits", image_shape=(1, 8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a state, optimizer and average included."""
    torch.manual_seed(0)
    ghn = GHN(GHNConfig(hidden=8, max_shape=(4, 4, 1, 1), decoder_hidden=(8, 8)))
    optimizer = torch.optim.AdamW(ghn.parameters())
    for parameter in ghn.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = tmp_path_factory.mktemp("state") / STATE
    write_state(path, ghn, {k: v.clone() for k, v in ghn.state_dict().items()}, optimizer, Progress(step=7), "{}", TASK)
    assert read_state(path).progress.step == 7
    return path.read_bytes()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / STATE


@given(data=st.data())
@settings(max_examples=200)
def test_a_state_truncated_anywhere_is_refused(written: bytes, damaged: Path, data: st.DataObject) -> None:
    damaged.write_bytes(written[: data.draw(st.integers(0, len(written) - 1))])
    with pytest.raises(CheckpointError, match="truncated"):
        read_state(damaged)


@given(data=st.data())
@settings(max_examples=300)
def test_a_state_with_a_changed_byte_is_refused(written: bytes, damaged: Path, data: st.DataObject) -> None:
    header = 8 + int.from_bytes(written[:8], "little")
    place = data.draw(st.one_of(st.integers(0, header - 1), st.integers(header, len(written) - 1)))
    changed = bytearray(written)
    changed[place] ^= data.draw(st.integers(1, 255))
    damaged.write_bytes(changed)
    with pytest.raises(CheckpointError):
        read_state(damaged)


def test_bytes_of_zero_within_tensors_are_noticed(written: bytes, damaged: Path) -> None:
    """What a file system leaves of a file whose length was saved and whose content was not."""
    header = 8 + int.from_bytes(written[:8], "little")
    damaged.write_bytes(written[: header + 100] + bytes(len(written) - header - 100))
    with pytest.raises(CheckpointError, match="checksum"):
        read_state(damaged)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_between_the_renames_leaves_a_state(
    written: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    real, done = os.replace, []

    def crashes(*places: Any) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(real(*places))  # type: ignore[func-returns-value]

    (tmp_path / STATE).write_bytes(written)
    monkeypatch.setattr(os, "replace", crashes)
    with pytest.raises(KeyboardInterrupt), writing_state(tmp_path) as path:
        path.write_bytes(written)
    monkeypatch.undo()
    assert load_last_state(tmp_path).path.name == (PREVIOUS if renames else STATE)
