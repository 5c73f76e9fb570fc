"""What each layer costs: the network with that layer alone quantized, and with all layers but that one.

Accuracy is too coarse on a few images, so the divergence of the answers from the float network's stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from ghnq.analysis.subject import Figures, LayerCost, Subject, compare, logits_under, reference_logits
from ghnq.errors import SchemeError
from ghnq.quant import LayerBits, QuantScheme

Progress = Callable[[int, int], None]
LONGEST = 40
"""Letters of the longest scheme that a title spells out."""


@dataclass(frozen=True)
class LayerRow:
    """One layer: the network with it alone quantized, and with all layers quantized but it."""

    name: str
    cost: LayerCost
    bits: LayerBits
    alone: Figures
    all_but: Figures


@dataclass(frozen=True)
class Sensitivity:
    """The whole report: the float network, the quantized one, and every layer in the order of modules."""

    scheme: QuantScheme
    images: int
    in_float: Figures
    quantized: Figures
    layers: tuple[LayerRow, ...]

    @property
    def label(self) -> str:
        """The whole scheme for titles: its word (if long, how many layers have which bits), protocol, steps."""
        counts = Counter(str(row.bits) for row in self.layers)
        word = str(self.scheme)
        if len(word) > LONGEST:
            word = ", ".join(f"{count} x {bits}" for bits, count in counts.most_common())
        protocol = "" if self.scheme.protocol == "deploy" else f", protocol {self.scheme.protocol}"
        return " + ".join((word + protocol, *self.scheme.steps))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "scheme": str(self.scheme),
            "protocol": self.scheme.protocol,
            "steps": list(self.scheme.steps),
            "images": self.images,
            "float32": self.in_float.document(),
            "quantized": self.quantized.document(),
            "layers": [
                {
                    "layer": row.name,
                    "bits": str(row.bits),
                    "weights": row.cost.weights,
                    "multiply_adds": row.cost.multiply_adds,
                    "alone": row.alone.document(),
                    "all_but": row.all_but.document(),
                }
                for row in self.layers
            ],
        }


def measure_sensitivity(subject: Subject, scheme: QuantScheme, progress: Progress | None = None) -> Sensitivity:
    """Quantizes one layer at a time, and all but one, and compares with the float network on the test images.

    progress: called with (networks measured, networks in all).
    Raises SchemeError for a scheme that quantizes nothing, or a model without a layer to quantize.
    """
    prepared = subject.prepared(scheme)
    layers = prepared.layers(scheme)
    if not layers:
        raise SchemeError(f"scheme {scheme} quantizes no layer, so there is nothing to be sensitive to: try w4a8")
    costs = subject.layer_costs(prepared)
    pixels, labels = subject.dataset.normalise(subject.images.pixels), subject.images.labels
    reference = reference_logits(prepared, pixels)
    total, done = 2 * len(layers) + 1, 0

    def figures(under: QuantScheme) -> Figures:
        nonlocal done
        logits = logits_under(prepared, under, pixels)
        done += 1
        if progress is not None:
            progress(done, total)
        return compare(logits, reference, labels)

    def only(name: str) -> QuantScheme:
        return replace(scheme, weight_bits=None, activation_bits=None, overrides=((name, layers[name]),))

    def without(name: str) -> QuantScheme:
        return scheme.override({name: "float32"})

    quantized = figures(scheme)
    rows = tuple(
        LayerRow(name, costs[name], bits, figures(only(name)), figures(without(name))) for name, bits in layers.items()
    )
    return Sensitivity(scheme, len(labels), compare(reference, reference, labels), quantized, rows)


def sensitivity_table(report: Sensitivity, title: str) -> Table:
    """One line per layer, in the order of modules."""
    table = Table(
        title=title,
        caption=f"on {report.images:,} test images; divergence: mean KL from the float network's answers, nats / 1000",
        header_style="bold",
    )
    table.add_column("layer")
    for heading in ("bits", "weights", "alone: accuracy", "loss", "divergence", "SQNR, dB"):
        table.add_column(heading, justify="right")
    for heading in ("all but it: accuracy", "divergence"):
        table.add_column(heading, justify="right")
    table.add_row("none (float32)", "", "", *_cells(report.in_float), end_section=True)
    for row in report.layers:
        others = [f"{row.all_but.accuracy:.1f}", f"{1000 * row.all_but.divergence:.2f}"]
        table.add_row(row.name, str(row.bits), f"{row.cost.weights:,}", *_cells(row.alone), *others)
    table.add_section()
    weights = sum(row.cost.weights for row in report.layers)
    bits = {str(row.bits) for row in report.layers}
    table.add_row("all", bits.pop() if len(bits) == 1 else "mixed", f"{weights:,}", *_cells(report.quantized))
    return table


def _cells(figures: Figures) -> list[str]:
    return [
        f"{figures.accuracy:.1f}",
        f"{figures.loss:.3f}",
        f"{1000 * figures.divergence:.2f}",
        f"{figures.sqnr:.1f}",
    ]
