"""The graphs of the models that a command measured, in `graphs.json` beside its results.

A page draws them from there: making one again would need the user's file of models, which a report does not run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ghnq.errors import DataError, GraphError
from ghnq.files import write_text
from ghnq.graph.ir import ArchGraph

FILE = "graphs.json"


def write_graphs(folder: Path, graphs: Mapping[str, ArchGraph]) -> None:
    """Writes graphs by the names of their models."""
    write_text(folder / FILE, json.dumps({name: graph.to_json() for name, graph in graphs.items()}) + "\n")


def read_graphs(folder: Path) -> dict[str, ArchGraph]:
    """Returns the graphs of a folder; none where there is no such file.

    Raises:
        DataError: The file is damaged, or of another version.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        texts = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): ArchGraph.from_json(text) for name, text in texts.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, GraphError) as error:
        raise DataError(f"'{file}' is damaged, or of another version: {error}") from error
