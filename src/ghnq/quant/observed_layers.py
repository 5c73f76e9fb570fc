"""Modules whose forward is one convolution or linear map of their input, with a weight that they compute themselves.

Convolutions that standardise their weight (Qiao et al. 2019, arXiv 1903.10520; NFNets, arXiv 2102.06171), equalized
learning rates, `F.conv2d` of a module's own parameter: where the weight does not depend on the input, it is a constant
in eval mode, and the module is a plain layer with that weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.network_outputs import named_tensors
from ghnq.quant.quantizable import is_quantizable
from ghnq.quant.replacement import replace_module
from ghnq.torch_compat import share_hooks

_CONVOLUTIONS: dict[Callable[..., object], type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    F.conv1d: nn.Conv1d,
    F.conv2d: nn.Conv2d,
    F.conv3d: nn.Conv3d,
}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


@torch.no_grad()
def materialise_observed(network: nn.Module, images: Tensor) -> bool:
    """Replaces such modules by plain layers, in place, where the network then computes the same, bit for bit.

    Args:
        network: In eval mode.
        images: [B, C, H, W], a few; the network runs on them and on a changed copy.

    Returns:
        Whether there were any.
    """
    outputs = network(images)
    observer = _Observer(network)
    for batch in (images, images.flip(-1) * 0.5 + 0.1):
        observer.run(batch)
    replaced: dict[str, tuple[nn.Module, nn.Module]] = {}
    names = {module: name for name, module in network.named_modules()}
    for module, runs in observer.runs.items():
        layer = _plain_layer(runs) if names[module] and type(module).__call__ is nn.Module.__call__ else None
        if layer is not None:
            share_hooks(module, layer)  # after these, the layer pads
            replace_module(network, module, layer)
            replaced[names[module]] = module, layer
    if replaced and not _computes(network, images, outputs):
        for module, layer in replaced.values():
            replace_module(network, layer, module)
        return False
    return bool(replaced)


def _computes(network: nn.Module, images: Tensor, expected: object) -> bool:
    try:
        found = network(images)
    except (RuntimeError, TypeError, AttributeError, KeyError):  # of a hook that computes the weight anew
        return False
    pairs = zip(named_tensors(found).values(), named_tensors(expected).values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@dataclass(frozen=True)
class Padding:
    """A forward pre-hook that pads the input, as the module that the layer replaces did before its convolution."""

    pad: tuple[int, ...]
    mode: str
    value: float | None

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns the arguments with the first one padded."""
        return (F.pad(args[0], self.pad, self.mode, self.value), *args[1:])


@dataclass(frozen=True, eq=False)
class _Call:
    """A convolution or linear map: its arguments by name, the padding of its input before, and its result."""

    function: Callable[..., object]
    given: dict[str, object]
    padding: Padding | None
    result: object


@dataclass
class _Run:
    """One run of a module: its input, and the convolutions and linear maps that it computed itself."""

    module: nn.Module
    input: object
    calls: list[_Call] = field(default_factory=list)
    output: object = None


class _Observer(TorchFunctionMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.runs: defaultdict[nn.Module, list[_Run]] = defaultdict(list)
        self._running: list[_Run] = []
        self._padded: dict[int, tuple[Tensor, Padding, Tensor]] = {}  # by the id of the result, which is kept

    def run(self, images: Tensor) -> None:
        """Runs the network and adds what its modules do to `runs`."""
        with ExitStack() as stack:
            for module in self.network.modules():
                stack.callback(module.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._leave, prepend=True).remove)
            with self:
                self.network(images)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if self._running and (func in _CONVOLUTIONS or func is F.linear):
            given = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs or {})
            source, padding, _ = self._padded.get(id(given["input"]), (given["input"], None, None))
            self._running[-1].calls.append(_Call(func, given | {"input": source}, padding, result))
        elif func is F.pad:
            padded = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | dict(kwargs or {})
            tensor, pad = padded["input"], padded["pad"]
            assert isinstance(tensor, Tensor)
            assert isinstance(result, Tensor)
            padding = Padding(tuple(pad), str(padded.get("mode", "constant")), padded.get("value"))  # type: ignore[arg-type]
            self._padded[id(result)] = tensor, padding, result
        return result

    def _enter(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        alone = len(args) == 1 and not kwargs
        self._running.append(_Run(module, args[0] if alone else None))

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        run = self._running.pop()
        run.output = output
        if run.calls and not is_quantizable(module):
            self.runs[module].append(run)


def _plain_layer(runs: Sequence[_Run]) -> nn.Module | None:
    """Returns the layer that a module is; None if one of its runs was something else, or the runs differ."""
    calls = []
    for run in runs:
        if len(run.calls) != 1 or run.output is not run.calls[0].result or run.input is not run.calls[0].given["input"]:
            return None
        calls.append(run.calls[0])
    first = calls[0]
    for call in calls:
        if call.function is not first.function or call.given.keys() != first.given.keys():
            return None
        if call.padding != first.padding:
            return None
        if not all(_same(call.given[name], first.given[name]) for name in first.given if name != "input"):
            return None
    layer = _layer(first.function, {name: value for name, value in first.given.items() if name != "input"})
    if first.padding is not None:
        layer.register_forward_pre_hook(first.padding)
    return layer


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)


def _layer(function: Callable[..., object], given: dict[str, object]) -> nn.Module:
    weight, bias = given.pop("weight"), given.pop("bias", None)
    assert isinstance(weight, Tensor)
    layer: nn.Module
    if function is F.linear:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    else:
        groups = given.get("groups", 1)
        assert isinstance(groups, int)
        kind = _CONVOLUTIONS[function]
        sizes = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
        layer = kind(*sizes, **given, bias=bias is not None, device="meta")  # type: ignore[arg-type]
    layer.weight = nn.Parameter(weight.detach().clone())
    if isinstance(bias, Tensor):
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer.eval()
