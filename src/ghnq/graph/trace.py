"""From any `nn.Module` with static control flow to its `ArchGraph`, by running its forward once without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import GraphError
from .ir import ArchGraph
from .passes import build
from .recorder import Recorder
from .survey import survey

BATCH = 2  # with a batch of one, `squeeze()` would take the batch dimension away


def trace(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> ArchGraph:
    """The architecture of a module: its operations, how they hang together, and which of them owns each parameter.

    input_shape: of one image, (channels, height, width). Works for parameters on any device, `meta` included; no
    weight is read, copied or written, and the module is left as it was. Train and eval mode give the same graph.

    Raises `GraphError` for a module that has no parameters, does not take this shape, needs the values of activations,
    has recurrent or uninitialised layers, uses a function outside the vocabulary, or has a parameter that does not
    reach its first output.
    """
    shape = _checked(module, input_shape)
    found = survey(module)
    recorder = Recorder(found)
    image = recorder.start((BATCH, *shape), found.dtype or torch.float32)
    random_state = torch.get_rng_state()
    try:
        with torch.no_grad(), recorder:
            result = module(image)
    except GraphError as error:
        raise GraphError(f"{_place(error, module)[0]}: {error}") from None
    except Exception as error:
        where, came = _place(error, module)
        raise GraphError(
            f"{where} failed{came} for the input shape {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        found.restore()
        torch.set_rng_state(random_state)
    output = first_tensor(result)
    if output is None:
        raise GraphError(f"{type(module).__name__} returned {type(result).__name__}, in which there is no tensor")
    record = recorder.values.get(id(output))
    if record is None:
        raise GraphError(f"the output of {type(module).__name__} does not depend on its input")
    return build(recorder.records, record, found, shape).validate()


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a model's output: a tensor, a sequence, a mapping, a dataclass, or these nested."""
    if isinstance(value, Tensor):
        return value
    items: Sequence[Any] = ()
    if isinstance(value, Mapping):
        items = tuple(value.values())
    elif isinstance(value, list | tuple):
        items = value
    elif is_dataclass(value) and not isinstance(value, type):
        items = [getattr(value, field.name) for field in fields(value)]
    for item in items:
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def _checked(module: object, input_shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(module, nn.Module):
        raise GraphError(f"trace() takes a torch.nn.Module, got {type(module).__name__}")
    try:
        shape = tuple(int(size) for size in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise GraphError(f"input_shape is {input_shape!r}; it must be positive integers, for instance (3, 32, 32)")
    return shape


def _place(error: Exception, module: nn.Module) -> tuple[str, str]:
    """The submodule in which the forward pass failed, and the shapes that came there (empty where unknown)."""
    paths = {id(child): path for path, child in module.named_modules()}
    where, shapes = type(module).__name__, ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        values = step.tb_frame.f_locals
        owner = values.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            where = f"module {paths[id(owner)] or '(root)'!r} ({type(owner).__name__})"
        elif isinstance(owner, Recorder) and step.tb_frame.f_code.co_name == "__torch_function__":
            given = (*values["args"], *(values["kwargs"] or {}).values())
            shapes = " and ".join(str(tuple(value.shape)) for value in given if isinstance(value, Tensor))
        step = step.tb_next
    return where, f" on tensors of shapes {shapes} (with a batch of {BATCH})" if shapes else ""
