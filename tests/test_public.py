"""Public names: all present, and imported only when first used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import ghnq

# Libraries that take a noticeable part of a second each.
HEAVY = (
    "torch", "numpy", "datasets", "sklearn", "scipy", "plotly", "pandas", "pyarrow", "pydantic", "networkx",
    "huggingface_hub", "safetensors", "PIL", "tensorboard", "yaml",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Returns the heavy libraries that a fresh interpreter has loaded after running `code`."""
    report = f"{code}\nimport sys; print('\\nLOADED', *(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return set(last[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import ghnq",
        "import ghnq; dir(ghnq); ghnq.GhnqError, ghnq.__version__",
        "import ghnq.cli",
        "import sys, ghnq.__main__\nsys.argv = ['ghnq', '--help']\nassert ghnq.__main__.main() == 0",
        "import sys, ghnq.__main__\nsys.argv = ['ghnq', '--version']\nassert ghnq.__main__.main() == 0",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_by(code) == set()


def test_help_of_a_command_loads_only_what_typer_needs() -> None:
    code = "import sys, ghnq.__main__\nsys.argv = ['ghnq', 'evaluate', '--help']\nassert ghnq.__main__.main() == 0"
    assert loaded_by(code) <= {"pydantic"}


def test_loaded_by_detects_heavy_imports() -> None:
    assert "torch" in loaded_by("import ghnq; ghnq.trace")


@pytest.mark.parametrize("name", ghnq.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(ghnq, name) is not None
    assert name in dir(ghnq)


def test_static_and_lazy_names_agree() -> None:
    tree = ast.parse(Path(ghnq.__file__).read_text())
    static = {
        (alias.asname, node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ghnq")
        for alias in node.names
    }
    lazy = {
        (name, module, attribute) if attribute else (name, "ghnq", name)
        for name, (module, attribute) in ghnq._LAZY.items()
    }
    at_once = {(asname, module, name) for asname, module, name in static if module in ("ghnq.errors", "ghnq._version")}
    assert static - at_once == lazy
    assert {asname for asname, _, _ in static} == set(ghnq.__all__)


def test_unknown_name_lists_the_public_names() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'tracer'.*trace"):
        _ = ghnq.tracer


def test_one_version() -> None:
    assert metadata.version("ghnq") == ghnq.__version__


@pytest.mark.parametrize("expression", ["ghnq.quant.equalize", "ghnq.graph.ArchGraph", "ghnq.deploy.export_onnx"])
def test_packages_are_reachable_after_importing_ghnq_alone(expression: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import ghnq; assert callable({expression})"], check=False)
    assert done.returncode == 0
