"""Where a run takes place: on which kind of device, in how many processes, and who starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch

from ghnq.errors import TrainingError
from ghnq.training.run.recipe import Recipe

PATIENCE = timedelta(minutes=30)
"""Longer than any validation, during which the others wait for the first process."""


@dataclass(frozen=True, slots=True)
class Place:
    """Processes of a run, one for each device or several that share one.

    size: of them in all. here: of them on this machine. rank: of this process among all, local: among those here.
    external: torchrun has started them; else the first process starts the others. sharing: how many have one device.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal[32, "bf16"] = 32
    size: int = 1
    here: int = 1
    rank: int = 0
    local: int = 0
    external: bool = False
    sharing: int = 1

    @property
    def backend(self) -> str:
        """What exchanges the gradients; NCCL refuses two processes on one device."""
        return "nccl" if self.device == "cuda" and self.sharing == 1 else "gloo"

    @property
    def where(self) -> torch.device:
        """This process's device."""
        return torch.device("cuda", self.local // self.sharing) if self.device == "cuda" else torch.device("cpu")


def launched_rank() -> int:
    """The rank of a process that torchrun has started; 0 for one that a person has."""
    return int(os.environ["RANK"]) if torch.distributed.is_torchelastic_launched() else 0


def choose_place(recipe: Recipe, devices: int | None) -> Place:
    """The place that a recipe, `--devices`, and this machine come to; raises TrainingError if they do not agree."""
    device = recipe.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if devices is not None and devices < 1:
        raise TrainingError(f"--devices is {devices}; give the number of devices to train on, at least 1")
    external = torch.distributed.is_torchelastic_launched()
    sharing = recipe.cuda_workers if device == "cuda" else 1
    if external:
        size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if devices is not None and devices != here:
            raise TrainingError(
                f"--devices is {devices}, but torchrun has started {here} processes here; leave --devices out"
            )
    else:
        size = here = sharing * (devices or (recipe.workers if device == "cpu" else 1))
        rank = local = 0
    if device == "cuda":
        _check_cuda(-(-here // sharing))
    if recipe.meta_batch < size:
        fewer = "start fewer by torchrun" if external else f"take fewer {'cuda_workers' if sharing > 1 else 'devices'}"
        raise TrainingError(
            f"meta_batch {recipe.meta_batch} is fewer than {size} processes, and each needs a network of every step; "
            f"set meta_batch={size} or more, or {fewer}"
        )
    return Place(device, recipe.precision, size, here, rank, local, external, sharing)


def _check_cuda(wanted: int) -> None:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < wanted:
        have = f"{found} CUDA device{'s' if found > 1 else ''}" if found else "no CUDA device"
        remedy = f"--devices {found} or fewer" if found else "device=cpu in the recipe (or --device cpu)"
        raise TrainingError(f"the run asks for {wanted} CUDA devices, and PyTorch finds {have} here; take {remedy}")
