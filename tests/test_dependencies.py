"""pyproject.toml names every library that the package imports, and no library that it does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The name one installs -> the name one imports, where they differ.
IMPORT_NAME = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}


def import_names(requirements: list[str]) -> set[str]:
    """Returns the import names of requirement lines such as `scikit-learn>=1.4`."""
    names = [re.split(r"[^A-Za-z0-9_-]", line, maxsplit=1)[0].lower() for line in requirements]
    return {IMPORT_NAME.get(name, name.replace("-", "_")) for name in names}


def imported_libraries() -> set[str]:
    """Returns the top-level name of every import below src/ghnq that is neither ours nor of the standard library."""
    found = set()
    for file in (ROOT / "src" / "ghnq").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - {"ghnq"} - set(sys.stdlib_module_names)


def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = import_names(PROJECT["dependencies"])
    for extra in ("data", "export", "graph", "report", "search"):
        declared |= import_names(extras[extra])
    assert imported_libraries() <= declared


def test_every_dependency_is_used() -> None:
    assert import_names(PROJECT["dependencies"]) <= imported_libraries()


def test_torch_stays_in_the_range_that_has_a_cpu_build() -> None:
    assert "torch>=2.6,<2.14" in PROJECT["dependencies"]
    extras = PROJECT["optional-dependencies"].values()
    everything = import_names([line for lines in [PROJECT["dependencies"], *extras] for line in lines])
    assert not everything & {"torchvision", "kornia", "jax"}


def test_every_dependency_has_a_lower_bound() -> None:
    """`.ci/oldest_versions` tests with these versions; without a bound, that would be the first release."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    assert [line for line in lines if not re.fullmatch(r"[\w-]+(\[\w+\])?>=\d+(\.\d+)*(,<\d+(\.\d+)*)?", line)] == []


def test_extras_agree_on_lower_bounds() -> None:
    """A library in two extras has one bound, so that one environment has the oldest version of everything."""
    lines = {*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)}
    names = [line.split(">=")[0].lower() for line in lines]
    assert len(names) == len(set(names))
