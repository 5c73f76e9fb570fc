"""What a figure hangs on: weights, images, protocol, versions, processor."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ghnq import __version__
from ghnq.hypernet import GHN

# Integer dot products: x86 with and without AVX-512, and ARM.
_DOT_PRODUCT_FLAGS = {"avx512_vnni", "avx_vnni", "asimddp"}


def weights_hash(ghn: GHN) -> str:
    """SHA-256 of the weights as safetensors, hexadecimal: the hash of `model.safetensors` if they came from one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in ghn.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def versions() -> dict[str, str]:
    """Versions that can change a figure."""
    return {"ghnq": __version__, "torch": torch.__version__, "numpy": metadata.version("numpy")}


def machine() -> dict[str, Any]:
    """Processor, its integer features (null where the system does not say), cores."""
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "vnni": _has_dot_product(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }


def _has_dot_product() -> bool | None:
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return None if flags is None else bool(_DOT_PRODUCT_FLAGS & set(flags.split()))


def _cpuinfo(key: str) -> str | None:
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return None
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)
