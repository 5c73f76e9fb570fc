"""One update of the hypernetwork: predict, run every network, collect gradients, go back through the hypernetwork once.

The predicted tensors are cut off from the hypernetwork's graph before the networks run, so each network's activations
are freed as soon as its own backward pass is done, and networks can run in threads side by side.

Dimensions: M networks, B images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ghnq.hypernet.model import GHN, Parameters
from ghnq.training.architectures import MetaBatch

# oneDNN compiles a kernel for every new shape and keeps the last 1,024. A few networks use that many; compiling anew
# each time costs more than running small convolutions. Read by oneDNN when it first runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean loss and accuracy (percent) over the networks of a step."""

    loss: float
    accuracy: float


class NetworkRunner:
    """Runs the networks of a meta-batch in threads, one processor thread each."""

    def __init__(self, workers: int, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def run(
        self,
        modules: Sequence[nn.Module],
        parameters: Sequence[Parameters],
        images: Sequence[Tensor],
        labels: Sequence[Tensor],
        meanwhile: Callable[[], None],
    ) -> tuple[Outcome, list[Parameters]]:
        """Forward and backward of every network; returns the gradients of its mean loss divided by M.

        meanwhile: called while the threads work, to prepare the next step.
        """
        share = 1.0 / len(modules)
        jobs = [
            self._pool.submit(self._run_one, module, tensors, x, y, share)
            for module, tensors, x, y in zip(modules, parameters, images, labels, strict=True)
        ]
        meanwhile()
        results = [job.result() for job in jobs]
        loss = torch.stack([r[0] for r in results]).sum()
        accuracy = 100 * torch.stack([r[1] for r in results]).mean()
        return Outcome(float(loss), float(accuracy)), [r[2] for r in results]

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _run_one(
        self, module: nn.Module, tensors: Parameters, x: Tensor, y: Tensor, share: float
    ) -> tuple[Tensor, Tensor, Parameters]:
        with torch.enable_grad():
            leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}
            logits = functional_call(module, leaves, (x.contiguous(memory_format=torch.channels_last),))
            loss = share * F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
        correct = (logits.detach().argmax(1) == y).float().mean()
        return loss.detach(), correct, dict(zip(leaves, gradients, strict=True))


def accumulate_gradients(
    ghn: GHN,
    batch: MetaBatch,
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    runner: NetworkRunner,
    meanwhile: Callable[[], None] = lambda: None,
) -> Outcome:
    """Adds the gradient of the mean loss over the meta-batch to the hypernetwork's parameters.

    images, labels: per network [B, C, H, W] and [B]. meanwhile: called while the networks run.
    """
    graphs = batch.graphs
    groups = ghn.decode(ghn.encode(graphs), graphs)
    networks: list[Parameters] = [{} for _ in range(graphs.size)]
    for group, stacked in zip(graphs.groups, groups, strict=True):
        for slot, tensor in zip(group.slots, stacked.detach().unbind(0), strict=True):
            networks[slot.graph][slot.name] = tensor
    outcome, gradients = runner.run(batch.modules, networks, images, labels, meanwhile)
    stacked_gradients = [torch.stack([gradients[s.graph][s.name] for s in g.slots]) for g in graphs.groups]
    torch.autograd.backward(groups, stacked_gradients)
    return outcome
