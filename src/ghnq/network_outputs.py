"""Which tensor in the result of a network is its logits: one choice for tracing, measuring, training and export.

Dimensions: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ghnq.errors import OutputError, nearest

LOGITS = "logits"
"""The name of the entry or attribute that is taken wherever there is one."""

_MAX_DEPTH = 8
"""Levels of nested results that are searched."""


def named_tensors(result: object) -> dict[str, Tensor]:
    """Returns the tensors in the result of a network by name, in their order; the name of a lone tensor is empty.

    Names are the keys of mappings, the fields of dataclasses and named tuples, the public attributes of other objects,
    and positions in sequences; those of nested results are joined by dots (`aux.0`).
    """
    return dict(_named(result, "", _MAX_DEPTH))


def choose_output(
    tensors: Mapping[str, Tensor], images: int, *, output: str | None = None, num_classes: int | None = None
) -> str:
    """Returns the name of the logits among the tensors of a result.

    That is `output` if it is given; else the only tensor; else the entry `logits`; else the only float tensor of shape
    [N, num_classes], or [N, any] where the number of classes is not known.

    Args:
        images: The number of images N that the network was run on.

    Raises:
        OutputError: There is no tensor of that name, or it is not clear which tensor is meant; the message lists the
            names.
    """
    if not tensors:
        raise OutputError("the network's forward returns no tensor; it must return logits [N, classes]")
    if output is not None:
        return _given(tensors, output)
    certain = list(tensors)[:1] if len({id(tensor) for tensor in tensors.values()}) == 1 else _called_logits(tensors)
    found = certain or _shaped_like_logits(tensors, images, num_classes)
    if len(found) == 1:
        return found[0]
    shape = f"[N, {'classes' if num_classes is None else num_classes}]"
    which = f"{', '.join(map(repr, found))} have the shape {shape}" if found else f"none has the shape {shape}"
    raise OutputError(
        f"the network returns {_listed(tensors, images)}, and it is not clear which of them is the logits: {which}; "
        "name it with --output NAME, in Python output='NAME'"
    )


def choose_main_output(
    tensors: Mapping[str, Tensor], images: int, *, output: str | None = None, num_classes: int | None = None
) -> str:
    """Returns the name of the main output of an architecture, which need not be a classifier.

    As `choose_output`, but without `output` and `num_classes` the first of several that have equally many columns is
    taken, and where none has the shape of logits, the first tensor.

    Raises:
        OutputError: As `choose_output`.
    """
    if output is None and num_classes is None and not _called_logits(tensors):
        found = _shaped_like_logits(tensors, images, None)
        if len({tensors[name].shape[1] for name in found}) < 2:
            return next(iter(found or tensors))
    return choose_output(tensors, images, output=output, num_classes=num_classes)


@torch.no_grad()
def take_output(
    network: nn.Module, images: Tensor, *, output: str | None = None, num_classes: int | None = None
) -> RemovableHandle | None:
    """Makes a network return its logits alone, in place, by a forward hook; one that does so already is left as it is.

    Args:
        network: In eval mode; it is run once.
        images: [N, C, H, W].
        output, num_classes: As in `choose_output`.

    Raises:
        OutputError: As `choose_output`.

    Returns:
        What removes the hook again; None if none was needed.
    """
    result = network(images)
    if isinstance(result, Tensor) and output is None:
        return None
    name = choose_output(named_tensors(result), len(images), output=output, num_classes=num_classes)
    return network.register_forward_hook(TakeOutput(name))


@contextmanager
def returning_logits(
    network: nn.Module, images: Tensor, *, output: str | None = None, num_classes: int | None = None
) -> Iterator[None]:
    """Makes a network return its logits alone meanwhile; arguments and errors are those of `take_output`."""
    handle = take_output(network, images, output=output, num_classes=num_classes)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


@dataclass(frozen=True)
class TakeOutput:
    """A forward hook that returns one tensor of a network's result.

    Attributes:
        name: Of the tensor, as `named_tensors` has it.
    """

    name: str

    def __call__(self, network: nn.Module, args: tuple[object, ...], result: object) -> Tensor:
        """Returns the tensor of that name; a result that is a tensor is returned as it is.

        Raises:
            OutputError: There is none.
        """
        tensors = named_tensors(result)
        return tensors["" if isinstance(result, Tensor) else _given(tensors, self.name)]


def _given(tensors: Mapping[str, Tensor], output: str) -> str:
    if list(tensors) == [""]:
        raise OutputError(f"the network returns one tensor, without names: there is no output {output!r} to choose")
    if output not in tensors:
        raise OutputError(
            f"the network returns no tensor {output!r}{nearest(output, tensors)}; there are "
            f"{', '.join(map(repr, tensors))}"
        )
    return output


def _called_logits(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the name of the entry `logits`, at the top or the only one further down; empty if there is none."""
    if LOGITS in tensors:
        return [LOGITS]
    nested = [name for name in tensors if name.rpartition(".")[2] == LOGITS]
    return nested if len(nested) == 1 else []


def _shaped_like_logits(tensors: Mapping[str, Tensor], images: int, num_classes: int | None) -> list[str]:
    """Returns the names of float tensors [N, K], without second names of a tensor."""
    found: dict[int, str] = {}
    for name, tensor in tensors.items():
        fits = tensor.dim() == 2 and len(tensor) == images and num_classes in (None, tensor.shape[1])
        if fits and tensor.is_floating_point():
            found.setdefault(id(tensor), name)
    return list(found.values())


def _listed(tensors: Mapping[str, Tensor], images: int) -> str:
    def shape(tensor: Tensor) -> str:
        sizes = ["N" if i == 0 and size == images else str(size) for i, size in enumerate(tensor.shape)]
        return f"[{', '.join(sizes)}]"

    return ", ".join(f"{name!r} {shape(tensor)}" for name, tensor in tensors.items())


def _named(value: object, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif depth:
        for key, item in _items(value):
            yield from _named(item, f"{name}.{key}" if name else key, depth - 1)


def _items(value: object) -> Iterator[tuple[str, object]]:
    """Yields the parts of a result that is not a tensor, with their names."""
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
        yield from ((key, item) for key, item in vars(value).items() if not key.startswith("_"))
