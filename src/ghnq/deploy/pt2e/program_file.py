"""Files of torch.export programs: written whole or not at all, and read without running code from the file.

An archive is first read as what it is, a zip of raw tensors and JSON; its records are validated
(`program_validation.py`); and `torch.export.load` gets a new archive that is made of nothing else.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ghnq.deploy.metadata import FORMAT, FORMAT_KEY, Facts
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.deploy.pt2e.program_validation import validated
from ghnq.errors import ExportError
from ghnq.files import atomic_path
from ghnq.optional_imports import quiet
from ghnq.torch_compat import has_program_archive

FACTS = "ghnq.json"
"""The name of the record of the metadata, among the extra files of an archive."""


def save_program(program: ExportedProgram, facts: Facts, path: Path) -> None:
    """Writes a program with its metadata to `path`, whole or not at all.

    Raises:
        ExportError: torch is older than 2.8, whose files have another layout.
    """
    _check_torch()
    with atomic_path(path) as temporary, quiet():
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts.to_properties())})
        temporary.write_bytes(buffer.getvalue())


def load_program(path: Path) -> tuple[ExportedProgram, Facts]:
    """Returns the program and the metadata of a file that `ghnq export` wrote.

    Only the example input is unpickled, as plain tensors.

    Raises:
        ExportError: The file is missing, damaged, or written by another program; or torch is older than 2.8.
    """
    records = _read_records(path)
    facts = _facts(path, records)
    _check_torch()
    try:
        clean = validated(records)
        with quiet():
            quantized_decomposed()
            program = torch.export.load(_to_archive(clean))
    except Exception as error:
        # torch.export has no error class of its own, and a damaged file may stop it anywhere.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"'{path}' is damaged, or not as ghnq export writes it ({first})") from error
    facts.check_images(_image_shape(program), path)
    return program, facts


def read_facts(path: Path) -> Facts:
    """Returns the metadata of a file that `ghnq export` wrote.

    Raises:
        ExportError: The file is missing, damaged, or written by another program.
    """
    return _facts(path, _read_records(path))


def _check_torch() -> None:
    if not has_program_archive():
        raise ExportError(
            f".pt2 files need torch 2.8 or newer, this is torch {torch.__version__}; install a newer torch, or export "
            "to .onnx"
        )


def _image_shape(program: ExportedProgram) -> list[int | str]:
    """Returns the shape of images that a program takes, with `batch` for a free size."""
    (name,) = program.graph_signature.user_inputs
    (images,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return [size if isinstance(size, int) else "batch" for size in images.meta["val"].shape]


def _facts(path: Path, records: dict[str, bytes]) -> Facts:
    try:
        properties = json.loads(records[f"extra/{FACTS}"])
        if properties[FORMAT_KEY] != FORMAT:
            raise KeyError(FORMAT_KEY)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ExportError(
            f"'{path}' was not written by ghnq export; the simulation is known only of files that ghnq export wrote"
        ) from error
    return Facts.from_properties(properties, str(path))


def _read_records(path: Path) -> dict[str, bytes]:
    """Returns the records of an archive by name, without the folder that all of them are in."""
    if not path.is_file():
        raise ExportError(f"there is no file '{path}'; write one with: ghnq export MODEL --out {path.name}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ExportError(f"'{path}' was not written by ghnq export: its records are compressed")
            return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise ExportError(f"'{path}' is not a torch.export program, or is damaged ({error})") from error


def _to_archive(records: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name}", data)
    buffer.seek(0)
    return buffer
