"""Networks of a training step on a GPU, recorded as CUDA graphs and played again.

A small network is some hundred kernels that a GPU runs faster than Python can ask for them. A CUDA graph asks for all
of them at once. Recording one takes longer than running the network, so a network is recorded when it comes back
for the first time, and pays where it comes back often (the recipe's `reuse`).

All graphs have their activations in the same memory: they are played one after another, and what a graph has computed
is copied before the next one begins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ghnq.hypernet.model import Parameters
from ghnq.torch_compat import copy_tensors

Key = tuple[int, torch.Size, torch.Size]
Result = tuple[Tensor, Tensor, Parameters]
"""Loss, accuracy in 0..1, and the gradient by parameter name."""
Run = Callable[[Parameters, Tensor, Tensor], Result]
"""Of one network: its parameters, images and labels -> its result."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, where it reads its inputs, and where it leaves what it computes.

    batch: images and labels, the same tensors for all graphs of one shape of them.
    """

    graph: torch.cuda.CUDAGraph
    parameters: Parameters
    batch: tuple[Tensor, Tensor]
    result: Result

    def play(self, parameters: Parameters, images: Tensor, labels: Tensor) -> Result:
        copy_tensors(list(self.parameters.values()), [parameters[name] for name in self.parameters])
        self.batch[0].copy_(images)
        self.batch[1].copy_(labels)
        self.graph.replay()
        loss, accuracy, gradients = self.result
        copies = [torch.empty_like(g) for g in gradients.values()]
        copy_tensors(copies, list(gradients.values()))
        return loss.clone(), accuracy.clone(), dict(zip(gradients, copies, strict=True))


class Replay:
    """Runs networks, from the second time on by a graph; keeps the `most` that came last."""

    def __init__(self, most: int) -> None:
        self.most = most
        # With the modules, which are kept so that their ids stay theirs.
        self._seen: OrderedDict[Key, tuple[nn.Module, _Recorded | None]] = OrderedDict()
        self._batches: dict[tuple[torch.Size, torch.Size], tuple[Tensor, Tensor]] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, module: nn.Module, run: Run, parameters: Parameters, images: Tensor, labels: Tensor) -> Result:
        """What run(parameters, images, labels) gives; run: the same for a module and a shape whenever they come."""
        key = (id(module), images.shape, labels.shape)
        if key not in self._seen:
            self._seen[key] = module, None
            while len(self._seen) > self.most:
                self._seen.popitem(last=False)
            return run(parameters, images, labels)
        recorded = self._seen[key][1] or self._record(run, parameters, images, labels)
        self._seen[key] = module, recorded
        self._seen.move_to_end(key)
        return recorded.play(parameters, images, labels)

    def _record(self, run: Run, parameters: Parameters, images: Tensor, labels: Tensor) -> _Recorded:
        if all(recorded is None for _, recorded in self._seen.values()):
            # The memory of graphs ends with the last of them, and its handle cannot be used again.
            self._memory = torch.cuda.graph_pool_handle()
        kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        shapes = (images.shape, labels.shape)
        batch = self._batches.setdefault(shapes, (torch.empty_like(images), torch.empty_like(labels)))
        graph = torch.cuda.CUDAGraph()
        # Not by `torch.cuda.graph`, which first waits for the device and gives all its free memory back.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # What other threads do meanwhile, such as preparing the next step, is not part of it, and no error.
            graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
            try:
                result = run(kept, *batch)
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return _Recorded(graph, kept, batch, result)
