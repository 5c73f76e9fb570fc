"""Files of torch.export programs: written whole or not at all, and read without running what a stranger put in them.

`torch.export.load` must not be given a file from outside: an archive may hold pickles, expressions that are evaluated,
compiled libraries, and names of any function. So an archive is first read as what it is, a zip of raw tensors and JSON;
every record, function and expression has to be one that `ghnq export` writes; and torch gets a fresh archive made of
nothing but these.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ghnq.deploy.graph.supported_ops import KINDS, aten
from ghnq.deploy.metadata import FORMAT, FORMAT_KEY, Facts
from ghnq.deploy.pt2e.operators import quantized_decomposed
from ghnq.errors import ExportError
from ghnq.files import atomic_path
from ghnq.optional_imports import quiet
from ghnq.torch_compat import has_program_archive

FACTS = "ghnq.json"
_MODEL, _WEIGHTS, _CONSTANTS = "models/model.json", "data/weights/model_weights_config.json", (
    "data/constants/model_constants_config.json"
)  # fmt: skip
_RECORD = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)|constants/model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/ghnq\.json"
)
# The sizes of tensors: products and sums of integers and of the batch.
_EXPRESSION = re.compile(r"(?:Mul|Add|Integer|Symbol|positive|integer|True|'s\d+'|s\d+|-?\d+|[(),=+* ])+")
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_IN_SPEC = [1, {"type": "builtins.tuple", "context": "null", "children_spec": [
    {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]},
    {"type": "builtins.dict", "context": "[]", "children_spec": []}]}]  # fmt: skip
_OUT_SPEC = [1, _LEAF]
_FOREIGN_ARGUMENTS = {"as_custom_obj", "as_graph", "as_operator"}


def save_program(program: ExportedProgram, facts: Facts, path: Path) -> None:
    """Writes a program with what it says of itself to `path`, whole or not at all.

    Raises:
        ExportError: torch is older than 2.8, whose files have another layout.
    """
    _check_torch()
    with atomic_path(path) as temporary, quiet():
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts.to_properties())})
        temporary.write_bytes(buffer.getvalue())


def load_program(path: Path) -> tuple[ExportedProgram, Facts]:
    """Returns the program of a file that `ghnq export` wrote, and what the file says of itself.

    Nothing is unpickled but the example input, as plain tensors.

    Raises ExportError for a file that is missing, damaged, or written by something else.
    """
    records = _records(path)
    facts = read_facts(path, records)
    _check_torch()
    try:
        clean = _checked(records)
        with quiet():
            quantized_decomposed()
            program = torch.export.load(_archive(clean))
    except ExportError:
        raise
    except Exception as error:
        # torch.export has no error class of its own, and a damaged file may stop it anywhere.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"'{path}' is damaged, or not as ghnq export writes it ({first})") from error
    facts.check_images(_images_of(program), path)
    return program, facts


def _check_torch() -> None:
    if not has_program_archive():
        raise ExportError(
            f".pt2 files need torch 2.8 or newer, this is torch {torch.__version__}; install a newer torch, or export "
            "to .onnx"
        )


def _images_of(program: ExportedProgram) -> list[int | str]:
    """The shape of images that a program takes, a free size being `batch`."""
    (name,) = program.graph_signature.user_inputs
    (images,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return [size if isinstance(size, int) else "batch" for size in images.meta["val"].shape]


def read_facts(path: Path, records: dict[str, bytes] | None = None) -> Facts:
    """What the file says of itself; raises ExportError where it is not ours or damaged."""
    records = _records(path) if records is None else records
    try:
        properties = json.loads(records[f"extra/{FACTS}"])
        if properties[FORMAT_KEY] != FORMAT:
            raise KeyError(FORMAT_KEY)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"'{path}' was not written by ghnq export: only for its own files ghnq knows what the simulation is"
        ) from error
    return Facts.from_properties(properties, str(path))


def _records(path: Path) -> dict[str, bytes]:
    """The records of an archive by name, without the folder that all of them are in."""
    if not path.is_file():
        raise ExportError(f"there is no file '{path}'; write one with: ghnq export MODEL --out {path.name}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ExportError(f"'{path}' was not written by ghnq export: its records are compressed")
            return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise ExportError(f"'{path}' is no torch.export program, or a damaged one ({error})") from error


def _checked(records: dict[str, bytes]) -> dict[str, bytes]:
    """The records with a model description in which nothing is left that a program of ours does not have."""
    for name in records:
        if not _RECORD.fullmatch(name):
            raise ValueError(f"a record '{name}'")
    if json.loads(records[_CONSTANTS])["config"]:
        raise ValueError("constants that are no buffers")
    for name, payload in json.loads(records[_WEIGHTS])["config"].items():
        if payload["use_pickle"] is not False or not re.fullmatch(r"weight_\d+", payload["path_name"]):
            raise ValueError(f"a pickled tensor '{name}'")
    torch.load(io.BytesIO(records["data/sample_inputs/model.pt"]), weights_only=True)
    model = json.loads(records[_MODEL])
    _check_model(model)
    return records | {_MODEL: json.dumps(model).encode()}


def _check_model(model: dict[str, Any]) -> None:
    """Raises ValueError for what ghnq does not write; takes the remarks off all nodes."""
    if model["guards_code"] or model["verifiers"] != ["TRAINING"]:
        raise ValueError("guards or verifiers")
    graph, allowed = model["graph_module"]["graph"], _functions()
    for node in graph["nodes"]:
        if node["target"] not in allowed:
            raise ValueError(f"a function {node['target']}")
        node["metadata"] = {}
    signature = model["graph_module"]["signature"]
    specs = [*signature["input_specs"], *signature["output_specs"]]
    if any(list(spec) not in (["buffer"], ["user_input"], ["user_output"]) for spec in specs):
        raise ValueError("inputs or outputs beyond images, tensors and logits")
    for call in model["graph_module"]["module_call_graph"]:
        spec = call["signature"]
        if json.loads(spec["in_spec"]) != _IN_SPEC or json.loads(spec["out_spec"]) != _OUT_SPEC:
            raise ValueError("other inputs or outputs than images and logits")
    for key, value in _pairs(model):
        if key in _FOREIGN_ARGUMENTS or (key == "expr_str" and not _EXPRESSION.fullmatch(value)):
            raise ValueError(f"{key} {value!r}")


def _functions() -> set[str]:
    """The names of all functions that a program of ours may call."""
    words = quantized_decomposed()
    ours = (words.quantize_per_tensor.default, words.dequantize_per_tensor.default,
            words.dequantize_per_channel.default, aten.clone.default)  # fmt: skip
    return {f"torch.ops.{function}" for function in (*KINDS, *ours)}


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key in nested JSON, with its value."""
    if isinstance(value, dict):
        yield from value.items()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _pairs(each)


def _archive(records: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name}", data)
    buffer.seek(0)
    return buffer
