"""The processes of a run: on which kind of device, how many, and who starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch

from ghnq.errors import TrainingError

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


def arrange_processes(
    *,
    device: Literal["auto", "cpu", "cuda"],
    devices: int | None,
    precision: Literal[32, "bf16"] = 32,
    cpu_processes: int = 1,
    processes_per_device: int = 1,
    cpu_remedy: str = "--device cpu",
) -> Topology:
    """Returns the topology that follows from the options of a run and from this machine.

    Args:
        device: Kind of device; auto is CUDA where there is one.
        devices: CUDA devices, or processes on the CPU; None is one device, or `cpu_processes`.
        precision: Precision of forward and backward passes.
        cpu_processes: Processes on the CPU where `devices` is None.
        processes_per_device: Processes that share each CUDA device.
        cpu_remedy: How to train on the CPU, for messages.

    Raises:
        TrainingError: The options contradict each other, or the machine does not have the devices.
    """
    available: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    device_type = available if device == "auto" else device
    if devices is not None and devices < 1:
        raise TrainingError(f"--devices is {devices}; give the number of devices to train on, at least 1")
    by_torchrun = torch.distributed.is_torchelastic_launched()
    per_device = processes_per_device if device_type == "cuda" else 1
    if by_torchrun:
        world_size, local_world_size = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if devices is not None and devices != local_world_size:
            raise TrainingError(
                f"--devices is {devices}, but torchrun has started {local_world_size} processes here; leave --devices "
                "out"
            )
    else:
        per_run = devices or (cpu_processes if device_type == "cpu" else 1)
        world_size = local_world_size = per_device * per_run
        rank = local_rank = 0
    if device_type == "cuda":
        _check_cuda(-(-local_world_size // per_device), cpu_remedy)
    return Topology(
        device_type=device_type,
        precision=precision,
        world_size=world_size,
        local_world_size=local_world_size,
        rank=rank,
        local_rank=local_rank,
        by_torchrun=by_torchrun,
        processes_per_device=per_device,
    )


def _check_cuda(wanted: int, cpu_remedy: str) -> None:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < wanted:
        have = f"{found} CUDA device{'s' if found > 1 else ''}" if found else "no CUDA device"
        remedy = f"--devices {found} or fewer" if found else cpu_remedy
        raise TrainingError(f"the run asks for {wanted} CUDA devices, and PyTorch finds {have} here; take {remedy}")
