"""A program on x86: torchao's lowering to oneDNN's integer kernels, then torch.compile.

oneDNN's kernels for uint8 activations and int8 weights add two products in 16 bits on processors without VNNI, which
saturates; the sums are exact only for weights within ±64, and where a kernel sums one channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.node import Argument

from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.deploy.graph.rewriter import node_argument
from ghnq.deploy.graph.saturation import SAFE_WEIGHT
from ghnq.deploy.graph.supported_ops import LAYERS, aten
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.deploy.pt2e.tensor_names import is_weight_scale, layer_name
from ghnq.errors import ExportError
from ghnq.optional_imports import import_optional, quiet
from ghnq.processor import this_processor
from ghnq.torch_compat import compiler_error, cpp_compiler, freeze_weights

_NOT_COUNTED = ("<built-in function getitem>",)
"""Functions that are not kernels."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program lowered for images of one shape [B, C, H, W].

    Attributes:
        module: Images in, logits [B, K] out.
        kernels: Its kernels by the type they compute in.
        saturating: Names of the layers whose weights may overflow in this processor's integer kernels.
    """

    module: fx.GraphModule
    kernels: KernelCounts
    saturating: tuple[str, ...]


def lower(program: ExportedProgram, images: Tensor, *, exact: bool = True) -> Lowered:
    """Lowers a program to oneDNN's integer kernels, for batches of the shape of `images` [B, C, H, W] only.

    Args:
        exact: Whether layers that would saturate on this processor are computed in float; if not, the lowering is
            torchao's, unchanged.

    Raises:
        MissingExtraError: torchao is not installed.
        ExportError: torchao cannot lower the program.
    """
    import_optional("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")  # registers the patterns of kernels
    lowering = import_optional("torchao.quantization.pt2e.lowering")
    try:
        with quiet(), torch.no_grad():
            quantized_decomposed()
            module = program.module()
            assert isinstance(module, fx.GraphModule)
            layers = [_layer_name(node) for node in module.graph.nodes if node.target in LAYERS]
            saturating = _saturating_layers(module)
            names = tuple(_layer_name(node) for node in saturating)
            # torchao takes transposed convolutions for convolutions and fails: they have no integer kernel.
            transposed = [node for node in module.graph.nodes if node.target is aten.conv_transpose2d.input]
            _dequantize_weights(module, [*(saturating if exact else []), *transposed])
            _pad_in_front_of_open_windows(module)
            lowered = lowering.lower_pt2e_quantized_to_x86(module, (images,))
            _views_of_any_layout(lowered)
    except Exception as error:
        # torchao and torch.export have no error class of their own.
        raise ExportError(f"torchao cannot lower the program: {_first_line(error)}") from error
    return Lowered(lowered, _count_kernels(lowered, layers), names)


def compiled(lowered: Lowered, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the lowered program as torch.compile runs it: images [B, C, H, W] of its shape in, logits [B, K] out.

    Raises:
        ExportError: There is no C++ compiler, or torch.compile fails.
    """
    try:
        cpp_compiler()
    except compiler_error() as error:
        raise ExportError(
            "torch.compile needs a C++ compiler and finds none; install g++ or clang++, or set CXX to one"
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


def _saturating_layers(module: fx.GraphModule) -> list[fx.Node]:
    """Returns the layers whose int8 weights can overflow 16 bits on this processor."""
    if this_processor().saturates is False:
        return []
    return [node for node in module.graph.nodes if _has_wide_weight(module, node)]


def _has_wide_weight(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target not in LAYERS or node.target is aten.conv_transpose2d.input:  # that has no integer kernel
        return False
    weight = node_argument(node, 1)
    if weight.target is not quantized_decomposed().dequantize_per_channel.default:
        return False
    integers = module.get_buffer(str(node_argument(weight).target))
    one_channel = node.target is aten.conv2d.default and integers.shape[1] == 1  # products of two channels are added
    return not one_channel and int(integers.to(torch.int32).abs().max()) > SAFE_WEIGHT


def _dequantize_weights(module: fx.GraphModule, layers: list[fx.Node]) -> None:
    """Replaces the dequantizations of layers' weights by their float values, so that no integer kernel matches."""
    for layer in layers:
        weight = node_argument(layer, 1)
        if weight.op == "get_attr":
            continue  # a layer that runs twice has one weight
        assert callable(weight.target)
        values = weight.target(*(_argument_value(module, argument) for argument in weight.args))
        name = f"{weight.name}_float"
        module.register_buffer(name, values)
        with module.graph.inserting_before(weight):
            weight.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.eliminate_dead_code()
    module.recompile()


def _pad_in_front_of_open_windows(module: fx.GraphModule) -> None:
    """Pads the input of max pooling with `ceil_mode`, whose last windows go beyond the image, instead.

    torch.compile reads other memory there if the values are integers (torch 2.13: errors of 1.1 in logits).
    """
    for node in list(module.graph.nodes):
        if node.target is not aten.max_pool2d.default or len(node.args) < 6 or not node.args[5]:
            continue
        x, kernel, stride, padding, dilation, _ = node.args
        beyond = [
            _beyond(size, kernel[axis], stride[axis], padding[axis], dilation[axis])
            for axis, size in enumerate(x.meta["val"].shape[2:])
        ]
        with module.graph.inserting_before(node):
            pads = [0, beyond[1], 0, beyond[0]]
            padded = module.graph.call_function(aten.constant_pad_nd.default, (x, pads, float("-inf")))
        node.args = (padded if any(beyond) else x, kernel, stride, padding, dilation)
    module.graph.eliminate_dead_code()
    module.recompile()


def _beyond(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Returns how many pixels the last window of a pooling with `ceil_mode` goes beyond the padded image."""
    reach = dilation * (kernel - 1) + 1
    windows = -(-(size + 2 * padding - reach) // stride) + 1
    if (windows - 1) * stride >= size + padding:
        windows -= 1  # it would begin in the padding
    return max(0, (windows - 1) * stride + reach - size - 2 * padding)


def _views_of_any_layout(module: fx.GraphModule) -> None:
    """Lets views copy where they must: results of oneDNN's kernels are channels-last."""
    for node in module.graph.nodes:
        if node.target is aten.view.default:
            node.target = aten.reshape.default
    module.recompile()


def _argument_value(module: fx.GraphModule, argument: Argument) -> Argument | Tensor:
    return module.get_buffer(str(argument.target)) if isinstance(argument, fx.Node) else argument


def _layer_name(node: fx.Node) -> str:
    """Returns the name of a layer, from that of its weight in the file."""
    weight = node_argument(node, 1)
    stored = weight if weight.op == "get_attr" else node_argument(weight)
    return layer_name(str(stored.target))


def _count_kernels(lowered: fx.GraphModule, layers: list[str]) -> KernelCounts:
    """Counts the functions of a lowered graph by the type they compute in.

    Args:
        layers: The names of all layers. Those whose weight scales no integer kernel reads compute in float.
    """
    counts: dict[str, Counter[str]] = {"integer": Counter(), "float": Counter(), "border": Counter()}
    integer_layers: set[str] = set()
    for node in lowered.graph.nodes:
        name = str(node.target)
        if node.op != "call_function" or name in _NOT_COUNTED:
            continue
        kind = "integer" if name.startswith("onednn.q") else "float"
        kind = "border" if name.startswith("quantized_decomposed.") else kind
        counts[kind][name.removesuffix(".default")] += 1
        if kind == "integer":
            scales = [source for source in node.all_input_nodes if is_weight_scale(source)]
            integer_layers.update(layer_name(str(source.target)) for source in scales)
    float_layers = tuple(name for name in dict.fromkeys(layers) if name not in integer_layers)
    return KernelCounts(dict(counts["integer"]), dict(counts["float"]), dict(counts["border"]), float_layers)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
