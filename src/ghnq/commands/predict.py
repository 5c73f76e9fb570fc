"""`ghnq predict`: all parameters of one model, written as safetensors."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ghnq._version import __version__
from ghnq.commands.options import check_output, parse_shape
from ghnq.commands.terminal import Terminal
from ghnq.errors import GraphError
from ghnq.files import atomic_path
from ghnq.graph import trace
from ghnq.hypernet import GHN
from ghnq.models import load_model
from ghnq.quant import QuantScheme
from ghnq.quant.quantizable import is_quantizable


def predict(model: str, *, checkpoint: str, input_shape: str, scheme: str, out: Path, as_json: bool) -> None:
    """Predicts the parameters of `model` and writes them to `out` under the names `module.named_parameters()` gives."""
    shape, parsed = parse_shape(input_shape), QuantScheme.parse(scheme)
    check_output(out, (".safetensors",), "parameters are written as")
    with Terminal(as_json=as_json) as terminal, terminal.progress.status(f"Predicting the parameters of {model}"):
        ghn = GHN.from_pretrained(checkpoint)
        module = load_model(model, input_shape=shape, num_classes=ghn.config.num_classes)
        start = time.perf_counter()
        with torch.no_grad():
            graph = trace(module, shape)
            parsed.check_overrides(_layers(module, graph.unused))
            tensors = ghn.predict(graph, parsed)
        seconds = time.perf_counter() - start
        tensors = _as_module_names(tensors, module, graph.unused)
        stated = {"model": model, "checkpoint": checkpoint, "scheme": str(parsed)}
        metadata = {"format": "pt", "input_shape": ",".join(map(str, shape)), "ghnq_version": __version__, **stated}
        with atomic_path(out) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        count = sum(prod(tensor.shape) for tensor in tensors.values())
        for warning in _warnings(ghn, parsed, shape, graph.num_outputs, tensors):
            terminal.warn(warning)
        document = {
            "model": model,
            "checkpoint": checkpoint,
            "input_shape": list(shape),
            "scheme": str(parsed),
            "parameters": count,
            "tensors": len(tensors),
            "seconds": round(seconds, 4),
            "out": str(out),
            "unused": list(graph.unused),
            "warnings": terminal.warnings,
        }
    terminal.finish(
        document,
        f"[bold]{count:,}[/] parameters in {len(tensors)} tensors of [bold]{model}[/], predicted in {seconds:.2f} s",
        f"written to [cyan]{out}[/]",
    )


def _layers(module: nn.Module, unused: Collection[str]) -> list[str]:
    """Returns the layers that a scheme can quantize, without those that do not reach the output."""
    layers = [name for name, child in module.named_modules() if is_quantizable(child)]
    return [name for name in layers if f"{name}.weight".lstrip(".") not in unused]


def _as_module_names(tensors: dict[str, Tensor], module: nn.Module, unused: Collection[str]) -> dict[str, Tensor]:
    """Returns the tensors in the module's order, after checking that names and shapes agree."""
    expected = {name: tuple(p.shape) for name, p in module.named_parameters() if name not in unused}
    predicted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != predicted:
        wrong = sorted(name for name in expected | predicted if expected.get(name) != predicted.get(name))
        raise GraphError(
            f"The prediction does not fit the model at {len(wrong)} parameters, first '{wrong[0]}': "
            f"the model has {expected.get(wrong[0])}, predicted is {predicted.get(wrong[0])}."
        )
    # Tensors that share memory are refused by safetensors.
    return {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in expected}


def _warnings(
    ghn: GHN, scheme: QuantScheme, shape: tuple[int, int, int], outputs: int, tensors: dict[str, Tensor]
) -> Iterator[str]:
    """Yields warnings about a prediction that the hypernetwork was not trained for."""
    if not scheme.is_float and not ghn.config.condition:
        yield f"the hypernetwork was trained without `condition`: it predicts the same for {scheme} as for float32"
    if ghn.task is not None and tuple(ghn.task.image_shape) != shape:
        trained, given = ("x".join(map(str, s)) for s in (ghn.task.image_shape, shape))
        yield f"the hypernetwork was trained for images of {trained}, not {given}: expect poor accuracy"
    if outputs > ghn.config.num_classes:
        yield f"the model has {outputs} outputs; classes repeat after {ghn.config.num_classes}"
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        yield "some predicted values are NaN or infinite"
