"""What the results depend on besides images and schemes: weights, versions, machine."""

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
"""JSON: processor, vnni, torch_capability, cores."""


def weights_hash(ghn: GHN) -> str:
    """Returns the SHA-256 of the weights as safetensors, hexadecimal: that of the file that they were read from."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in ghn.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions that results may depend on."""
    return {"ghnq": __version__, "torch": torch.__version__, "numpy": metadata.version("numpy")}


def machine() -> Machine:
    """Returns the processor, its integer features (None where they are not known), and the number of cores."""
    processor = this_processor()
    return {
        "processor": processor.name,
        "vnni": processor.dot_product,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }


def machines_of(summaries: Iterable[dict[str, Any]]) -> list[Machine | None]:
    """Returns the machines in the summaries of evaluations, each once."""
    found: list[Machine | None] = []
    for summary in summaries:
        found += [each for each in summary["machines"] if each not in found]
    return found


def described(machines: Sequence[Machine | None]) -> str:
    """Returns machines as text: cores, vector instructions, VNNI; None is a machine that is not known.

    >>> described([{"cores": 2, "torch_capability": "AVX2", "vnni": False}])
    '2 cores (AVX2, without VNNI)'
    """
    vnni = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}
    texts = [
        "an unknown machine" if each is None
        else f"{each['cores']} cores ({each['torch_capability']}, {vnni[each['vnni']]})"
        for each in machines
    ]  # fmt: skip
    return " and ".join(texts)
