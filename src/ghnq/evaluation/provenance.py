"""What a figure hangs on: weights, images, protocol, versions, processor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import torch
from safetensors.torch import save

from ghnq._version import __version__
from ghnq.hypernet import GHN
from ghnq.processor import this_processor

Machine = dict[str, Any]


def weights_hash(ghn: GHN) -> str:
    """SHA-256 of the weights as safetensors, hexadecimal: the hash of `model.safetensors` if they came from one."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in ghn.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def versions() -> dict[str, str]:
    """Versions that can change a figure."""
    return {"ghnq": __version__, "torch": torch.__version__, "numpy": metadata.version("numpy")}


def machine() -> Machine:
    """Processor, its integer features (null where the system does not say), cores."""
    processor = this_processor()
    return {
        "processor": processor.name,
        "vnni": processor.dot_product,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }


def machines_of(summaries: Iterable[dict[str, Any]]) -> list[Machine | None]:
    """The machines that summaries of evaluations name, each once."""
    found: list[Machine | None] = []
    for summary in summaries:
        found += [one for one in summary["machines"] if one not in found]
    return found


def described(machines: Sequence[Machine | None]) -> str:
    """Machines in words: cores, vector instructions, VNNI; None is one that is not known.

    >>> described([{"cores": 2, "torch_capability": "AVX2", "vnni": False}])
    '2 cores (AVX2, without VNNI)'
    """
    vnni = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}
    words = [
        "a machine unnamed" if one is None else f"{one['cores']} cores ({one['torch_capability']}, {vnni[one['vnni']]})"
        for one in machines
    ]
    return " and ".join(words)
