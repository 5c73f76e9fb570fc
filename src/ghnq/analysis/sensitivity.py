"""Sensitivity of layers: the network with one layer quantized, and with all layers but one quantized.

On few images accuracy is coarse, so the divergence of the class probabilities from the float network's is reported too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.table import Table

from ghnq.analysis.layer_costs import LayerCost, layer_costs
from ghnq.analysis.metrics import Metrics, compare, quantized_logits, reference_logits
from ghnq.data import Images
from ghnq.errors import SchemeError
from ghnq.prediction import Network
from ghnq.progress import ProgressCallback
from ghnq.quant import LayerBits, QuantScheme

MAX_LABEL_LENGTH = 40
"""Characters of the longest scheme that a title shows in full."""


@dataclass(frozen=True)
class LayerRow:
    """One layer: metrics of the network with only this layer quantized, and with all layers but this one quantized."""

    name: str
    cost: LayerCost
    bits: LayerBits
    alone: Metrics
    all_but: Metrics


@dataclass(frozen=True)
class Sensitivity:
    """Metrics of the float network, of the quantized network, and of every layer in the order of modules."""

    scheme: QuantScheme
    images: int
    in_float: Metrics
    quantized: Metrics
    layers: tuple[LayerRow, ...]

    @property
    def label(self) -> str:
        """The scheme for titles: bits (if long, how many layers have which), protocol, steps."""
        counts = Counter(str(row.bits) for row in self.layers)
        text = str(self.scheme)
        if len(text) > MAX_LABEL_LENGTH:
            text = ", ".join(f"{count} x {bits}" for bits, count in counts.most_common())
        protocol = "" if self.scheme.protocol == "deploy" else f", protocol {self.scheme.protocol}"
        return " + ".join((text + protocol, *self.scheme.steps))

    def document(self) -> dict[str, Any]:
        """Returns the report for JSON."""
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


def measure_sensitivity(
    network: Network, images: Images, scheme: QuantScheme, progress: ProgressCallback | None = None
) -> Sensitivity:
    """Quantizes one layer at a time, then all layers but one, and compares with the float network.

    Args:
        images: The test images that the networks are compared on.
        progress: Called with the number of networks measured.

    Raises:
        SchemeError: The scheme quantizes nothing, or the model has no layer that can be quantized.
    """
    prepared = network.prepared(scheme)
    layers = prepared.layers(scheme)
    if not layers:
        raise SchemeError(f"scheme {scheme} quantizes no layer, so there is nothing to measure: try w4a8")
    costs = layer_costs(prepared)
    pixels, labels = network.dataset.normalise(images.pixels), images.labels
    reference = reference_logits(prepared, pixels)
    total, done = 2 * len(layers) + 1, 0

    def measure(changed: QuantScheme) -> Metrics:
        nonlocal done
        logits = quantized_logits(prepared, changed, pixels)
        done += 1
        if progress is not None:
            progress(done, total)
        return compare(logits, reference, labels)

    def only(name: str) -> QuantScheme:
        return replace(scheme, weight_bits=None, activation_bits=None, overrides=((name, layers[name]),))

    def without(name: str) -> QuantScheme:
        return scheme.override({name: "float32"})

    quantized = measure(scheme)
    rows = tuple(
        LayerRow(name, costs[name], bits, measure(only(name)), measure(without(name))) for name, bits in layers.items()
    )
    return Sensitivity(scheme, len(labels), compare(reference, reference, labels), quantized, rows)


def sensitivity_table(report: Sensitivity, title: str) -> Table:
    """Returns a table with one line per layer, in the order of modules."""
    # Narrow borders and headings of two lines: at 80 columns, names of layers have the room that is left.
    table = Table(
        title=title,
        caption=f"on {report.images:,} test images; KL: mean divergence from the float network's outputs, nats / 1000",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("layer", overflow="fold")
    for heading in ("bits", "weights", "alone:\naccuracy", "loss", "KL", "SQNR\ndB", "all but it:\naccuracy", "KL"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("none (float32)", "", "", *report.in_float.cells(), end_section=True)
    for row in report.layers:
        all_but = [f"{row.all_but.accuracy:.1f}", f"{1000 * row.all_but.divergence:.2f}"]
        table.add_row(row.name, str(row.bits), f"{row.cost.weights:,}", *row.alone.cells(), *all_but)
    table.add_section()
    weights = sum(row.cost.weights for row in report.layers)
    bits = {str(row.bits) for row in report.layers}
    table.add_row("all", bits.pop() if len(bits) == 1 else "mixed", f"{weights:,}", *report.quantized.cells())
    return table
