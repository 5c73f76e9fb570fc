"""Damaged files of every kind end in success or a GhnqError, within 10 seconds and 2 GB, and run nothing.

`GHNQ_MUTATED=1000` reads so many of each kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutated.kinds import KINDS

COUNT = {
    "recipe": 60,
    "scheme": 300,
    "config": 100,
    "weights": 100,
    "ledger": 300,
    "onnx": 100,
    "pt2": 25,
    "parquet": 15,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_files(kind: str, tmp_path: Path, repo_root: Path) -> None:
    if kind == "pt2":
        from ghnq.torch_compat import has_program_archive

        if not has_program_archive():
            pytest.skip("torch is older than 2.8, which .pt2 files need")
    count = os.environ.get("GHNQ_MUTATED", COUNT[kind])
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "c"), "HF_HOME": str(tmp_path / "h"),
        "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "tests.mutated.kinds", kind, str(count), "0", str(tmp_path / "files")],
        cwd=repo_root, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    *faults, last = ended.stdout.splitlines() or [""]
    assert ended.returncode == 0, (faults[:3], ended.returncode, ended.stderr[-2000:])
    assert json.loads(last)["wrong"] == 0
