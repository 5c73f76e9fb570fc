"""Lightning Fabric for one process of a run: its device, its precision, and, under torchrun, its process group."""

from __future__ import annotations

import logging

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.strategies.strategy import Strategy

from ghnq.runs.distributed.topology import TIMEOUT, Topology

# Fabric's greeting would be printed in the middle of a progress bar.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


class _LocalEnvironment(LightningEnvironment):
    """Processes on one machine that the first one has started; `launch.py` has made them a process group."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self._topology = topology

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._topology.local_rank

    def node_rank(self) -> int:
        return 0


def make_fabric(topology: Topology) -> Fabric:
    """Returns a launched Fabric on this process's device; `torch.distributed` reaches all processes of the run."""
    strategy: Strategy
    # Fabric supports a single process, or one process for each device.
    single = topology.world_size == 1 or topology.processes_per_device > 1
    if single:
        strategy = SingleDeviceStrategy(topology.device)
    else:
        environment = TorchElasticEnvironment() if topology.by_torchrun else _LocalEnvironment(topology)
        strategy = DDPStrategy(cluster_environment=environment, timeout=TIMEOUT)
    fabric = Fabric(
        accelerator=topology.device_type,
        devices=1 if single else topology.local_world_size,
        num_nodes=1 if single else topology.world_size // topology.local_world_size,
        strategy=strategy,
        precision="32-true" if topology.precision == 32 else "bf16-mixed",
    )
    fabric.launch()
    return fabric
