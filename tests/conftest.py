"""Fixtures for all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest

# A suite that a shell started in its background ignores Ctrl-C, and so would the processes that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, on machines of any speed.
hypothesis.settings.register_profile("ghnq", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ghnq")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder with pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `../shared` beside the checkout (CIFAR-10 copies, references' outputs); skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared beside the checkout (data sets and outputs of the references)")
    return folder
