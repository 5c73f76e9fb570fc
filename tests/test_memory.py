"""The allocator keeps freed memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

TENSORS = """
from pathlib import Path
import torch
from ghnq.memory import keep_freed_memory

def resident():  # bytes
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

torch.set_num_threads(1)
torch.ones(1)
kept = KEEP and keep_freed_memory()
before = resident()
tensors = [torch.ones(2_000_000) for _ in range(20)]  # 8 MB each
del tensors
print(kept, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    def measured(keep: bool) -> tuple[str, int]:
        program = TENSORS.replace("KEEP", str(keep))
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        kept, grown = run.stdout.split()
        return kept, int(grown)

    kept, grown = measured(True)
    if kept == "False":
        pytest.skip("the allocator is not glibc's")
    assert grown > 150e6
    assert measured(False)[1] < 50e6
