"""Parity: whether a file computes on its runtime, ONNX Runtime or torch, what its simulation computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ghnq.data import ImageDataset
from ghnq.deploy.comparison import Agreement, Comparison, check_shape
from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.deploy.graph.saturation import has_wide_int8
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx import runtime
from ghnq.deploy.onnx.reader import facts_of, load_model, read_simulation
from ghnq.deploy.pt2e.lowering import compiled, lower
from ghnq.deploy.pt2e.program_file import load_program
from ghnq.deploy.pt2e.reader import read_program
from ghnq.optional_imports import import_optional
from ghnq.processor import Processor, this_processor

_RATES = {"agreement", "accuracy", "accuracy_simulation", "accuracy_runtime"}


@dataclass(frozen=True)
class Parity:
    """Parity of an ONNX file on ONNX Runtime; shares and accuracies are from 0 to 1.

    Attributes:
        agreement, largest_difference, largest_difference_steps: As in `Agreement`.
        opset: The opset of the file.
        saturation: Whether 8-bit weights, as this file stores them, can overflow on this processor; None where that is
            not known.
        onnxruntime: The version of ONNX Runtime.
    """

    file: str
    facts: Facts
    images: int
    agreement: float
    accuracy_simulation: float
    accuracy_runtime: float
    largest_difference: float
    largest_difference_steps: float | None
    kernels: KernelCounts
    opset: int
    processor: Processor
    saturation: bool | None
    onnxruntime: str

    def document(self) -> dict[str, Any]:
        """Returns the comparison as plain values for JSON, with rates in percent."""
        return _in_percent(asdict(self))


@dataclass(frozen=True)
class CompiledAgreement(Agreement):
    """Agreement of a program that was lowered to x86 and compiled.

    Attributes:
        saturating: Layers whose weights this processor's integer kernels may overflow on.
        exact: Whether these layers were left in float, as `lower` does.
        torchao: The version of torchao.
    """

    kernels: KernelCounts
    saturating: tuple[str, ...]
    exact: bool
    torchao: str


@dataclass(frozen=True)
class ProgramParity:
    """Parity of a torch.export program.

    Attributes:
        eager: Of the program as it is loaded, operator by operator.
        compiled: Of the compiled program; None unless asked for.
        torch: The version of torch.
    """

    file: str
    facts: Facts
    images: int
    accuracy_simulation: float
    eager: Agreement
    compiled: CompiledAgreement | None
    processor: Processor
    torch: str

    def document(self) -> dict[str, Any]:
        """Returns the comparison as plain values for JSON, with rates in percent."""
        return _in_percent(asdict(self))


def verify(path: Path, dataset: ImageDataset, *, images: int | None = None) -> Parity:
    """Compares ONNX Runtime with the simulation on test images of `dataset`.

    The simulation is rebuilt from the file itself; images are normalised as its metadata say.

    Args:
        images: How many images, a fixed and class-balanced subset; None is all.

    Raises:
        ExportError: The file was not written by ghnq, the runtime refuses it, or logits are NaN or infinite.
        DataError: The images have another shape or more classes than the file, or are too few.
    """
    model = load_model(path)
    facts = facts_of(model, path)
    check_shape(path, facts, dataset)
    simulation = read_simulation(model, str(path))
    data = model.SerializeToString()
    session = runtime.session(data)
    comparison = Comparison.of(path, facts, simulation, dataset, images)
    agreement = comparison.with_runtime("ONNX Runtime", partial(runtime.run, session))
    processor = this_processor()
    return Parity(
        file=str(path),
        facts=facts,
        images=len(comparison.images),
        agreement=agreement.agreement,
        accuracy_simulation=comparison.accuracy,
        accuracy_runtime=agreement.accuracy,
        largest_difference=agreement.largest_difference,
        largest_difference_steps=agreement.largest_difference_steps,
        kernels=runtime.kernels(data),
        opset=model.opset_import[0].version,
        processor=processor,
        saturation=processor.saturates if has_wide_int8(simulation) else False,
        onnxruntime=import_optional("onnxruntime").__version__,
    )


def verify_program(
    path: Path, dataset: ImageDataset, *, images: int | None = None, compile: bool = False, exact: bool = True
) -> ProgramParity:
    """Compares a torch.export program with the simulation on test images of `dataset`.

    The simulation is rebuilt from the file itself; images are normalised as its metadata say.

    Args:
        images: How many images, a fixed and class-balanced subset; None is all.
        compile: Whether to compare the program lowered to x86 and compiled as well.
        exact: What `lower` does where integer kernels would saturate.

    Raises:
        ExportError: The file was not written by ghnq, it cannot be compiled here, or logits are NaN or infinite.
        DataError: The images have another shape or more classes than the file, or are too few.
        MissingExtraError: `compile` without torchao.
    """
    program, facts = load_program(path)
    check_shape(path, facts, dataset)
    comparison = Comparison.of(path, facts, read_program(program, str(path)), dataset, images)
    return ProgramParity(
        file=str(path),
        facts=facts,
        images=len(comparison.images),
        accuracy_simulation=comparison.accuracy,
        eager=comparison.with_runtime("the program", program.module()),
        compiled=_compare_compiled(program, comparison, exact) if compile else None,
        processor=this_processor(),
        torch=torch.__version__,
    )


def _in_percent(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a document with agreement and accuracies in percent, as all documents have rates."""
    return {
        key: _in_percent(value) if isinstance(value, dict) else 100 * value if key in _RATES else value
        for key, value in document.items()
    }


def _compare_compiled(program: ExportedProgram, comparison: Comparison, exact: bool) -> CompiledAgreement:
    images = comparison.first_batch()
    lowered = lower(program, images, exact=exact)
    run = compiled(lowered, images)

    def padded(batch: Tensor) -> Tensor:
        """Fills a batch up, as a lowered program takes batches of one size."""
        missing = batch.new_zeros(len(images) - len(batch), *batch.shape[1:])
        return run(torch.cat([batch, missing]))[: len(batch)]

    agreement = comparison.with_runtime("the compiled program", padded)
    return CompiledAgreement(
        **asdict(agreement), kernels=lowered.kernels, saturating=lowered.saturating, exact=exact,
        torchao=import_optional("torchao").__version__,
    )  # fmt: skip
