"""Fabric for one process of a run: its device, its precision, and, under torchrun, the group it belongs to."""

from __future__ import annotations

import logging

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.strategies.strategy import Strategy

from ghnq.training.distributed.topology import PATIENCE, Place

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would greet in the middle of a progress bar


class _Started(LightningEnvironment):
    """Processes that the first one of a team has started, on one machine; `launch.py` has made them a group."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._place.local

    def node_rank(self) -> int:
        return 0


def make_fabric(place: Place) -> Fabric:
    """Fabric, launched: its device is this process's, and collectives of `torch.distributed` reach all of the run."""
    strategy: Strategy
    alone = place.size == 1 or place.sharing > 1  # Fabric knows one process for each device, or a single one
    if alone:
        strategy = SingleDeviceStrategy(place.where)
    else:
        environment = TorchElasticEnvironment() if place.external else _Started(place)
        strategy = DDPStrategy(cluster_environment=environment, timeout=PATIENCE)
    fabric = Fabric(
        accelerator=place.device,
        devices=1 if alone else place.here,
        num_nodes=1 if alone else place.size // place.here,
        strategy=strategy,
        precision="32-true" if place.precision == 32 else "bf16-mixed",
    )
    fabric.launch()
    return fabric
