"""A CUDA device's utilisation, and NVIDIA's multi-process service (MPS)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Percent of time in which the first card runs any kernel, sampled meanwhile; filled when the block ends."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    found: list[float] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield found
    finally:
        process.terminate()
        lines = (process.communicate()[0] or "").split("\n")
        found += [float(line) for line in lines[3:] if line.strip().isdigit()]  # the first ones are of before


@contextlib.contextmanager
def service() -> Iterator[dict[str, str] | None]:
    """The environment of processes that share the card through the service; None where it cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        try:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], env=os.environ | own, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no multi-process service: {error}", file=sys.stderr)
            yield None
            return
        try:
            yield own
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], env=os.environ | own, input="quit\n", text=True, timeout=20)
