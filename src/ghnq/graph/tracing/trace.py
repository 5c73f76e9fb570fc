"""From any `nn.Module` with static control flow to its `ArchGraph`, by running its forward once without data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from math import prod
from operator import index
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning, GraphError
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.inspection import survey
from ghnq.graph.tracing.passes import build
from ghnq.graph.tracing.recorder import Recorder

# Frames of these are not the user's.
_LIBRARIES = tuple(f"{os.path.dirname(os.path.abspath(file))}{os.sep}" for file in (torch.__file__, __file__))
LARGEST = 1 << 32  # numbers in one image
BATCH = 2  # with a batch of one, `squeeze()` would take the batch dimension away


def trace(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> ArchGraph:
    """The architecture of a module: its operations, how they hang together, and which of them owns each parameter.

    input_shape: of one image, (channels, height, width). Works for parameters on any device, `meta` included; no
    weight is read, copied or written, and the module is left as it was. The network is seen as it infers, in evaluation
    mode, whatever mode it is in. Of several outputs the first is the network's; the others are followed too.

    Warns (`GhnqWarning`) of functions and parameters outside the vocabulary, and of parameters that reach no output.
    Raises `GraphError` for a module that has no parameters, does not take this shape, needs the values of activations,
    or has recurrent, quantized or uninitialised layers.
    """
    shape = _checked(module, input_shape)
    found = survey(module)
    recorder = Recorder(found)
    image = recorder.start((BATCH, *shape), found.dtype or torch.float32)
    random_state = torch.get_rng_state()
    found.evaluate()
    try:
        with torch.no_grad(), recorder:
            result = module(image)
    except GraphError as error:
        raise GraphError(f"{_place(error, module)[0]}: {error}") from None
    except SystemExit as stop:
        raise GraphError(f"{_place(stop, module)[0]} ends the program (exit code {stop.code}) in its forward") from stop
    except Exception as error:
        where, came = _place(error, module)
        raise GraphError(
            f"{where} failed{came}, for the input shape {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        found.restore()
        torch.set_rng_state(random_state)
    outputs = list(tensors(result))
    if not outputs:
        raise GraphError(f"{type(module).__name__} returned {type(result).__name__}, in which there is no tensor")
    first, *more = [recorder.current(output) for output in outputs]
    if first is None:
        raise GraphError(f"the output of {type(module).__name__} does not depend on its input")
    further = dict.fromkeys(i for i in more if i is not None and i != first)
    graph = build(recorder.records, [first, *further], found, shape)
    _warn(module, graph, recorder.unknown)
    return graph


def _warn(module: nn.Module, graph: ArchGraph, unknown: Iterable[str]) -> None:
    name = type(module).__name__
    for function in unknown:
        _say(f"{name}: the op `{function}` is not in the vocabulary; it is passed through as if it were not there")
    untested = [p.name for p in graph.parameters if graph.nodes[p.node].op == "other"]
    if untested:
        _say(
            f"{name}: no hypernetwork has been trained on ops that own {_shown(untested)}; they become `other` nodes, "
            "known by their shape alone, and how well they are predicted is untested"
        )
    if graph.unused:
        _say(f"{name}: nothing is predicted for {_shown(graph.unused)}, which reach no output")


def _say(text: str) -> None:
    warnings.warn(text, GhnqWarning, stacklevel=4)


def _shown(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "the parameter" + ("s " if len(names) > 1 else " ") + ", ".join(map(repr, names[:most])) + more


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a model's output: a tensor, a sequence, a mapping, a dataclass, or these nested."""
    if isinstance(value, Tensor):
        yield value
        return
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    elif is_dataclass(value) and not isinstance(value, type):
        items = [getattr(value, field.name) for field in fields(value)]
    for item in items:
        yield from tensors(item)


def _checked(module: object, input_shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(module, nn.Module):
        raise GraphError(f"trace() takes a torch.nn.Module, got {type(module).__name__}")
    try:
        shape = tuple(index(size) for size in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise GraphError(f"input_shape is {input_shape!r}; it must be positive integers, for instance (3, 32, 32)")
    if prod(shape) > LARGEST:
        raise GraphError(f"input_shape is {input_shape!r}, more than {LARGEST:,} numbers; give that of one image")
    return shape


def _place(error: BaseException, module: nn.Module) -> tuple[str, str]:
    """The submodule in which the forward pass failed, and the shapes that came there and the line, where known."""
    paths = {id(child): path for path, child in module.named_modules()}
    where, shapes, line = type(module).__name__, "", ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        values, file = step.tb_frame.f_locals, step.tb_frame.f_code.co_filename
        owner = values.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            where = f"module {paths[id(owner)] or '(root)'!r} ({type(owner).__name__})"
        elif isinstance(owner, Recorder) and step.tb_frame.f_code.co_name == "__torch_function__":
            given = (*values["args"], *(values["kwargs"] or {}).values())
            shapes = " and ".join(str(tuple(value.shape)) for value in given if isinstance(value, Tensor))
        if not file.startswith(_LIBRARIES):
            line = f", {file}:{step.tb_lineno}"
        step = step.tb_next
    return where, (f" on tensors of shapes {shapes} (with a batch of {BATCH})" if shapes else "") + line
