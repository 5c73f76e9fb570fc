"""Whether a .pt2 file computes what its simulation computes: the same images through both, as `verify` does for ONNX.

The program runs as it was loaded, function by function, and on request lowered to x86 kernels and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from ghnq.data import ImageDataset, Images
from ghnq.deploy.graph.finite import check_logits
from ghnq.deploy.graph.integer_arithmetic import in_integers
from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx.runtime import Kernels
from ghnq.deploy.parity import BATCH, check_classes, check_shape, last_layer_steps, normalise, share
from ghnq.deploy.pt2e.lowering import compiled, lower
from ghnq.deploy.pt2e.program_file import load_program
from ghnq.deploy.pt2e.reader import read_program
from ghnq.optional_imports import import_optional
from ghnq.processor import Processor, this_processor

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """One run against the simulation; shares and accuracies are from 0 to 1, the differences as in `Parity`."""

    agreement: float
    accuracy: float
    largest_difference: float
    largest_difference_steps: float | None


@dataclass(frozen=True)
class CompiledAgreement(Agreement):
    """The same for the program lowered to x86 and compiled.

    saturating: layers whose weights this processor's integer kernels may overflow on.
    exact: whether these were left in float, as `lower` does.
    """

    kernels: Kernels
    saturating: tuple[str, ...]
    exact: bool
    torchao: str


@dataclass(frozen=True)
class ProgramParity:
    """What one comparison showed; `eager` is the loaded program, `compiled` None unless asked for."""

    file: str
    facts: Facts
    images: int
    accuracy_simulation: float
    eager: Agreement
    compiled: CompiledAgreement | None
    processor: Processor
    torch: str

    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return asdict(self)


def verify_program(
    path: Path, dataset: ImageDataset, *, images: int | None = None, compile: bool = False, exact: bool = True
) -> ProgramParity:
    """Runs simulation and program on test images of `dataset` (all, or a fixed balanced subset).

    The simulation is rebuilt from the file itself and sums in integers; images are normalised as the file says.

    Args:
        compile: also lower the program to x86 and compile it.
        exact: what `lower` does where integer kernels would saturate.

    Raises:
        ExportError: no file that ghnq wrote, it cannot be compiled here, or logits are NaN or infinite.
        DataError: images of another shape, or too few.
        MissingExtraError: `compile` without torchao.
    """
    program, facts = load_program(path)
    check_shape(path, facts, dataset)
    simulation = read_program(program, str(path))
    chosen = dataset.test if images is None else dataset.test.first(images)
    batches = _batches(chosen, dataset, facts)
    ours = _run(in_integers(simulation), batches)
    check_classes(path, ours, dataset)
    check_logits(path, "the simulation", ours)
    comparison = _Comparison(path, ours, chosen.labels, last_layer_steps(simulation))
    return ProgramParity(
        file=str(path),
        facts=facts,
        images=len(chosen),
        accuracy_simulation=share(ours.argmax(1) == chosen.labels),
        eager=Agreement(**comparison.with_logits("the program", _run(program.module(), batches))),
        compiled=_compiled(program, batches, comparison, exact) if compile else None,
        processor=this_processor(),
        torch=torch.__version__,
    )


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Of a file: the simulation's logits [B, K], labels [B], and the last layer's steps [K]."""

    path: Path
    ours: Tensor
    labels: Tensor
    steps: Tensor | None

    def with_logits(self, who: str, theirs: Tensor) -> dict[str, Any]:
        """The fields of an `Agreement` for the logits [B, K] that `who` computes."""
        check_logits(self.path, who, theirs)
        difference = (self.ours - theirs).abs()
        return {
            "agreement": share(self.ours.argmax(1) == theirs.argmax(1)),
            "accuracy": share(theirs.argmax(1) == self.labels),
            "largest_difference": difference.max().item(),
            "largest_difference_steps": None if self.steps is None else (difference / self.steps).max().item(),
        }


def _compiled(
    program: ExportedProgram, batches: list[Tensor], comparison: _Comparison, exact: bool
) -> CompiledAgreement:
    lowered = lower(program, batches[0], exact=exact)
    run = compiled(lowered, batches[0])
    size = len(batches[0])

    def padded(batch: Tensor) -> Tensor:
        """A lowered program takes batches of one size."""
        missing = batch.new_zeros(size - len(batch), *batch.shape[1:])
        return run(torch.cat([batch, missing]))[: len(batch)]

    theirs = _run(padded, batches)
    return CompiledAgreement(
        **comparison.with_logits("the compiled program", theirs), kernels=lowered.kernels,
        saturating=lowered.saturating, exact=exact, torchao=import_optional("torchao").__version__,
    )  # fmt: skip


def _batches(images: Images, dataset: ImageDataset, facts: Facts) -> list[Tensor]:
    """Network input [B, C, H, W], all of one size but the last."""
    return [normalise(part, dataset, facts) for part in torch.split(images.pixels, BATCH)]


@torch.no_grad()
def _run(module: fx.GraphModule | Run | Any, batches: list[Tensor]) -> Tensor:
    return torch.cat([module(batch) for batch in batches])
