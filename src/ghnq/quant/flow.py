"""One look at a network while it runs: how often each layer runs, and which batch norm alone eats its output."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.quant.quantized_layers import float_kind
from ghnq.torch_compat import FUSED_LAYER_FUNCTIONS, BatchNorm, tree_leaves, version_counter

_WEIGHTED_CALLS = frozenset(
    [f"conv{n}d" for n in (1, 2, 3)]
    + [f"conv_transpose{n}d" for n in (1, 2, 3)]
    + ["linear", "bilinear", "multi_head_attention_forward", *FUSED_LAYER_FUNCTIONS]
    + ["lstm", "gru", "rnn_tanh", "rnn_relu"]
)


@dataclass(frozen=True)
class Flow:
    """What one run showed.

    `calls`: runs of each quantizable layer (module name, 0 where it did not run), in module order.
    `pairs`: (layer, batch norm) that may be folded.
    `outside`: functions with weights that ran outside of those layers, with the module they ran in.
    """

    calls: dict[str, int]
    pairs: tuple[tuple[str, str], ...]
    outside: tuple[str, ...]


@torch.no_grad()
def observe_flow(network: nn.Module, images: Tensor) -> Flow:
    """Runs the network once in eval mode on images [B, C, H, W] and reads its flow; the network is left as it was.

    A pair (layer, norm) is reported when the norm's input *is* the layer's output tensor, nothing else uses that tensor
    (the network's own output included), both run exactly once, and their channels agree.
    """
    probe = _Probe(network)
    with evaluating(network), ExitStack() as hooks:
        for module in network.modules():
            hooks.enter_context(_removing(module.register_forward_pre_hook(probe.enter, with_kwargs=True)))
            hooks.enter_context(_removing(module.register_forward_hook(probe.leave, with_kwargs=True)))
        with probe:
            output = network(images)
    for tensor in _tensors(output):
        probe.uses[id(tensor)] += 1
    return probe.flow()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts the network into eval mode and gives every module its own mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


class _Probe(TorchFunctionMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self.calls: Counter[nn.Module] = Counter()
        self.uses: Counter[int] = Counter()  # uses of a tensor other than by a batch norm
        self.made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is kept so that its id stays its own
        self.eaten: dict[nn.Module, list[int]] = {}
        self.outside: list[str] = []
        self.stack: list[nn.Module] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [(tensor, version_counter(tensor)) for tensor in _tensors((args, kwargs)) if id(tensor) in self.made]
        result = func(*args, **(kwargs or {}))
        results = _tensors(result)
        name, where = getattr(func, "__name__", ""), self.stack[-1] if self.stack else None
        if name in _WEIGHTED_CALLS and (where is None or float_kind(where) is None):
            self.outside.append(f"{name} in {self._name(where)}")
        if results and not isinstance(where, BatchNorm):
            for tensor, version in given:
                # Handing the very tensor on (identity, dropout in eval mode) is no use of it; changing it in place is.
                passed_on = any(r is tensor for r in results) and version_counter(tensor) == version
                self.uses[id(tensor)] += not passed_on
        return result

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.stack.append(module)
        self.calls[module] += 1
        if isinstance(module, BatchNorm):
            # Only tensors that are kept: any other may be gone soon, and its id be that of a later one.
            eaten = [id(tensor) for tensor in _tensors((args, kwargs)) if id(tensor) in self.made]
            self.eaten.setdefault(module, []).extend(eaten)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.stack.pop()
        if float_kind(module) is not None:
            self.made[id(output)] = (module, output)

    def flow(self) -> Flow:
        layers = {name: module for module, name in self.names.items() if float_kind(module) is not None}
        norms_on = Counter(key for keys in self.eaten.values() for key in keys)
        pairs = []
        for norm, keys in self.eaten.items():
            if len(keys) != 1 or norms_on[keys[0]] != 1 or self.uses[keys[0]]:
                continue
            layer, output = self.made[keys[0]]
            if self.calls[layer] == self.calls[norm] == 1 and foldable(layer, norm, output):
                pairs.append((self.names[layer], self.names[norm]))
        calls = {name: self.calls[module] for name, module in layers.items()}
        return Flow(calls, tuple(pairs), tuple(dict.fromkeys(self.outside)))

    def _name(self, module: nn.Module | None) -> str:
        return repr(self.names.get(module, "") or "the network") if module is not None else "the network"


def foldable(layer: nn.Module, norm: nn.Module, output: Tensor | None = None) -> bool:
    """True where a norm on this layer's output is a scale and shift of the layer's output channels."""
    if float_kind(layer) is None or not isinstance(norm, BatchNorm) or type(norm).forward is not BatchNorm.forward:
        return False
    if output is not None and isinstance(layer, nn.Linear) and output.dim() != 2:
        return False  # batch norm counts channels along dimension 1, a linear layer along the last one
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] == norm.num_features


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
