"""CUDA graphs of the networks of a training step: captured once, replayed whenever the network is trained again.

A small network is some hundred kernels that a GPU runs faster than Python can launch them. A CUDA graph launches all of
them at once. Capturing takes longer than running the network, so a network is captured when it is trained for the
second time, and that pays if it is trained often (the recipe's `reuse`).

All graphs share the memory of their activations: they are replayed one after another, and the result of one is copied
before the next one starts.
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
"""Runs one network: its parameters, images and labels -> its result."""


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph with its input and output tensors.

    Attributes:
        batch: Images and labels, the same tensors for all graphs with batches of this shape.
    """

    graph: torch.cuda.CUDAGraph
    parameters: Parameters
    batch: tuple[Tensor, Tensor]
    result: Result

    def replay(self, parameters: Parameters, images: Tensor, labels: Tensor) -> Result:
        copy_tensors(list(self.parameters.values()), [parameters[name] for name in self.parameters])
        self.batch[0].copy_(images)
        self.batch[1].copy_(labels)
        self.graph.replay()
        loss, accuracy, gradients = self.result
        copies = [torch.empty_like(g) for g in gradients.values()]
        copy_tensors(copies, list(gradients.values()))
        return loss.clone(), accuracy.clone(), dict(zip(gradients, copies, strict=True))


class CudaGraphCache:
    """Runs networks, from the second time on by a graph; keeps the `capacity` networks that were used last."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # The modules are kept so that their ids are not used again.
        self._seen: OrderedDict[Key, tuple[nn.Module, _Captured | None]] = OrderedDict()
        self._batches: dict[tuple[torch.Size, torch.Size], tuple[Tensor, Tensor]] = {}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, module: nn.Module, run: Run, parameters: Parameters, images: Tensor, labels: Tensor) -> Result:
        """Returns `run(parameters, images, labels)`; `run` is the same for a module and batch shape in every call."""
        key = (id(module), images.shape, labels.shape)
        if key not in self._seen:
            self._seen[key] = module, None
            while len(self._seen) > self.capacity:
                self._seen.popitem(last=False)
            return run(parameters, images, labels)
        captured = self._seen[key][1] or self._capture(run, parameters, images, labels)
        self._seen[key] = module, captured
        self._seen.move_to_end(key)
        return captured.replay(parameters, images, labels)

    def _capture(self, run: Run, parameters: Parameters, images: Tensor, labels: Tensor) -> _Captured:
        if all(captured is None for _, captured in self._seen.values()):
            # A memory pool is freed with the last of its graphs, and its handle cannot be used again.
            self._memory = torch.cuda.graph_pool_handle()
        kept = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        shapes = (images.shape, labels.shape)
        batch = self._batches.setdefault(shapes, (torch.empty_like(images), torch.empty_like(labels)))
        graph = torch.cuda.CUDAGraph()
        # `torch.cuda.graph` is not used: it synchronizes first and releases all cached memory.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Calls from other threads, such as preparing the next step, are neither captured nor errors.
            graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
            try:
                result = run(kept, *batch)
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return _Captured(graph, kept, batch, result)
