"""`ghnq predict`: all weights of one model, written as safetensors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.markup import escape
from torch import nn

from ghnq.commands.calibrated_weights import calibrated_weights, weights_metadata
from ghnq.commands.load_network import build_network
from ghnq.commands.options import check_output, parse_shape
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import DEFAULT_CHECKPOINT, about_condition, check_head, choose_weights
from ghnq.errors import GhnqError, GraphError, OutputError
from ghnq.evaluation.provenance import weights_hash
from ghnq.graph import ArchGraph, trace
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize_traced
from ghnq.models import load_model
from ghnq.prediction import StoredWeights
from ghnq.quant import QuantScheme
from ghnq.quant.quantizable import is_quantizable
from ghnq.quant.standardisation import unnormalised_layers
from ghnq.torch_compat import BatchNorm

DEFAULT_SHAPE = (3, 32, 32)
Shape = tuple[int, int, int]

_FLOAT32 = QuantScheme.parse("float32")


@dataclass(frozen=True, eq=False)
class _Predicted:
    """The weights, and what the file and the document say about them."""

    weights: StoredWeights
    graph: ArchGraph
    warnings: tuple[str, ...]


def predict(
    model: str,
    *,
    checkpoint: str | None,
    data: str | None,
    head: str | None,
    input_shape: str | None,
    scheme: str,
    out: Path,
    output: str | None,
    as_json: bool,
) -> None:
    """Predicts the weights of `model` and writes them to `out` under the names of its state dict."""
    shape, parsed = None if input_shape is None else parse_shape(input_shape), QuantScheme.parse(scheme)
    check_head(head)
    if head == "solved" and data is None:
        raise GhnqError("--head solved needs the images of the classes (--data)")
    check_output(out, (".safetensors",), "weights are written as")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Predicting the weights of {escape(model)}"):
        start = time.perf_counter()
        if data is None:
            predicted = _uncalibrated(model, checkpoint or DEFAULT_CHECKPOINT, shape, parsed, output)
        else:
            predicted = _calibrated(model, checkpoint, data, head, shape, parsed, output)
        seconds = time.perf_counter() - start
        weights, graph = predicted.weights, predicted.graph
        weights.save(out)
        for warning in predicted.warnings:
            terminal.warn(warning)
        names = weights.metadata
        document = {
            "model": names["model"],
            "checkpoint": names["checkpoint"],
            "checkpoint_sha256": names["checkpoint_sha256"],
            "data": names.get("data"),
            "input_shape": [int(size) for size in names["input_shape"].split(",")],
            "num_classes": int(names["num_classes"]),
            "scheme": str(parsed),
            "calibrated": names["calibrated"] == "true",
            "head": names.get("head"),
            "parameters": graph.num_parameters,
            "tensors": len(weights.tensors),
            "seconds": round(seconds, 4),
            "out": str(out),
            "unused": list(graph.unused),
            "warnings": terminal.warnings,
        }
    terminal.finish(
        document,
        f"[bold]{graph.num_parameters:,}[/] parameters of [bold]{escape(model)}[/], predicted in {seconds:.2f} s"
        + (f", norms calibrated on {names['data']}" if data is not None else ""),
        f"{len(weights.tensors)} tensors written to [cyan]{out}[/]",
    )


def _uncalibrated(
    model: str, checkpoint: str, shape: Shape | None, scheme: QuantScheme, output: str | None
) -> _Predicted:
    """Predicts without images: the norms have the statistics of a fresh module."""
    ghn = GHN.from_pretrained(checkpoint)
    of_checkpoint = DEFAULT_SHAPE if ghn.task is None else ghn.task.image_shape
    module = load_model(model, input_shape=shape or of_checkpoint, num_classes=ghn.config.num_classes)
    graph = trace(module, shape, output=output) if shape else _trace(module, checkpoint, of_checkpoint, output)
    shape = shape or of_checkpoint
    scheme.check_overrides(_layers(module, graph))
    warnings = [*_warnings(ghn, scheme, shape, graph)]
    network = initialize_traced(module, graph, ghn, scheme)
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        warnings.append("some predicted values are NaN or infinite")
    open_statistics = _needs_statistics(network, shape)
    if open_statistics:
        warnings.append(
            f"{open_statistics}, which the file cannot have without images: calibrate before use (commands that take "
            "--weights do; in Python ghnq.quant.prepare), or give --data"
        )
    metadata = weights_metadata(model, checkpoint, weights_hash(ghn), scheme, shape, graph) | {
        "standardise": "true",
        "calibrated": "false" if open_statistics else "true",
    }
    return _Predicted(StoredWeights.of(network, module, metadata), graph, tuple(warnings))


def _trace(module: nn.Module, checkpoint: str, shape: Shape, output: str | None) -> ArchGraph:
    """Traces a module for images of the checkpoint's shape, which may be foreign to it."""
    try:
        return trace(module, shape, output=output)
    except OutputError:
        raise
    except GraphError as error:
        raise GraphError(
            f"{error}. These are images as '{checkpoint}' was trained on; for others give --input-shape, or --data"
        ) from error.__cause__


