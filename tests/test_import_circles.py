"""No module imports itself, however long the way: a check of strongly connected components."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from tests.import_statements import PACKAGE, imports_of

# Circles that are known and will be removed. An entry that no longer is a circle fails the test: delete it then.
KNOWN: list[set[str]] = []
# Circles that only exist for the type checker.
KNOWN_TYPE_CHECKING: list[set[str]] = []


def circles(package: Path, *, type_checking: bool = False) -> list[set[str]]:
    """Returns sets of modules that import each other, in a folder laid out like src/ghnq.

    A package stands for its `__init__`. That an import of `ghnq.graph.ir` runs `ghnq.graph` first is not counted.

    Args:
        type_checking: Whether to count imports inside `if TYPE_CHECKING`.
    """
    modules = {_dotted(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    graph = nx.DiGraph()
    for each in imports_of(package):
        importer = _dotted(each.file)
        if not importer or (each.type_checking and not type_checking):
            continue  # The root lists the public names and imports them when they are first used.
        module = each.module.removeprefix("ghnq").removeprefix(".")
        submodule = f"{module}.{each.name}".removeprefix(".")
        target = submodule if submodule in modules else module
        if each.module.split(".")[0] == "ghnq" and target in modules and target:
            graph.add_edge(importer, target)
    found = [component for component in nx.strongly_connected_components(graph) if len(component) > 1]
    return sorted(found + [{node} for node in nx.nodes_with_selfloops(graph)], key=sorted)


def _dotted(parts: tuple[str, ...]) -> str:
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(("type_checking", "known"), [(False, KNOWN), (True, KNOWN + KNOWN_TYPE_CHECKING)])
def test_there_are_no_circles_but_the_known_ones(type_checking: bool, known: list[set[str]]) -> None:
    assert circles(PACKAGE, type_checking=type_checking) == sorted(known, key=sorted)


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": "from ghnq.b import x", "b": "from ghnq.c import x", "c": "import ghnq.a"}, [{"a", "b", "c"}]),
        ({"a": "from ghnq.b import x", "b": "def f():\n    from ghnq import a"}, [{"a", "b"}]),
        ({"a": "from .b import x", "b": "from . import a"}, [{"a", "b"}]),
        ({"p/__init__": "from ghnq.p.a import x", "p/a": "from ghnq.p import y"}, [{"p", "p.a"}]),
        ({"p/__init__": "from ghnq.p.a import x", "p/a": "from ghnq.p.b import y", "p/b": ""}, []),
        ({"a": "from ghnq.b import x", "b": "if TYPE_CHECKING:\n    from ghnq.a import X"}, []),
        ({"a": "import a", "b": "from b import x"}, []),
        ({"a": "from ghnq.a import x"}, [{"a"}]),
    ],
)
def test_finds_planted_circles(tmp_path: Path, sources: dict[str, str], found: list[set[str]]) -> None:
    for name, source in sources.items():
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(source)
    assert circles(tmp_path) == found


def test_imports_for_the_type_checker_are_counted_on_request(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from ghnq.b import x")
    (tmp_path / "b.py").write_text("import typing\nif typing.TYPE_CHECKING:\n    from ghnq.a import X")
    assert circles(tmp_path) == []
    assert circles(tmp_path, type_checking=True) == [{"a", "b"}]
