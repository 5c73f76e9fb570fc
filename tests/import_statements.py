"""The import statements of a package, read from its syntax trees, those inside functions as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "ghnq"


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        file: Path of the importing file below the package, without suffix, in parts: ("graph", "ir").
        line: Line of the statement.
        module: The module in full: "ghnq.graph.ops".
        name: The name that is imported from it; empty for `import module`.
        type_checking: Whether the statement is inside `if TYPE_CHECKING`.
    """

    file: tuple[str, ...]
    line: int
    module: str
    name: str
    type_checking: bool


def imports_of(package: Path) -> Iterator[Import]:
    """Yields all imports of the files below `package`, a folder laid out like src/ghnq."""
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package).with_suffix("").parts
        yield from _imports(ast.parse(path.read_text()), file, type_checking=False)


def _imports(node: ast.AST, file: tuple[str, ...], *, type_checking: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
        for module, name in _imported(node, file):
            yield Import(file, node.lineno, module, name, type_checking)
    guarded = node.body if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") else []
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, file, type_checking=type_checking or child in guarded)


def _imported(node: ast.Import | ast.ImportFrom | ast.Call, file: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields (module, name) for each name that a statement, or a call of `import_module`, imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, ""
    elif isinstance(node, ast.ImportFrom):
        # A relative import starts from the package of the file.
        start = ["ghnq", *file][: len(file) + 1 - node.level] if node.level else []
        for alias in node.names:
            yield ".".join([*start, *([node.module] if node.module else [])]), alias.name
    elif node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function in {"import_module", "__import__"}:
            yield node.args[0].value, ""
