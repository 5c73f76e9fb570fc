"""Which layer alone reads what another layer writes, through nothing but functions that scale with their input.

For such a pair, output channel i of the first layer may be divided by s > 0 if input channel i of the second is
multiplied by it, and the network computes the same (Nagel et al. 2019, arXiv 1906.04721, Eq. 8 to 10).
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ghnq.quant.flow import Flow, evaluating
from ghnq.quant.quantized_layers import float_kind
from ghnq.torch_compat import own_parameters, tree_leaves, version_counter

# f(s x) = s f(x) for s > 0, channel by channel.
_HOMOGENEOUS = frozenset(
    ["relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "contiguous", "mean"]
    + [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)]
)
# Others that keep the order of values, and so the channels where the first two sizes stay.
_RESHAPES = frozenset(["flatten", "view", "reshape", "squeeze"])
_QUESTIONS = frozenset(
    ["size", "dim", "numel", "__len__", "stride", "is_contiguous", "ndimension", "is_floating_point"]
)
_HARMLESS_ATTRIBUTES = frozenset(["shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout", "is_meta"])


@dataclass(frozen=True)
class Relation:
    """Names of the first layer, of the norm that folds into it (None without one), and of its only reader."""

    first: str
    norm: str | None
    second: str


@torch.no_grad()
def observe_relations(network: nn.Module, images: Tensor, flow: Flow) -> tuple[Relation, ...]:
    """Runs the network once in eval mode on images [B, C, H, W], B > 1, and returns its relations, in their order.

    When in doubt, no relation: each tensor on the way must have exactly one reader, every function on the way be one of
    a short list, both layers run once, and their parameters (and the norm's) belong to nobody else.
    """
    probe = _Probe(network, dict(flow.pairs))
    with evaluating(network), ExitStack() as stack:
        for module in network.modules():
            stack.callback(module.register_forward_pre_hook(probe.enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(probe.leave, with_kwargs=True).remove)
        with probe:
            output = network(images)
    probe.spoil(output)
    return tuple(probe.relations(network))


@dataclass(eq=False)
class _Origin:
    """A layer whose output is followed."""

    layer: nn.Module
    spoiled: bool
    norm: nn.Module | None = None
    readers: list[nn.Module] = field(default_factory=list)


@dataclass
class _State:
    """One tensor at one version; the tensor is kept so that its id stays its own."""

    origin: _Origin
    tensor: Tensor
    version: int
    read: bool = False


class _Probe(TorchFunctionMode):
    def __init__(self, network: nn.Module, norm_of: Mapping[str, str]) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        modules = dict(network.named_modules())
        self.layer_of = {modules[norm]: modules[layer] for layer, norm in norm_of.items()}
        self.calls: Counter[nn.Module] = Counter()
        self.states: dict[int, _State] = {}
        self.origins: list[_Origin] = []
        self.stack: list[nn.Module] = []
        self.entering: dict[nn.Module, _Origin | None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.stack and self._is_known(self.stack[-1]):
            return func(*args, **kwargs)  # what these do with their input is told by `enter` and `leave`
        given = [state for tensor in _tensors((args, kwargs)) if (state := self._state(tensor))]
        result = func(*args, **kwargs)
        results = _tensors(result)
        for state in given:
            tensor = state.tensor
            if not results and _is_question(func):
                continue
            if len(results) == 1 and results[0] is tensor and version_counter(tensor) == state.version:
                continue  # the very tensor handed on, as by identity or dropout in eval mode
            alone = len(given) == 1 and len(results) == 1 and bool(args) and args[0] is tensor
            if alone and _keeps_channels(func, tensor, results[0], args, kwargs):
                self._read(state)
                self._follow(results[0], state.origin)
            else:
                state.origin.spoiled = True
        return result

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.stack.append(module)
        self.calls[module] += 1
        if not self._is_known(module):
            return
        states = [state for tensor in _tensors((args, kwargs)) if (state := self._state(tensor))]
        single = states[0] if len(states) == 1 else None
        for state in states:
            self._read(state)
            if module not in self.layer_of:
                state.origin.readers.append(module)
            elif single is None or state.origin.layer is not self.layer_of[module] or state.origin.norm is not None:
                state.origin.spoiled = True
        self.entering[module] = single.origin if single else None

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.stack.pop()
        if not self._is_known(module) or not isinstance(output, Tensor):
            return
        if module in self.layer_of:
            origin = self.entering[module]
            if origin is not None:
                origin.norm = module
                self._follow(output, origin)
        else:
            # A linear layer on more than two dimensions has its channels last, where nothing here looks.
            origin = _Origin(module, spoiled=isinstance(module, nn.Linear) and output.dim() != 2)
            self.origins.append(origin)
            self._follow(output, origin)

    def spoil(self, tree: Any) -> None:
        """Tensors that somebody outside will read."""
        for tensor in _tensors(tree):
            if state := self._state(tensor):
                state.origin.spoiled = True

    def relations(self, network: nn.Module) -> list[Relation]:
        owners = _owners(network)
        found = []
        for origin in self.origins:
            if origin.spoiled or len(origin.readers) != 1:
                continue
            first, second = origin.layer, origin.readers[0]
            involved = [first, second] + ([origin.norm] if origin.norm else [])
            once = all(self.calls[module] == 1 for module in involved)
            own = all(owners[p.data_ptr()] == 1 for module in involved for p in module.parameters())
            if once and own and _channels_in(second) == first.weight.shape[0]:  # type: ignore[index]
                norm = self.names[origin.norm] if origin.norm else None
                found.append(Relation(self.names[first], norm, self.names[second]))
        return found

    def _is_known(self, module: nn.Module) -> bool:
        return float_kind(module) is not None or module in self.layer_of

    def _state(self, tensor: Tensor) -> _State | None:
        state = self.states.get(id(tensor))
        if state is not None and version_counter(tensor) != state.version:
            state.origin.spoiled = True  # changed by something that was not seen
        return state

    def _read(self, state: _State) -> None:
        state.origin.spoiled |= state.read
        state.read = True

    def _follow(self, tensor: Tensor, origin: _Origin) -> None:
        self.states[id(tensor)] = _State(origin, tensor, version_counter(tensor))


def _keeps_channels(func: Any, x: Tensor, y: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the function is homogeneous and channel i (dimension 1) of y is made from channel i of x alone."""
    name = getattr(func, "__name__", "")
    if x.dim() < 2 or y.dim() < 2 or x.shape[:2] != y.shape[:2]:
        return False
    if name == "mean":
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        dims = [dims] if isinstance(dims, int) else list(dims or [0])
        return all(dim % x.dim() >= 2 for dim in dims)
    return name in _HOMOGENEOUS or name in _RESHAPES


def _is_question(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in _HARMLESS_ATTRIBUTES
    return name in _QUESTIONS


def _channels_in(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels  # type: ignore[return-value]


def _owners(network: nn.Module) -> Counter[int]:
    """How many modules hold the parameter at each address: tied weights are not one layer's to change."""
    return Counter(
        p.data_ptr() for module in network.modules() for p in own_parameters(module).values() if p is not None
    )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