def _calibrated(
    model: str,
    checkpoint: str | None,
    data: str,
    head: str | None,
    shape: Shape | None,
    scheme: QuantScheme,
    output: str | None,
) -> _Predicted:
    """Predicts, then calibrates the norms on the images, and scales convolutions without a norm once for all."""
    chosen = choose_weights(checkpoint, None, data, head, output)
    dataset = chosen.dataset
    if shape is not None and shape != dataset.input_shape:
        given, found = ("x".join(map(str, sizes)) for sizes in (shape, dataset.input_shape))
        raise GhnqError(f"--input-shape is {given}, but the images of '{dataset.name}' are {found}; leave it out")
    network = build_network(model, chosen, output=output)
    scheme.check_overrides(_layers(network.module, network.graph))
    warnings: list[str] = []
    if chosen.ghn is not None and chosen.head is None:
        warnings += _warnings(chosen.ghn, scheme, dataset.input_shape, network.graph)
    weights, about = calibrated_weights(network, chosen, model, scheme)
    return _Predicted(weights, network.graph, (*warnings, *about))


def _layers(module: nn.Module, graph: ArchGraph) -> list[str]:
    """Returns the layers that a scheme can quantize, without those that do not reach the output."""
    layers = [name for name, child in module.named_modules() if is_quantizable(child)]
    return [name for name in layers if f"{name}.weight".lstrip(".") not in graph.unused]


def _needs_statistics(network: nn.Module, shape: Shape) -> str:
    """Returns what has to be calibrated before the network can be used, as text; empty if nothing has to be."""
    if any(isinstance(child, BatchNorm) for child in network.modules()):
        return "the norms need statistics of images"
    with torch.no_grad():
        unnormalised = unnormalised_layers(network.eval(), torch.zeros(2, *shape))
    return "convolutions without a norm are to be standardised on images" if unnormalised else ""


def _warnings(ghn: GHN, scheme: QuantScheme, shape: Shape, graph: ArchGraph) -> Iterator[str]:
    """Yields warnings about a prediction that the hypernetwork was not trained for."""
    if (unconditioned := about_condition(ghn, scheme)) is not None:
        yield unconditioned
    if ghn.task is not None and tuple(ghn.task.image_shape) != shape:
        trained, given = ("x".join(map(str, s)) for s in (ghn.task.image_shape, shape))
        yield f"the hypernetwork was trained for images of {trained}, not {given}: expect poor accuracy"
    classes, outputs = ghn.config.num_classes, graph.num_outputs
    if outputs > classes:
        yield f"the model has {outputs} outputs; classes repeat after {classes}"
    elif outputs < classes:
        yield (
            f"the model has {outputs} outputs, the hypernetwork was trained for {classes} classes: its head is that of "
            f"the first {outputs} of them; for classes of your own give the images (--data)"
        )
