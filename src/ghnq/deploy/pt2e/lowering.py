"""What becomes of a program on x86: torchao's lowering to oneDNN's integer kernels, then torch.compile.

oneDNN's kernels for uint8 activations and int8 weights add two products in 16 bits on processors without VNNI, which
saturates; only within ±64, and where a kernel sums one channel, the sums are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.deploy.graph.saturation import SAFE_WEIGHT
from ghnq.deploy.graph.supported_ops import LAYERS, aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional, quiet
from ghnq.processor import this_processor
from ghnq.torch_compat import compiler_error, cpp_compiler, freeze_weights

_BOOKKEEPING = ("<built-in function getitem>",)


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program lowered for images of one shape [B, C, H, W].

    saturating: layers with weights that this processor's integer kernels may overflow on.
    """

    module: fx.GraphModule
    kernels: KernelCounts
    saturating: tuple[str, ...]


def lower(program: ExportedProgram, images: Tensor, *, exact: bool = True) -> Lowered:
    """Lowers a program to oneDNN's integer kernels, for batches of the shape of `images` alone.

    exact: where this processor would saturate, leave those layers in float; without it the lowering is torchao's own.

    Raises:
        MissingExtraError: torchao is not installed.
        ExportError: torchao cannot lower it.
    """
    import_optional("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")  # registers what kernels stand for
    lowering = import_optional("torchao.quantization.pt2e.lowering")
    try:
        with quiet(), torch.no_grad():
            quantized_decomposed()
            module: Any = program.module()
            layers = [_layer_name(node) for node in module.graph.nodes if node.target in LAYERS]
            saturating = _saturating(module)
            names = tuple(_layer_name(node) for node in saturating)
            if exact:
                _leave_in_float(module, saturating)
            lowered = lowering.lower_pt2e_quantized_to_x86(module, (images,))
    except Exception as error:
        # torchao and torch.export have no error class of their own.
        raise ExportError(f"torchao cannot lower the program: {_first_line(error)}") from error
    return Lowered(lowered, _kernels(lowered, layers), names)


def compiled(lowered: Lowered, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the lowered program as torch.compile runs it: images [B, C, H, W] of its shape in, logits [B, K] out.

    Raises ExportError where there is no C++ compiler, or torch.compile fails.
    """
    try:
        cpp_compiler()
    except compiler_error() as error:
        raise ExportError(
            "torch.compile needs a C++ compiler and finds none; install g++ or clang++, or name one in CXX"
        ) from error
    run = torch.compile(lowered.module)

    def call(batch: Tensor) -> Tensor:
        with torch.no_grad(), freeze_weights():  # its kernels for linear layers need constant weights
            logits: Tensor = run(batch)
        return logits

    try:
        with quiet():
            call(images)  # compiles
    except Exception as error:
        # The compiler's errors come from many libraries.
        raise ExportError(f"torch.compile cannot compile the program: {_first_line(error)}") from error
    return call


def _saturating(module: fx.GraphModule) -> list[fx.Node]:
    """Layers whose int8 weights can overflow 16 bits here."""
    if this_processor().saturates is False:
        return []
    return [node for node in module.graph.nodes if _is_wide(module, node)]


def _is_wide(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target not in LAYERS:
        return False
    weight: Any = node.args[1]
    if weight.target is not quantized_decomposed().dequantize_per_channel.default:
        return False
    integers = module.get_buffer(str(weight.args[0].target))
    one_channel = node.target is aten.conv2d.default and integers.shape[1] == 1  # products of two channels are added
    return not one_channel and int(integers.to(torch.int32).abs().max()) > SAFE_WEIGHT


def _leave_in_float(module: fx.GraphModule, layers: list[fx.Node]) -> None:
    """Puts the dequantized weights of layers in place of their dequantization, so that no integer kernel fits."""
    for layer in layers:
        weight: Any = layer.args[1]
        if weight.op == "get_attr":
            continue  # a layer that runs twice has one weight
        values = weight.target(*(_constant(module, arg) for arg in weight.args))
        name = f"{weight.name}_float"
        module.register_buffer(name, values)
        with module.graph.inserting_before(weight):
            weight.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.eliminate_dead_code()
    module.recompile()


def _constant(module: fx.GraphModule, arg: Any) -> Any:
    return module.get_buffer(str(arg.target)) if isinstance(arg, fx.Node) else arg


def _layer_name(node: fx.Node) -> str:
    """The name of a layer, from that of its weight in the file."""
    weight: Any = node.args[1]
    stored = weight if weight.op == "get_attr" else weight.args[0]
    return str(stored.target).rstrip("_").removesuffix("_weight")


def _kernels(lowered: fx.GraphModule, layers: list[str]) -> KernelCounts:
    """The functions of a lowered graph, by the type they compute in; integer kernels know layers by weight scales."""
    counts: dict[str, Counter[str]] = {"integer": Counter(), "float": Counter(), "border": Counter()}
    integer: set[str] = set()
    for node in lowered.graph.nodes:
        name = str(node.target)
        if node.op != "call_function" or name in _BOOKKEEPING:
            continue
        place = "integer" if name.startswith("onednn.q") else "float"
        place = "border" if name.startswith("quantized_decomposed.") else place
        counts[place][name.removesuffix(".default")] += 1
        if place == "integer":
            integer.update(str(read.target).rstrip("_").removesuffix("_weight_scale") for read in node.all_input_nodes)
    floating = tuple(name for name in dict.fromkeys(layers) if name not in integer)
    return KernelCounts(dict(counts["integer"]), dict(counts["float"]), dict(counts["border"]), floating)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
