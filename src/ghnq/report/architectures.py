"""What a page knows about architectures: their graphs drawn, and the activations that are live at once.

Members of spaces are built again from their names; other models have their graphs in `graphs.json`.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from ghnq import spaces
from ghnq.errors import SpaceError
from ghnq.graph.drawing.svg import svg
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.trace import trace
from ghnq.progress import ProgressCallback
from ghnq.report.document import Accuracies, AccuracyRow, Document
from ghnq.report.readers.accuracy_rows import FLOAT_BITS, bits_of

MOST_TRACED = 400
"""Architectures whose activations are counted; the most accurate ones. Each takes about 15 ms."""
MOST_DRAWN = 200
"""Architectures that are drawn; the most accurate ones. Each takes about 10 kB of the page."""

Key = tuple[str, tuple[int, int, int] | None, int | None]


@dataclass(frozen=True)
class Architectures:
    """The documents with the bytes of activations in their rows, and the drawings.

    Attributes:
        drawings: name -> the SVG, deflated and in base64.
    """

    documents: list[Document]
    drawings: dict[str, str]


def with_architectures(documents: Sequence[Document], progress: ProgressCallback | None = None) -> Architectures:
    """Traces and draws the most accurate architectures of the documents.

    Args:
        progress: Called with the number of architectures traced.
    """
    report = progress or (lambda done, total: None)
    keys = _most_accurate(documents)[:MOST_TRACED]
    elements: dict[Key, int] = {}
    drawings: dict[str, str] = {}
    for done, (key, graph) in enumerate(_graphs(documents, keys), start=1):
        name = key[0]
        if graph is not None:
            elements[key] = most_live_elements(graph)
            if name not in drawings and len(drawings) < MOST_DRAWN:
                drawings[name] = base64.b64encode(zlib.compress(svg(graph, name).encode(), 9)).decode()
        report(done, len(keys))
    return Architectures([_with_activations(document, elements) for document in documents], drawings)


def most_live_elements(graph: ArchGraph) -> int:
    """Returns the most elements of activations that are live at once, when nodes are executed in their order.

    The output of a node is live until the last node that reads it is executed. Norms and biases are folded into the
    layer before them, so they need no memory of their own.
    """
    last = [max(targets, default=len(graph.nodes)) for targets in graph.successors]
    live = most = 0
    for index, node in enumerate(graph.nodes):
        freed = sum(_elements(graph, before) for before in graph.predecessors[index] if last[before] == index)
        size = _elements(graph, index)
        in_place = node.op in ("bn", "bias")
        most = max(most, live if in_place else live + size)
        live += size - freed
    return most


def _elements(graph: ArchGraph, index: int) -> int:
    return prod(graph.nodes[index].output_shape)


def _most_accurate(documents: Sequence[Document]) -> list[Key]:
    """Returns all architectures, the one with the highest accuracy at any scheme first, then those of rankings."""
    best: dict[Key, float] = {}
    for document in documents:
        for row in document.accuracies.rows if document.accuracies else ():
            key = _key(document, row)
            best[key] = max(best.get(key, 0.0), row.accuracy)
    accurate = sorted(best, key=lambda key: -best[key])
    return list(dict.fromkeys([*accurate, *(key for document in documents for key in _ranked(document))]))


def _ranked(document: Document) -> list[Key]:
    """Returns the candidates of a ranking that were measured: of the last round first, by their values."""
    measured = [row for row in document.ranking.candidates if row.round] if document.ranking else []
    order = sorted(measured, key=lambda row: (-(row.round or 0), math.inf if row.value is None else -row.value))
    return [(row.model, document.input_shape, document.num_classes) for row in order]


def _key(document: Document, row: AccuracyRow) -> Key:
    return row.architecture, document.input_shape, document.num_classes


def _graphs(documents: Sequence[Document], keys: Sequence[Key]) -> Iterator[tuple[Key, ArchGraph | None]]:
    given = {name: graph for document in documents for name, graph in document.graphs.items()}
    for key in keys:
        name, shape, classes = key
        yield key, given[name] if name in given else _of_space(name, shape, classes)


def _of_space(name: str, shape: tuple[int, int, int] | None, classes: int | None) -> ArchGraph | None:
    """Returns the graph of a member of a space; None for other models, and for spaces that are not installed."""
    if shape is None or classes is None or name.count("/") != 2:
        return None
    try:
        space, spec = spaces.resolve(name)
    except SpaceError:
        return None
    return trace(space.build(spec, in_channels=shape[0], num_classes=classes, device="meta"), shape)


def _with_activations(document: Document, elements: dict[Key, int]) -> Document:
    if document.accuracies is None:
        return document
    rows = [
        replace(row, activation_bytes=_bytes(elements.get(_key(document, row)), row.scheme))
        for row in document.accuracies.rows
    ]
    return replace(document, accuracies=Accuracies(setting=document.accuracies.setting, rows=rows))


def _bytes(elements: int | None, scheme: str) -> float | None:
    """Returns bytes of activations: one for each element of at most 8 bits, two up to 16, four in float."""
    bits = bits_of(scheme)
    if elements is None or bits is None:
        return None
    return elements * (1 if bits[1] <= 8 else 2 if bits[1] < FLOAT_BITS else 4)
