"""Imports go down only, between packages and between the parts of a package: checked on the syntax tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_statements import PACKAGE, Import, imports_of

# For each package the rows of its parts, from the lowest up. Parts of one row do not import each other.
ROWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "": (
        ("errors", "_version"),
        (
            "files",
            "memory",
            "network_outputs",
            "optional_imports",
            "processor",
            "progress",
            "recorded_names",
            "shadowing",
            "torch_compat",
            "torch_threads",
            "validation_errors",
            "yaml_loader",
        ),
        ("module_copy",),
        ("eval_calls", "module_check"),
        ("graph", "quant", "runs"),
        ("spaces", "hypernet", "data"),
        ("deploy", "models", "prediction"),
        ("analysis", "evaluation", "finetune", "training"),
        ("report", "search"),
        ("commands",),
        ("cli",),
        ("__main__",),
    ),
    "graph": (
        ("elements", "multiply_adds", "ops"),
        ("invariants",),
        ("networkx_converter", "serialization"),
        ("ir",),
        ("batching", "drawing", "tracing"),
    ),
    "prediction": (
        ("dataset_fit", "held_out", "inference"),
        ("accuracy",),
        ("stored_weights", "weights"),
        ("network",),
    ),
    "deploy": (
        ("graph", "metadata"),
        ("onnx", "pt2e"),
        ("comparison", "cost", "formats"),
        ("export", "parity"),
    ),
    "runs": (
        (
            "command_record",
            "interrupt",
            "moving_average",
            "row_ledger",
            "tensor_file",
            "tensorboard",
            "write_errors",
        ),
        ("lock", "metrics_log", "state_files"),
        ("distributed",),
    ),
    "finetune": (
        ("ridge",),
        ("head",),
        ("kaiming", "transfer", "measure", "result", "schedule", "start", "teacher"),
        ("build", "job", "state"),
        ("finish",),
        ("learner",),
        ("progress_bar", "rate", "statistics"),
        ("follow",),
        ("loop",),
    ),
    "report": (
        ("columns", "graph_file"),
        ("ranking_part", "search_part"),
        ("document",),
        ("readers",),
        ("architectures",),
        ("page",),
    ),
    "training": (("recipe",), ("distributed",), ("networks",), ("run",)),
}
# (importing part, imported part). Training validates with the evaluation.
ALLOWED = {("training", "evaluation")}
# Imports upwards that are known and will be removed. An entry that is no longer needed fails the test: delete it then.
KNOWN: set[str] = set()


def violations(package: Path) -> list[str]:
    """Returns a line for each part without a row and each import that goes up or sideways.

    Args:
        package: A folder laid out like src/ghnq.
    """
    return [*_without_row(package), *(line for each in imports_of(package) if (line := _violation(each)) is not None)]


def _without_row(package: Path) -> Iterator[str]:
    for name, rows in ROWS.items():
        for path in sorted((package / name).glob("*")):
            if not (path.suffix == ".py" or any(path.glob("*.py"))) or path.stem == "__init__":
                continue
            if not any(path.stem in row for row in rows):
                yield f"{path.relative_to(package)}: '{path.stem}' has no row yet; give it one in ROWS"


def _violation(each: Import) -> str | None:
    if each.file == ("__init__",):
        return None  # The public list names everything and imports it when it is first used.
    place = f"{'/'.join(each.file)}.py:{each.line}"
    target = tuple(f"{each.module}.{each.name}".strip(".").split("."))
    if target[0] != "ghnq":
        return None
    target = target[1:]
    for depth, part in enumerate(each.file):
        parent = each.file[:depth]
        rows = ROWS.get("/".join(parent))
        if rows is None or part == "__init__":
            return None
        heights = {unit: height for height, row in enumerate(rows) for unit in row}
        if part not in heights:
            return None
        imported = target[depth] if len(target) > depth else ""
        if imported != part:
            below = imported in heights and heights[imported] < heights[part]
            if below or (part, imported) in ALLOWED:
                return None
            return f"{place}: {part} imports {imported or 'ghnq'}"
    return None


def test_imports_go_down_only() -> None:
    assert {re.sub(r":\d+:", ":", line) for line in violations(PACKAGE)} == KNOWN


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("graph/ir.py", "import ghnq.hypernet.model", "graph imports hypernet"),
        ("graph/ir.py", "from ghnq.quant import QuantScheme", "graph imports quant"),
        ("graph/ir.py", "from ..spaces import convnets", "graph imports spaces"),
        ("graph/ir.py", "from .. import spaces", "graph imports spaces"),
        ("graph/tracing/deep/er.py", "from ....spaces import convnets", "graph imports spaces"),
        ("graph/ir.py", "from ghnq.graph.tracing.trace import trace", "ir imports tracing"),
        ("graph/ir.py", "from ghnq.graph import ArchGraph", "ir imports ArchGraph"),
        ("graph/tracing/trace.py", "from ghnq.graph import drawing", "tracing imports drawing"),
        ("deploy/onnx/reader.py", "from ghnq.deploy.pt2e.reader import read", "onnx imports pt2e"),
        ("deploy/graph/a.py", "def f():\n    from ..export import export_onnx", "graph imports export"),
        ("graph/ir.py", "def f():\n    from ghnq.data import load", "graph imports data"),
        ("graph/ir.py", "import importlib\nimportlib.import_module('ghnq.data')", "graph imports data"),
        ("graph/ir.py", "from ghnq import trace", "graph imports trace"),
        ("graph/ir.py", "import ghnq", "graph imports ghnq"),
        ("graph/ir.py", "from ghnq import __version__", "graph imports __version__"),
        ("evaluation/run.py", "from ghnq.training.run import loop", "evaluation imports training"),
        ("models.py", "from ghnq.cli import app", "models imports cli"),
        ("errors.py", "from ghnq.files import write_text", "errors imports files"),
        ("attic/a.py", "", "'attic' has no row yet"),
        ("deploy/attic.py", "", "'attic' has no row yet"),
    ],
)
def test_finds_a_planted_import_upwards(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    (found,) = violations(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "graph/tracing/trace.py",
            "from ghnq.graph.ir import Node\nfrom ..ir import Edge\nfrom .rules import f\nfrom ghnq.errors import X",
        ),
        ("spaces/registry.py", "from ghnq import graph\nfrom ghnq.quant import QuantScheme\nimport torch"),
        ("training/run/loop.py", "from ghnq.evaluation import evaluate\nfrom ghnq._version import __version__"),
        ("cli.py", "from ghnq.commands import predict"),
        ("graph/__init__.py", "from ghnq.graph.tracing.trace import trace"),
        ("__init__.py", "from ghnq.__main__ import main"),
    ],
)
def test_lets_imports_downwards_pass(tmp_path: Path, file: str, source: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    assert violations(tmp_path) == []
