"""Which layer is the only consumer of another layer's output, with nothing but homogeneous functions in between.

For such a pair, output channel i of the first layer may be divided by s > 0 if input channel i of the second layer is
multiplied by s: the network computes the same (Nagel et al. 2019, arXiv 1906.04721, Eq. 8 to 10).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from ghnq.quant.data_flow.norm_pairs import NormPair
from ghnq.quant.data_flow.recording import Operation, Recording
from ghnq.quant.quantizable import has_hooks, is_quantizable
from ghnq.quant.weight_layout import is_transposed
from ghnq.torch_compat import own_parameters


@dataclass(frozen=True)
class ChannelRelation:
    """Two layers of which the second is the only consumer of the first.

    Attributes:
        first: Name of the first layer.
        norm: Name of the batch norm that can be folded into it; None if there is none.
        second: Name of the second layer.
    """

    first: str
    norm: str | None
    second: str


def find_channel_relations(recording: Recording, norm_pairs: Sequence[NormPair]) -> tuple[ChannelRelation, ...]:
    """Returns the relations between layers of a network, in the order in which the first layers ran.

    There is no relation unless each tensor in between has exactly one consumer, each function in between is known to
    scale channels, both layers run once and are no transposed convolutions, no other module shares parameters with them
    or with the norm, and the user has put no hook on any of them.
    """
    search = _Search(recording, norm_pairs)
    for operation in recording.operations:
        search.visit(operation)
    search.exclude(recording.results)
    return tuple(search.relations())


@dataclass(eq=False)
class _Source:
    """A layer whose output is followed."""

    layer: nn.Module
    excluded: bool
    norm: nn.Module | None = None
    consumers: list[nn.Module] = field(default_factory=list)


class _Search:
    def __init__(self, recording: Recording, norm_pairs: Sequence[NormPair]) -> None:
        self.recording = recording
        modules = dict(recording.network.named_modules())
        self.layer_of = {modules[norm]: modules[layer] for layer, norm in norm_pairs}
        self.sources: list[_Source] = []
        self.source_of: dict[int, _Source] = {}  # value -> the layer whose output it is, scaled channel by channel
        self.consumed: set[int] = set()

    def visit(self, operation: Operation) -> None:
        """Follows the values through one operation."""
        module = operation.module
        if module is None or not (is_quantizable(module) or module in self.layer_of):
            self._visit_function(operation)
        elif module in self.layer_of:
            self._visit_norm(operation, module)
        else:
            self._visit_layer(operation, module)

    def _visit_function(self, operation: Operation) -> None:
        if not operation.outputs and operation.is_query:
            return
        followed = self._followed(operation)
        for value in followed:
            if operation.outputs == (value,):
                continue  # The tensor itself is returned, as by an identity or by dropout in eval mode.
            if operation.scales_channels and followed == [value] == [operation.inputs[0]]:
                self._consume(value)
                self.source_of[operation.outputs[0]] = self.source_of[value]
            else:
                self.source_of[value].excluded = True

    def _visit_norm(self, operation: Operation, norm: nn.Module) -> None:
        followed = self._followed(operation)
        for value in followed:
            self._consume(value)
            source = self.source_of[value]
            if len(followed) > 1 or source.layer is not self.layer_of[norm] or source.norm is not None:
                source.excluded = True
        if len(followed) == 1:
            source = self.source_of[followed[0]]
            source.norm = norm
            self.source_of |= dict.fromkeys(operation.outputs, source)

    def _visit_layer(self, operation: Operation, layer: nn.Module) -> None:
        for value in self._followed(operation):
            self._consume(value)
            self.source_of[value].consumers.append(layer)
        for value in operation.outputs:
            # A linear layer with an output of more than two dimensions has its channels in the last one.
            excluded = isinstance(layer, nn.Linear) and len(self.recording.shapes[value]) != 2
            source = _Source(layer, excluded)
            self.sources.append(source)
            self.source_of[value] = source

    def exclude(self, values: Sequence[int]) -> None:
        """Excludes the layers whose output these values are."""
        for value in values:
            if value in self.source_of:
                self.source_of[value].excluded = True

    def relations(self) -> list[ChannelRelation]:
        """Returns the relations, after all operations are visited."""
        names, holders, found = self.recording.names(), _parameter_holders(self.recording.network), []
        for source in self.sources:
            if source.excluded or len(source.consumers) != 1:
                continue
            first, second = source.layer, source.consumers[0]
            involved = [first, second] + ([source.norm] if source.norm else [])
            once = all(self.recording.runs[module] == 1 for module in involved)
            unshared = all(holders[p.data_ptr()] == 1 for module in involved for p in module.parameters())
            hooked = any(has_hooks(module) for module in involved)
            if is_transposed(first) or is_transposed(second):
                continue  # their weights have the channels in another order
            if once and unshared and not hooked and _in_channels(second) == first.weight.shape[0]:  # type: ignore[index]
                found.append(ChannelRelation(names[first], names[source.norm] if source.norm else None, names[second]))
        return found

    def _followed(self, operation: Operation) -> list[int]:
        return [value for value in operation.inputs if value in self.source_of]

    def _consume(self, value: int) -> None:
        self.source_of[value].excluded |= value in self.consumed
        self.consumed.add(value)


def _in_channels(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels  # type: ignore[return-value]


def _parameter_holders(network: nn.Module) -> Counter[int]:
    """Returns how many modules hold the parameter at each address: more than one if weights are tied."""
    return Counter(
        p.data_ptr() for module in network.modules() for p in own_parameters(module).values() if p is not None
    )
