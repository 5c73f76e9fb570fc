"""Imports go down only: the house of docs/architecture.md, checked on the syntax tree, inside functions as well."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "ghnq"

# From the cellar to the roof. Units of one row are siblings and do not know each other.
LAYERS = (
    ("errors", "_version"),
    (
        "files",
        "memory",
        "processor",
        "progress",
        "torch_threads",
        "optional_imports",
        "torch_compat",
        "validation_errors",
        "yaml_loader",
    ),
    ("graph", "quant"),
    ("spaces", "hypernet", "data"),
    ("deploy", "models", "prediction"),
    ("analysis", "evaluation", "training"),
    ("search",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {unit: height for height, row in enumerate(LAYERS) for unit in row}
# Training validates with the evaluation; the search ranks with it.
SIDEWAYS = {("training", "evaluation")}


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str, str]]:
    """Yields (line, module, name) for each import below `tree`; a relative import starts from `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")
                module = ".".join([*parents[: len(parents) - node.level + 1], *([module] if module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, ""


def violations(package: Path) -> list[str]:
    """Returns one line for each import in `package` (a folder laid out like src/ghnq) that goes up or sideways."""
    found = []
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        if parts == ("__init__",):
            continue  # The public list names everything and imports it lazily.
        unit = parts[0]
        if unit not in HEIGHT:
            found.append(f"{file.name}: '{unit}' has no floor yet; give it a row in LAYERS")
            continue
        for line, module, name in imported(ast.parse(file.read_text()), ".".join(["ghnq", *parts[:-1]])):
            if module.split(".")[0] != "ghnq":
                continue
            target = module.split(".")[1] if "." in module else name
            if target == unit or (unit, target) in SIDEWAYS:
                continue
            if target not in HEIGHT or HEIGHT[target] >= HEIGHT[unit]:
                found.append(f"{'/'.join(parts)}.py:{line}: {unit} imports {target or 'ghnq'}")
    return found


def test_imports_go_down_only() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("graph/ir.py", "import ghnq.hypernet.model", "graph imports hypernet"),
        ("graph/ir.py", "from ghnq.quant import QuantScheme", "graph imports quant"),
        ("graph/ir.py", "from ..spaces import convnets", "graph imports spaces"),
        ("graph/ir.py", "from .. import spaces", "graph imports spaces"),
        ("graph/deep/er.py", "from ...spaces import convnets", "graph imports spaces"),
        ("graph/ir.py", "def f():\n    from ghnq.data import load", "graph imports data"),
        ("graph/ir.py", "import importlib\nimportlib.import_module('ghnq.data')", "graph imports data"),
        ("graph/ir.py", "from ghnq import trace", "graph imports trace"),
        ("graph/ir.py", "import ghnq", "graph imports ghnq"),
        ("graph/ir.py", "from ghnq import __version__", "graph imports __version__"),
        ("evaluation/run.py", "from ghnq.training.run import loop", "evaluation imports training"),
        ("models.py", "from ghnq.cli import app", "models imports cli"),
        ("errors.py", "from ghnq.files import write_text", "errors imports files"),
        ("attic/a.py", "", "'attic' has no floor yet"),
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
            "graph/trace.py",
            "from ghnq.graph.ir import Node\nfrom .ir import Edge\nfrom ghnq.errors import GraphError",
        ),
        ("spaces/registry.py", "from ghnq import graph\nfrom ghnq.quant import QuantScheme\nimport torch"),
        ("training/run/loop.py", "from ghnq.evaluation import evaluate\nfrom ghnq._version import __version__"),
        ("cli.py", "from ghnq.commands import predict"),
        ("__init__.py", "from ghnq.__main__ import main"),
    ],
)
def test_lets_imports_downwards_pass(tmp_path: Path, file: str, source: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(source)
    assert violations(tmp_path) == []
