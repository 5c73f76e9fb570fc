"""The processes of a run: on which kind of device, how many, and who starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch

from ghnq.errors import TrainingError
from ghnq.training.recipe import Recipe

TIMEOUT = timedelta(minutes=30)
"""Timeout of collectives; longer than any validation, during which the other processes wait for the first one."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Processes of a run: one for each device, or several that share one.

    Attributes:
        device_type: Kind of device that networks run on.
        precision: Precision of the networks' forward and backward passes.
        world_size: Number of processes.
        local_world_size: Number of processes on this machine.
        rank: Rank of this process among all.
        local_rank: Rank of this process among those on this machine.
        by_torchrun: Whether torchrun has started the processes; otherwise the first process starts the others.
        processes_per_device: Number of processes that share a device.
    """

    device_type: Literal["cpu", "cuda"] = "cpu"
    precision: Literal[32, "bf16"] = 32
    world_size: int = 1
    local_world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    by_torchrun: bool = False
    processes_per_device: int = 1

    @property
    def backend(self) -> Literal["nccl", "gloo"]:
        """Backend of `torch.distributed`; NCCL does not allow two processes on one device."""
        return "nccl" if self.device_type == "cuda" and self.processes_per_device == 1 else "gloo"

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        if self.device_type == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank // self.processes_per_device)


def launched_rank() -> int:
    """Returns the rank of a process that torchrun has started, and 0 for any other."""
    return int(os.environ["RANK"]) if torch.distributed.is_torchelastic_launched() else 0


def choose_topology(recipe: Recipe, devices: int | None) -> Topology:
    """Returns the topology that follows from a recipe, `--devices`, and this machine.

    Raises:
        TrainingError: They contradict each other.
    """
    device_type = recipe.device
    if device_type == "auto":
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
    if devices is not None and devices < 1:
        raise TrainingError(f"--devices is {devices}; give the number of devices to train on, at least 1")
    by_torchrun = torch.distributed.is_torchelastic_launched()
    processes_per_device = recipe.cuda_workers if device_type == "cuda" else 1
    if by_torchrun:
        world_size, local_world_size = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if devices is not None and devices != local_world_size:
            raise TrainingError(
                f"--devices is {devices}, but torchrun has started {local_world_size} processes here; leave --devices "
                "out"
            )
    else:
        per_run = devices or (recipe.workers if device_type == "cpu" else 1)
        world_size = local_world_size = processes_per_device * per_run
        rank = local_rank = 0
    if device_type == "cuda":
        _check_cuda(-(-local_world_size // processes_per_device))
    if recipe.meta_batch < world_size:
        option = "cuda_workers" if processes_per_device > 1 else "devices"
        fewer = "start fewer by torchrun" if by_torchrun else f"take fewer {option}"
        raise TrainingError(
            f"meta_batch {recipe.meta_batch} is fewer than {world_size} processes, and each needs a network of every "
            f"step; set meta_batch={world_size} or more, or {fewer}"
        )
    return Topology(
        device_type=device_type,
        precision=recipe.precision,
        world_size=world_size,
        local_world_size=local_world_size,
        rank=rank,
        local_rank=local_rank,
        by_torchrun=by_torchrun,
        processes_per_device=processes_per_device,
    )


def _check_cuda(wanted: int) -> None:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < wanted:
        have = f"{found} CUDA device{'s' if found > 1 else ''}" if found else "no CUDA device"
        remedy = f"--devices {found} or fewer" if found else "device=cpu in the recipe (or --device cpu)"
        raise TrainingError(f"the run asks for {wanted} CUDA devices, and PyTorch finds {have} here; take {remedy}")
