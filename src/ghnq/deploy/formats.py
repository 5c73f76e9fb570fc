"""The file formats that a network is exported to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import fx

from ghnq.deploy.metadata import Facts
from ghnq.deploy.onnx.storage import Storage
from ghnq.deploy.onnx.writer import write_model
from ghnq.deploy.pt2e.program_file import save_program
from ghnq.deploy.pt2e.writer import to_program
from ghnq.errors import GhnqError
from ghnq.files import atomic_path
from ghnq.optional_imports import import_optional


class ExportFormat(Protocol):
    """A file format, with the options of its files."""

    def check(self, path: Path) -> None:
        """Checks, before any work is done, that the format can be written to `path`.

        Raises:
            GhnqError: The name has another ending than files of this format.
            MissingExtraError: A library that writes the format is not installed.
        """

    def write(self, simulation: fx.GraphModule, facts: Facts, path: Path) -> int | None:
        """Writes a simulated network with its metadata, whole or not at all; returns the opset of ONNX files.

        Raises:
            ExportError: An operator cannot be expressed in this format.
        """


@dataclass(frozen=True)
class OnnxFormat:
    """ONNX with QuantizeLinear and DequantizeLinear."""

    storage: Storage

    def check(self, path: Path) -> None:
        """Raises MissingExtraError if onnx is not installed; any file name is allowed."""
        import_optional("onnx")

    def write(self, simulation: fx.GraphModule, facts: Facts, path: Path) -> int:
        """Writes the file and returns its opset."""
        model = write_model(simulation, storage=self.storage, metadata=facts.to_properties())
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
        return int(model.opset_import[0].version)


@dataclass(frozen=True)
class ProgramFormat:
    """A torch.export program (.pt2) with the operators of pt2e quantization."""

    def check(self, path: Path) -> None:
        """Raises GhnqError if the name does not end in .pt2, by which torch.export knows its files."""
        if path.suffix.lower() != ".pt2":
            raise GhnqError(f"'{path}' ends in '{path.suffix}'; torch.export programs are written as .pt2")

    def write(self, simulation: fx.GraphModule, facts: Facts, path: Path) -> None:
        """Writes the file."""
        save_program(to_program(simulation, facts.input_shape), facts, path)
