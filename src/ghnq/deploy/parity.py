"""Whether a file computes on ONNX Runtime what its simulation computes in torch: the same images through both.

The simulation is rebuilt from the file and sums in integers (`integers.py`), so what is left is rounding at ties.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ghnq.data import ImageDataset, Images
from ghnq.deploy.graph.finite import check_logits
from ghnq.deploy.graph.integer_arithmetic import in_integers
from ghnq.deploy.graph.quantize_ops import dequantize
from ghnq.deploy.graph.supported_ops import LAYERS, aten
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import facts_of, load_model, read_simulation
from ghnq.deploy.onnx.writer import SAFE_WEIGHT
from ghnq.errors import DataError
from ghnq.optional_imports import import_optional
from ghnq.processor import Processor, this_processor

BATCH = 250


@dataclass(frozen=True)
class Parity:
    """What one comparison showed; shares and accuracies are from 0 to 1.

    largest_difference: of any logit of any image. largest_difference_steps: the same, in units of what one quantization
        step of one input of the last layer moves that logit at most (None where the last layer is not quantized).
    saturation: whether 8-bit weights, as this file stores them, can overflow on this processor; None: not known.
    """

    file: str
    facts: Facts
    images: int
    agreement: float
    accuracy_simulation: float
    accuracy_runtime: float
    largest_difference: float
    largest_difference_steps: float | None
    kernels: runtime.Kernels
    opset: int
    processor: Processor
    saturation: bool | None
    onnxruntime: str

    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return asdict(self)


def verify(path: Path, dataset: ImageDataset, *, images: int | None = None) -> Parity:
    """Runs simulation and ONNX Runtime on test images of `dataset` (all, or a fixed balanced subset).

    The simulation is rebuilt from the file itself; images are normalised as the file says.

    Raises:
        ExportError: no file that ghnq wrote, the runtime refuses it, or logits are NaN or infinite.
        DataError: images of another shape, or too few.
    """
    model = load_model(path)
    facts = facts_of(model, path)
    check_shape(path, facts, dataset)
    simulation = read_simulation(model, str(path))
    data = model.SerializeToString()
    chosen = dataset.test if images is None else dataset.test.first(images)
    ours, theirs = logits_of_both(in_integers(simulation), runtime.session(data), dataset, chosen, facts)
    check_classes(path, ours, dataset)
    check_logits(path, "the simulation", ours)
    check_logits(path, "ONNX Runtime", theirs)
    difference = (ours - theirs).abs()
    steps = last_layer_steps(simulation)
    processor = this_processor()
    return Parity(
        file=str(path),
        facts=facts,
        images=len(chosen),
        agreement=share(ours.argmax(1) == theirs.argmax(1)),
        accuracy_simulation=share(ours.argmax(1) == chosen.labels),
        accuracy_runtime=share(theirs.argmax(1) == chosen.labels),
        largest_difference=difference.max().item(),
        largest_difference_steps=None if steps is None else (difference / steps).max().item(),
        kernels=runtime.kernels(data),
        opset=model.opset_import[0].version,
        processor=processor,
        saturation=processor.saturates if has_wide_int8(simulation) else False,
        onnxruntime=import_optional("onnxruntime").__version__,
    )


def check_shape(path: Path, facts: Facts, dataset: ImageDataset) -> None:
    """Raises DataError where a file takes other images than the data set has."""
    if dataset.input_shape != facts.input_shape:
        came, want = ("x".join(map(str, shape)) for shape in (dataset.input_shape, facts.input_shape))
        raise DataError(f"'{path}' takes images of {want}, '{dataset.name}' has {came}")


def check_classes(path: Path, logits: Tensor, dataset: ImageDataset) -> None:
    """Raises DataError where logits [B, K] are fewer than the classes of the data set."""
    if logits.shape[1] < dataset.num_classes:
        raise DataError(f"'{path}' has {logits.shape[1]} outputs, '{dataset.name}' {dataset.num_classes} classes")


@torch.inference_mode()
def logits_of_both(
    simulation: fx.GraphModule, session: Any, dataset: ImageDataset, images: Images, facts: Facts
) -> tuple[Tensor, Tensor]:
    """Logits [B, K] of the simulation and of the runtime."""
    ours, theirs = [], []
    for start in range(0, len(images), BATCH):
        batch = normalise(images.pixels[start : start + BATCH], dataset, facts)
        ours.append(simulation(batch))
        theirs.append(runtime.run(session, batch))
    return torch.cat(ours), torch.cat(theirs)


def last_layer_steps(simulation: fx.GraphModule) -> Tensor | None:
    """What one step of one input of the last layer moves each logit at most, [K]: input scale * largest weight."""
    layers = [node for node in simulation.graph.nodes if node.target in LAYERS]
    if not layers:
        return None
    result: Any = simulation.graph.output_node().args[0]
    while result.target in (aten.reshape.default, aten.mean.dim):
        result = result.args[0]
    if result is not layers[-1]:  # what comes behind it moves the logits in other ways
        return None
    source, weight = layers[-1].args[:2]
    if source.target is not dequantize or weight.target is not dequantize:
        return None
    values = dequantize(*(getattr(simulation, str(arg.target)) for arg in weight.args))
    scale: Tensor = getattr(simulation, str(source.args[1].target))
    steps: Tensor = scale * values.abs().flatten(1).amax(1)
    steps[steps == 0] = torch.inf  # a class without weights has no steps
    return steps


def has_wide_int8(simulation: fx.GraphModule) -> bool:
    """Whether a weight is stored as int8 with values that two products may overflow 16 bits with."""
    return any(
        tensor.dtype == torch.int8 and tensor.dim() > 1 and int(tensor.to(torch.int32).abs().max()) > SAFE_WEIGHT
        for tensor in simulation.buffers()
    )


def normalise(pixels: Tensor, dataset: ImageDataset, facts: Facts) -> Tensor:
    """Network input [B, C, H, W] of stored pixels, as the file says."""
    mean, std = facts.origin.mean, facts.origin.std
    if mean is None or std is None:
        return dataset.normalise(pixels)
    shift = 255 * torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
    scale = (1 / (255 * torch.tensor(std, dtype=torch.float32))).view(-1, 1, 1)
    return pixels.to(torch.float32).sub_(shift).mul_(scale)


def share(right: Tensor) -> float:
    """The share of True, 0 to 1."""
    return right.double().mean().item()
