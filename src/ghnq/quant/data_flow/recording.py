"""Records one run of a network as a list of operations on numbered values.

An operation is the run of a quantizable layer or of a batch norm, as a whole, or a call of a torch function outside of
these. A value is a tensor at one version: a tensor that is changed in place becomes another value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.eval_calls import Mistakes
from ghnq.network_outputs import named_tensors
from ghnq.quant.data_flow.function_properties import is_query, scales_channels
from ghnq.quant.eval_mode import eval_mode
from ghnq.quant.quantizable import is_quantizable
from ghnq.torch_compat import BatchNorm, overridden_method, own_parameters, tree_leaves, version_counter

CHANGED_IN_PLACE = "changed in place"
"""Function name of the operation that stands for a change in place through another tensor, such as a view."""


@dataclass(frozen=True, eq=False)
class Operation:
    """The run of a layer or of a batch norm, or the call of a function.

    Attributes:
        module: The layer or batch norm; None for a function.
        function: Name of the function; empty for a module.
        caller: Name of the module that called it, for messages.
        inputs: Values of all tensors among the arguments, in their order.
        outputs: Values of all tensors in the result. A tensor that is returned unchanged keeps its value.
        scales_channels: Whether the function fulfils `scales_channels` for its first argument, its first input.
        is_query: Whether the function only reads metadata, such as a shape.
    """

    module: nn.Module | None
    function: str
    caller: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scales_channels: bool = False
    is_query: bool = False


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a network.

    Attributes:
        network: The network.
        operations: All operations, in the order in which they ended.
        results: Values of all tensors in the network's output.
        shapes: Shape of each value, by its number.
        runs: How often each layer and batch norm ran.
        parameters: Names of the values that are parameters of the network.
        mistakes: What the network does that is likely a mistake.
    """

    network: nn.Module
    operations: tuple[Operation, ...]
    results: tuple[int, ...]
    shapes: Sequence[torch.Size]
    runs: Counter[nn.Module]
    parameters: Mapping[int, str]
    mistakes: Mistakes

    def names(self) -> dict[nn.Module, str]:
        """Returns the name of each module."""
        return {module: name for name, module in self.network.named_modules()}


def is_plain_batch_norm(module: nn.Module) -> bool:
    """Returns whether a module computes what `nn.BatchNorm1d`, `2d` or `3d` computes, with parameters of its own."""
    if not isinstance(module, BatchNorm) or overridden_method(module, BatchNorm):
        return False
    parameters = own_parameters(module)
    return "weight" in parameters and "bias" in parameters


@torch.no_grad()
def record(network: nn.Module, images_BCHW: Tensor) -> Recording:
    """Runs a network once in eval mode on images, which may be on the meta device; the network is left as it was."""
    recorder = _Recorder(network)
    with eval_mode(network), ExitStack() as stack:
        for module in network.modules():
            stack.callback(module.register_forward_pre_hook(recorder.enter, with_kwargs=True).remove)
            # Before other hooks, so that what these compute is recorded by itself: it is not part of the layer.
            stack.callback(module.register_forward_hook(recorder.leave, with_kwargs=True, prepend=True).remove)
        recorder.of_images.update(recorder.input_values(images_BCHW))
        with recorder:
            output = network(images_BCHW)
    results = recorder.input_values(list(named_tensors(output).values()))
    runs = Counter(operation.module for operation in recorder.operations if operation.module is not None)
    return Recording(
        network, tuple(recorder.operations), results, recorder.shapes, runs, recorder.parameters, recorder.mistakes
    )


@dataclass
class _Value:
    """The last value of a tensor. The tensor is kept so that no other tensor gets its id."""

    tensor: Tensor
    version: int
    number: int


@dataclass
class _Call:
    """A module that is running; what it calls is recorded unless it is one operation itself."""

    module: nn.Module
    inputs: tuple[int, ...]
    is_operation: bool


@dataclass(eq=False)
class _Recorder(TorchFunctionMode):
    """Records the torch functions that are called while it is active and, through its hooks, the modules that run."""

    network: nn.Module
    operations: list[Operation] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.names = {module: name for name, module in self.network.named_modules()}
        self.parameter_names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        self.parameters: dict[int, str] = {}
        self.mistakes = Mistakes(self.network)
        self.values: dict[int, _Value] = {}
        self.of_images: set[int] = set()
        self.running: list[_Call] = []
        self.in_hook = False

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if self.in_hook or (self.running and self.running[-1].is_operation):
            return func(*args, **kwargs)
        inputs = self.input_values((args, kwargs))
        result = func(*args, **kwargs)
        name, outputs = getattr(func, "__name__", ""), _tensors(result)
        self.mistakes.note_call(name, args, kwargs, on_images=not self.of_images.isdisjoint(inputs))
        self.operations.append(
            Operation(
                module=None,
                function=name,
                caller=self._caller(),
                inputs=inputs,
                outputs=self._output_values(outputs, inputs),
                scales_channels=len(outputs) == 1 and scales_channels(name, outputs[0], args, kwargs),
                is_query=is_query(func),
            )
        )
        return result

    def enter(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """The forward pre-hook of every module."""
        self.in_hook = True
        is_operation = is_quantizable(module) or is_plain_batch_norm(module)
        inputs = self.input_values((args, kwargs)) if is_operation else ()
        self.running.append(_Call(module, inputs, is_operation))
        self.in_hook = False

    def leave(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], output: object) -> None:
        """The forward hook of every module."""
        self.in_hook = True
        call = self.running.pop()
        if call.is_operation:
            outputs = self._output_values(_tensors(output), call.inputs)
            self.operations.append(Operation(module, "", self._caller(), call.inputs, outputs))
        self.in_hook = False

    def input_values(self, arguments: object) -> tuple[int, ...]:
        """Returns the values of all tensors among arguments."""
        return tuple(map(self._input_value, _tensors(arguments)))

    def _input_value(self, tensor: Tensor) -> int:
        value = self.values.get(id(tensor))
        if value is None:
            number = self._new_value(tensor)
            if id(tensor) in self.parameter_names:
                self.parameters[number] = self.parameter_names[id(tensor)]
            else:
                self.mistakes.note_unregistered(tensor)
            return number
        if value.version != version_counter(tensor):
            before, after = value.number, self._new_value(tensor)
            self.operations.append(Operation(None, CHANGED_IN_PLACE, self._caller(), (before,), (after,)))
            if before in self.of_images:
                self.of_images.add(after)
            return after
        return value.number

    def _output_values(self, tensors: Sequence[Tensor], inputs: Sequence[int]) -> tuple[int, ...]:
        """Returns the values of results, which depend on the images if one of the inputs does."""
        values = tuple(map(self._output_value, tensors))
        if not self.of_images.isdisjoint(inputs):
            self.of_images.update(values)
        return values

    def _output_value(self, tensor: Tensor) -> int:
        value = self.values.get(id(tensor))
        return self._new_value(tensor) if value is None or value.version != version_counter(tensor) else value.number

    def _new_value(self, tensor: Tensor) -> int:
        number = len(self.shapes)
        self.shapes.append(tensor.shape)
        self.values[id(tensor)] = _Value(tensor, version_counter(tensor), number)
        return number

    def _caller(self) -> str:
        if not self.running:
            return "the network"
        name = self.names.get(self.running[-1].module, "")
        return repr(name) if name else "the network"


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
