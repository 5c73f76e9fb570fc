"""What a figure hangs on: weights, images, protocol, versions, processor."""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from typing import Any

import torch
from safetensors.torch import save

from ghnq import __version__
from ghnq.hypernet import GHN
from ghnq.processor import this_processor


def weights_hash(ghn: GHN) -> str:
    """SHA-256 of the weights as safetensors, hexadecimal: the hash of `model.safetensors` if they came from one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in ghn.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def versions() -> dict[str, str]:
    """Versions that can change a figure."""
    return {"ghnq": __version__, "torch": torch.__version__, "numpy": metadata.version("numpy")}


def machine() -> dict[str, Any]:
    """Processor, its integer features (null where the system does not say), cores."""
    processor = this_processor()
    return {
        "processor": processor.name,
        "vnni": processor.dot_product,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }
