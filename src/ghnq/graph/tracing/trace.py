"""From any `nn.Module` with static control flow to its `ArchGraph`, by running its forward once without data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from operator import index
from types import TracebackType

import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning, GraphError
from ghnq.graph.elements import Shape
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.module_snapshot import ModuleSnapshot, take_snapshot
from ghnq.graph.tracing.passes import build_graph
from ghnq.graph.tracing.recorder import Recorder
from ghnq.graph.tracing.rule_table import HANDLERS
from ghnq.module_check import check_is_module, failure_place, unwrapped
from ghnq.network_outputs import choose_main_output, named_tensors

MAX_INPUT_ELEMENTS = 1 << 32
BATCH_SIZE = 2  # with a batch of one, `squeeze()` would remove the batch dimension


def trace(
    module: nn.Module,
    input_shape: Sequence[int] = (3, 32, 32),
    *,
    output: str | None = None,
    num_classes: int | None = None,
) -> ArchGraph:
    """Returns the architecture of a module: its operations, their edges, and the node that owns each parameter.

    Parameters may be on any device, including `meta`. No weight is read, copied or written, and the module is restored
    afterwards. The graph is that of evaluation mode, whatever mode the module is in. Of several outputs one is the
    output of the network (`ghnq.network_outputs`); the others are followed too.

    Args:
        module: A network with static control flow. DataParallel, DistributedDataParallel and torch.compile are left
            out, with a warning.
        input_shape: Of one image, (channels, height, width).
        output: The name of the output of the network, if it returns several tensors: a key, an attribute, or a position
            such as `1`. None takes `logits` if there is one, else the only one that has the shape of logits.
        num_classes: How many logits the network has; None if that is not known.

    Warns:
        GhnqWarning: There are functions or parameters outside the vocabulary, parameters that reach no output,
            functions that are random in eval mode, or layers in use that are not registered in the module.

    Raises:
        GraphError: The module has no parameters, does not take this shape, needs the values of activations, has
            recurrent, quantized, uninitialised or scripted layers, or it is not clear which of its outputs is meant.
    """
    module = unwrapped(check_is_module(module, "trace", GraphError))
    shape = _checked_shape(input_shape)
    snapshot = take_snapshot(module)
    recorder = Recorder(module, snapshot, HANDLERS)
    tensors = named_tensors(result := _run(module, shape, snapshot, recorder))
    if not tensors:
        raise GraphError(f"{type(module).__name__} returned {type(result).__name__}, in which there is no tensor")
    name = choose_main_output(tensors, BATCH_SIZE, output=output, num_classes=num_classes)
    first, *others = [recorder.current_record(tensor) for tensor in (tensors[name], *tensors.values())]
    if first is None:
        raise GraphError(f"the output of {type(module).__name__} does not depend on its input")
    further = dict.fromkeys(i for i in others if i is not None and i != first)
    graph = build_graph(recorder.records, [first, *further], snapshot, shape)
    _warn_of_unknown(module, graph, recorder)
    return graph


def _run(module: nn.Module, shape: Shape, snapshot: ModuleSnapshot, recorder: Recorder) -> object:
    """Runs the module under the recorder, and restores it."""
    image = recorder.start((BATCH_SIZE, *shape), snapshot.dtype or torch.float32)
    random_state = torch.get_rng_state()
    snapshot.set_eval_mode()
    try:
        with torch.no_grad(), recorder:
            return module(image)
    except GraphError as error:
        raise GraphError(f"{_locate(error, module)[0]}: {error}") from None
    except SystemExit as stop:
        place = _locate(stop, module)[0]
        raise GraphError(f"{place} ends the program (exit code {stop.code}) in its forward") from stop
    except Exception as error:
        place, details = _locate(error, module)
        raise GraphError(
            f"{place} failed{details}, for the input shape {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        snapshot.restore()
        torch.set_rng_state(random_state)


def _warn_of_unknown(module: nn.Module, graph: ArchGraph, recorder: Recorder) -> None:
    name = type(module).__name__
    for text in recorder.mistakes.texts():
        _warn(f"{name}: {text}")
    for function in recorder.unknown_functions:
        _warn(f"{name}: the op `{function}` is not in the vocabulary; it is passed through without a node")
    untested = [p.name for p in graph.parameters if graph.nodes[p.node].op == "other"]
    if untested:
        _warn(
            f"{name}: no hypernetwork has been trained on ops that own {_list_parameters(untested)}; they become "
            "`other` nodes, of which only the shape is embedded, and how well they are predicted is untested"
        )
    if graph.unused:
        _warn(f"{name}: nothing is predicted for {_list_parameters(graph.unused)}, which reach no output")


def _warn(text: str) -> None:
    warnings.warn(text, GhnqWarning, stacklevel=4)


def _list_parameters(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return "the parameter" + ("s " if len(names) > 1 else " ") + ", ".join(map(repr, names[:limit])) + more


def _checked_shape(input_shape: Sequence[int] | Tensor) -> Shape:
    if isinstance(input_shape, Tensor):
        shape = tuple(input_shape.shape[1:])
        raise GraphError(f"input_shape is a tensor; it must be the shape of one image, of these images {shape}")
    try:
        shape = tuple(index(size) for size in input_shape)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise GraphError(f"input_shape is {input_shape!r}; it must be positive integers, for instance (3, 32, 32)")
    if prod(shape) > MAX_INPUT_ELEMENTS:
        raise GraphError(
            f"input_shape is {input_shape!r}, more than {MAX_INPUT_ELEMENTS:,} elements; give that of one image"
        )
    return shape


def _locate(error: BaseException, module: nn.Module) -> tuple[str, str]:
    """Returns the submodule in which the forward pass failed, and, where known, shapes of arguments and the line."""
    where, line = failure_place(error, module)
    shapes = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        values = step.tb_frame.f_locals
        if isinstance(values.get("self"), Recorder) and step.tb_frame.f_code.co_name == "__torch_function__":
            given = (*values["args"], *(values["kwargs"] or {}).values())
            shapes = " and ".join(str(tuple(value.shape)) for value in given if isinstance(value, Tensor))
        step = step.tb_next
    return where, (f" on tensors of shapes {shapes} (with a batch of {BATCH_SIZE})" if shapes else "") + line
