"""What a page shows of one result: the same type for whatever command wrote it.

A result has some of six parts: accuracies (one row per architecture and scheme), curves over training steps, layers of
one network, costs of one exported file, a ranking, and a search. Figures are drawn from parts, so that a new kind of
result needs a reader only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ghnq.graph.ir import ArchGraph
from ghnq.recorded_names import path_name
from ghnq.report.ranking_part import RankingPart
from ghnq.report.search_part import SearchPart


@dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """One architecture under one scheme.

    Attributes:
        architecture: Its name, `space/split/index` or the reference to a model.
        split: The split of the space, or what else rows of one result are grouped by.
        scheme: The name of the scheme.
        accuracy: Percent.
        drop: From float32, in percentage points; None where float32 was not measured.
        parameters: The number of scalars; None where it is not known.
        multiply_adds: For one image.
        weight_bytes: Parameters x bits of a weight / 8.
        activation_bytes: The most bytes of activations that are live at once.
    """

    architecture: str
    split: str
    scheme: str
    accuracy: float
    drop: float | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    weight_bytes: float | None = None
    activation_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What accuracies were measured on. Accuracies of equal settings are comparable, and only those.

    Attributes:
        data: The name of the images.
        data_hash: Of their content; empty where it is not known.
        images: How many were classified.
        of: The split of the images, `test` or `val`.
        protocol: Of the schemes.
        steps: Post-training steps, as text; accuracies with other steps are comparable.
    """

    data: str
    data_hash: str = ""
    images: int | None
    of: str = "test"
    protocol: str
    steps: str = ""


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """The accuracies of one result."""

    setting: Setting
    rows: list[AccuracyRow]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over training steps.

    Attributes:
        name: The name in the log, such as `loss` or `val/w4a8`.
        steps: Ascending.
        values: As many; None where it was not finite.
    """

    name: str
    steps: list[float]
    values: list[float | None]


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of a network.

    Attributes:
        bits: Its bits, `w4a8`.
        weights, multiply_adds: None where they are not known.
        alone: KL divergence from the float network with only this layer quantized, in nats / 1000.
        saved: By how much less the quantized network diverges with this layer in float, in nats / 1000.
        sqnr: Of the logits with only this layer quantized, in dB.
        accuracy_alone: With only this layer quantized, in percent.
    """

    layer: str
    bits: str
    weights: int | None = None
    multiply_adds: int | None = None
    alone: float | None = None
    saved: float | None = None
    sqnr: float | None = None
    accuracy_alone: float | None = None


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of one network under one scheme.

    Attributes:
        model: The name of the network.
        images: How many images the errors were measured on; None where only bits are known.
    """

    model: str
    scheme: str
    images: int | None
    rows: list[LayerRow]


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One cost of a file, and of the same network in float32."""

    cost: str
    unit: str
    file: float
    float32: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of one exported file."""

    file: str
    measured: str
    rows: list[CostRow]


@dataclass(frozen=True, kw_only=True)
class Document:
    """One result.

    Attributes:
        name: What it is called on the page; `unique_names` makes it unique.
        kind: The command that wrote it.
        folder: Where it was read from.
        facts: (what, value), for readers of the page.
        commands: What made it; empty where it was not recorded.
        notes: What is missing or was left out.
        input_shape: Of the images, where architectures of a space can be drawn for it.
        num_classes: The same.
        graphs: Graphs of models that belong to no space, by the names that they have in the rows.
    """

    name: str
    kind: str
    folder: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accuracies: Accuracies | None = None
    curves: list[Curve] = field(default_factory=list)
    layers: Layers | None = None
    costs: Costs | None = None
    ranking: RankingPart | None = None
    search: SearchPart | None = None
    input_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    graphs: dict[str, ArchGraph] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON; the rows of accuracies as columns, with texts numbered."""
        plain = asdict(
            replace(self, accuracies=None, ranking=None, search=None, graphs={}, folder=path_name(self.folder))
        )
        content = {key: value for key, value in plain.items() if value is not None and key != "graphs"}
        if self.accuracies is not None:
            content["accuracies"] = {
                "setting": asdict(self.accuracies.setting),
                "columns": _columns(self.accuracies.rows),
            }
        parts = {"ranking": self.ranking, "search": self.search}
        content |= {name: part.to_json() for name, part in parts.items() if part is not None}
        return content


def unique_names(documents: list[Document]) -> list[Document]:
    """Returns the documents with names that are unique: of equal ones, all are called by their folders and kinds."""
    names = [document.name for document in documents]
    longer = [
        document
        if names.count(document.name) == 1
        else replace(document, name=f"{path_name(document.folder)} ({document.kind})")
        for document in documents
    ]
    result: list[Document] = []
    for document in longer:
        number = sum(each.name == document.name or each.name.startswith(f"{document.name} #") for each in result)
        result.append(replace(document, name=f"{document.name} #{number + 1}") if number else document)
    return result


def _columns(rows: list[AccuracyRow]) -> dict[str, Any]:
    texts, numbers = ("architecture", "split", "scheme"), ("accuracy", "drop", "parameters", "multiply_adds")
    columns: dict[str, Any] = {}
    for name in texts:
        values = [getattr(row, name) for row in rows]
        levels = list(dict.fromkeys(values))
        position = {value: index for index, value in enumerate(levels)}
        columns[name] = {"levels": levels, "codes": [position[value] for value in values]}
    for name in (*numbers, "weight_bytes", "activation_bytes"):
        values = [getattr(row, name) for row in rows]
        if any(value is not None for value in values):
            columns[name] = [None if value is None else _short(value) for value in values]
    return columns


def _short(value: float) -> float:
    """Returns a number with as many digits as a page can show; whole numbers as they are."""
    return value if isinstance(value, int) else float(f"{value:.10g}")
