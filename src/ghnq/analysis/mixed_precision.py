"""Mixed precision: bits for every layer under a budget, chosen exactly, and the metrics of the choice.

Losses are taken as additive: the divergence of a mixed network is the sum of those of its layers quantized alone (as in
HAWQ, Dong et al. 2019, arXiv 1911.03852, Eq. 10). They are measured on the calibration images; test images are used to
measure the result only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from rich.table import Table

from ghnq.analysis.knapsack import choose
from ghnq.analysis.layer_costs import LayerCost, layer_costs
from ghnq.analysis.metrics import Metrics, compare, divergence, quantized_logits, reference_logits
from ghnq.data import Images
from ghnq.errors import GhnqError, SchemeError
from ghnq.prediction import Network
from ghnq.progress import ProgressCallback
from ghnq.quant import LayerBits, Prepared, QuantScheme

Measure = Literal["size", "bitops"]
NEARLY_FLOAT_BITS = 16
"""Weight bits at which the loss of activations alone is measured."""


@dataclass(frozen=True)
class Budget:
    """The most that all layers together may cost.

    Attributes:
        bits: The budget, in bits.
        measure: What is counted. `size`: at most `bits` per weight on average, over the weights of all quantized layers
            (biases are not counted). `bitops`: at most as many bit-operations (sum over layers of multiply-adds x
            weight bits x activation bits) as the uniform scheme with `bits` for both.
    """

    bits: float
    measure: Measure = "size"

    def cost(self, layer: LayerCost, bits: LayerBits) -> int:
        """Returns the cost of a layer, in bits of weights or in bit-operations for one image."""
        assert bits.weight is not None
        if self.measure == "size":
            return layer.weights * bits.weight
        assert bits.activation is not None
        return layer.multiply_adds * bits.weight * bits.activation

    def limit(self, layers: Sequence[LayerCost]) -> float:
        """Returns the most that all layers together may cost."""
        if self.measure == "size":
            return self.bits * sum(layer.weights for layer in layers)
        return self.bits**2 * sum(layer.multiply_adds for layer in layers)

    def as_bits(self, cost: float, layers: Sequence[LayerCost]) -> float:
        """Returns the smallest budget that a cost fits: average bits, or the bits of the uniform scheme."""
        share = cost / self.limit(layers)
        return self.bits * (share if self.measure == "size" else math.sqrt(share))


@dataclass(frozen=True)
class Measured:
    """The metrics of one scheme on the test images.

    Attributes:
        bits: As the budget counts them.
        expected: The loss that the additive model expects; None for schemes that it did not choose.
    """

    name: str
    scheme: QuantScheme
    bits: float
    metrics: Metrics
    expected: float | None = None

    def document(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        expected = self.expected if self.expected is not None and math.isfinite(self.expected) else None
        return {"name": self.name, "bits": round(self.bits, 4), "expected": expected, **self.metrics.document()}


@dataclass(frozen=True)
class Mixed:
    """The chosen scheme, the bits of every layer, and the metrics of float32, uniform schemes and the choice."""

    scheme: QuantScheme
    layers: dict[str, LayerBits]
    costs: dict[str, LayerCost]
    budget: Budget
    images: int
    measured: tuple[Measured, ...]

    def document(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return {
            "measure": self.budget.measure,
            "budget_bits": self.budget.bits,
            "scheme": str(self.scheme),
            "steps": list(self.scheme.steps),
            "layers": {name: str(bits) for name, bits in self.layers.items()},
            "images": self.images,
            "measured": [row.document() for row in self.measured],
        }


def mix(
    network: Network,
    images: Images,
    budget: Budget,
    *,
    choices: Sequence[int] = (2, 4, 8),
    activations: int = 8,
    steps: Sequence[str] = (),
    progress: ProgressCallback | None = None,
) -> Mixed:
    """Chooses bits for every layer and measures the choice, the float network and uniform schemes within the budget.

    Args:
        images: The test images that the schemes are measured on.
        choices: The bits that the weights of a layer may get; with `bitops` also those of its input.
        activations: With `size`, the bits of the inputs of all layers.
        progress: Called with the number of networks measured.

    Raises:
        GhnqError: The budget is not positive and finite.
        SchemeError: The model has no layer that can be quantized, the bits are out of range, or even the fewest bits
            exceed the budget.
    """
    options = [LayerBits(w, a) for w, a in product(choices, choices if budget.measure == "bitops" else [activations])]
    for bits in options:
        bits.check(str(bits))
    base = QuantScheme.parse(str(_uniform(budget, activations, min(choices))), steps=tuple(steps))
    prepared = network.prepared(base)
    costs = layer_costs(prepared)
    _check(budget, costs, options)
    losses = _losses(prepared, base, list(costs), options, progress)
    table = [[budget.cost(layer, bits) for bits in options] for layer in costs.values()]
    picks = choose(table, losses, budget.limit(list(costs.values())))
    assert picks is not None  # the budget was checked
    layers = {name: options[pick] for name, pick in zip(costs, picks, strict=True)}
    expected = sum(row[pick] for row, pick in zip(losses, picks, strict=True))
    scheme = _scheme(base, layers)
    uniform = _uniform_schemes(scheme, budget, choices, activations)
    schemes = [*((str(each), each) for each in uniform), ("mixed", scheme)]
    measured = _measure(network, images, budget, costs, schemes, expected)
    return Mixed(scheme, layers, costs, budget, len(images), measured)


def mixed_table(result: Mixed, title: str) -> Table:
    """Returns a table of the metrics, one line per scheme."""
    unit = "bits/weight" if result.budget.measure == "size" else "bits (bit-ops as of wBaB)"
    table = Table(
        title=title,
        caption=f"on {result.images:,} test images; divergence: mean KL from the float network's outputs, nats / 1000",
        header_style="bold",
    )
    table.add_column("scheme")
    for heading in (unit, "accuracy", "loss", "divergence", "SQNR, dB"):
        table.add_column(heading, justify="right")
    for row in result.measured:
        table.add_row(row.name, f"{row.bits:.2f}", *row.metrics.cells())
    return table


def layers_table(result: Mixed) -> Table:
    """Returns a table of the bits of every layer."""
    table = Table(header_style="bold")
    table.add_column("layer", overflow="fold")
    for heading in ("weights", "multiply-adds", "bits"):
        table.add_column(heading, justify="right")
    for name, bits in result.layers.items():
        cost = result.costs[name]
        table.add_row(name, f"{cost.weights:,}", f"{cost.multiply_adds:,}", str(bits))
    return table


def _check(budget: Budget, costs: dict[str, LayerCost], options: Sequence[LayerBits]) -> None:
    if not math.isfinite(budget.bits) or budget.bits <= 0:
        raise GhnqError(
            f"the budget must be positive and finite, got {budget.bits}; give the average bits of a weight, such as 5.0"
        )
    layers = list(costs.values())
    least = sum(min(budget.cost(layer, bits) for bits in options) for layer in layers)
    if least > budget.limit(layers):
        raise SchemeError(
            f"a budget of {budget.bits:g} bits ({budget.measure}) cannot be kept: the fewest bits on offer cost "
            f"{budget.as_bits(least, layers):.2f}; give at least that (--budget-bits) or offer fewer bits (--choices)"
        )


def _losses(
    prepared: Prepared,
    base: QuantScheme,
    names: Sequence[str],
    options: Sequence[LayerBits],
    progress: ProgressCallback | None,
) -> list[list[float]]:
    """Returns the divergence on the calibration images for each layer, quantized alone, under each option.

    Where bits are chosen for weights and activations, the two losses are measured separately and added.
    """
    reference = reference_logits(prepared, prepared.images)
    separate = len({bits.activation for bits in options}) > 1
    needed = {part for bits in options for part in _parts(bits, separate)}
    total, done, rows = len(names) * len(needed), 0, []
    for name in names:
        loss: dict[LayerBits, float] = {}
        for bits in sorted(needed, key=str):
            scheme = replace(base, weight_bits=None, activation_bits=None, overrides=((name, bits),))
            loss[bits] = divergence(quantized_logits(prepared, scheme, prepared.images), reference)
            done += 1
            if progress is not None:
                progress(done, total)
        rows.append([sum(loss[part] for part in _parts(bits, separate)) for bits in options])
    return rows


def _parts(bits: LayerBits, separate: bool) -> tuple[LayerBits, ...]:
    return (LayerBits(bits.weight, None), LayerBits(NEARLY_FLOAT_BITS, bits.activation)) if separate else (bits,)


def _scheme(base: QuantScheme, layers: dict[str, LayerBits]) -> QuantScheme:
    """Returns a scheme with the most frequent bits for all layers, and overrides for the others."""
    common = Counter(layers.values()).most_common(1)[0][0]
    others = tuple((name, bits) for name, bits in layers.items() if bits != common)
    return replace(base, weight_bits=common.weight, activation_bits=common.activation, overrides=others)


def _uniform(budget: Budget, activations: int, least: int) -> LayerBits:
    bits = min(max(int(budget.bits) if math.isfinite(budget.bits) else least, least), NEARLY_FLOAT_BITS)
    return LayerBits(bits, bits if budget.measure == "bitops" else activations)


def _uniform_schemes(
    scheme: QuantScheme, budget: Budget, choices: Sequence[int], activations: int
) -> list[QuantScheme]:
    """Returns uniform schemes: the widest within the budget, and one for each choice."""
    bits = {_uniform(budget, activations, min(choices))}
    bits |= {_uniform(replace(budget, bits=choice), activations, choice) for choice in choices}
    return [replace(scheme, weight_bits=b.weight, activation_bits=b.activation, overrides=()) for b in sorted(bits)]


def _measure(
    network: Network,
    images: Images,
    budget: Budget,
    costs: dict[str, LayerCost],
    schemes: Sequence[tuple[str, QuantScheme]],
    expected: float,
) -> tuple[Measured, ...]:
    """Returns the metrics of float32 and of those schemes that are within the budget; `expected` is of the last."""
    layers = list(costs.values())
    pixels, labels = network.dataset.normalise(images.pixels), images.labels
    rows: list[Measured] = []
    for name, scheme in schemes:
        prepared = network.prepared(scheme)
        bits = budget.as_bits(sum(budget.cost(costs[layer], scheme.bits_for(layer)) for layer in costs), layers)
        if bits > budget.bits * (1 + 1e-9):
            continue
        reference = reference_logits(prepared, pixels)
        if not rows:
            in_float = compare(reference, reference, labels)
            rows.append(Measured("float32", QuantScheme.parse("float32"), 32.0, in_float))
        metrics = compare(quantized_logits(prepared, scheme, pixels), reference, labels)
        rows.append(Measured(name, scheme, bits, metrics, expected if name == "mixed" else None))
    return tuple(rows)
