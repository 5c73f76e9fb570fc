"""The processes that train a hypernetwork: each trains at least one network of every step."""

from __future__ import annotations

from ghnq.errors import TrainingError
from ghnq.runs.distributed.topology import Topology, arrange_processes
from ghnq.training.recipe import Recipe


def choose_topology(recipe: Recipe, devices: int | None) -> Topology:
    """Returns the topology that follows from a recipe, `--devices`, and this machine.

    Raises:
        TrainingError: They contradict each other.
    """
    topology = arrange_processes(
        device=recipe.device,
        devices=devices,
        precision=recipe.precision,
        cpu_processes=recipe.workers,
        processes_per_device=recipe.cuda_workers,
        cpu_remedy="device=cpu in the recipe (or --device cpu)",
    )
    if recipe.meta_batch < topology.world_size:
        option = "cuda_workers" if topology.processes_per_device > 1 else "devices"
        fewer = "start fewer by torchrun" if topology.by_torchrun else f"take fewer {option}"
        raise TrainingError(
            f"meta_batch {recipe.meta_batch} is fewer than {topology.world_size} processes, and each needs a network "
            f"of every step; set meta_batch={topology.world_size} or more, or {fewer}"
        )
    return topology
