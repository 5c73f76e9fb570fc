"""Bits for every layer under a budget: sensitivities, an exact choice, and what it measures.

Losses are taken as additive: the divergence of a mixed network is the sum of those of its layers quantized alone (as in
HAWQ, Dong et al. 2019, arXiv 1911.03852, Eq. 10). They are measured on the calibration images, so that the test images
only judge.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from rich.table import Table

from ghnq.analysis.knapsack import choose
from ghnq.analysis.subject import Figures, LayerCost, Subject, compare, divergence, logits_under, reference_logits
from ghnq.errors import GhnqError, SchemeError
from ghnq.quant import LayerBits, Prepared, QuantScheme

Measure = Literal["size", "bitops"]
Progress = Callable[[int, int], None]
WIDE = 16
"""Weight bits beside which the loss of activations alone is measured: as good as float."""


@dataclass(frozen=True)
class Budget:
    """How much the layers may cost together.

    size: at most `bits` per weight on average, over the weights of all quantized layers (biases are not counted).
    bitops: at most as many bit-operations (sum over layers of multiply-adds x weight bits x activation bits) as the
    uniform scheme with `bits` for both.
    """

    bits: float
    measure: Measure = "size"

    def cost(self, layer: LayerCost, bits: LayerBits) -> int:
        """What a layer costs, in bits of weights or in bit-operations for one image."""
        assert bits.weight is not None
        if self.measure == "size":
            return layer.weights * bits.weight
        assert bits.activation is not None
        return layer.multiply_adds * bits.weight * bits.activation

    def limit(self, layers: Sequence[LayerCost]) -> float:
        """The most that all layers together may cost."""
        if self.measure == "size":
            return self.bits * sum(layer.weights for layer in layers)
        return self.bits**2 * sum(layer.multiply_adds for layer in layers)

    def as_bits(self, cost: float, layers: Sequence[LayerCost]) -> float:
        """The budget that a cost would just fit: average bits, or the bits of the uniform scheme."""
        share = cost / self.limit(layers)
        return self.bits * (share if self.measure == "size" else math.sqrt(share))


@dataclass(frozen=True)
class Measured:
    """One scheme on the test images; `bits` as the budget counts them, `expected`: the additive loss, where known."""

    name: str
    scheme: QuantScheme
    bits: float
    figures: Figures
    expected: float | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        expected = self.expected if self.expected is not None and math.isfinite(self.expected) else None
        return {"name": self.name, "bits": round(self.bits, 4), "expected": expected, **self.figures.document()}


@dataclass(frozen=True)
class Mixed:
    """The chosen scheme, bits of every layer, and the measurements: float32, uniform schemes, the choice."""

    scheme: QuantScheme
    layers: dict[str, LayerBits]
    costs: dict[str, LayerCost]
    budget: Budget
    images: int
    measured: tuple[Measured, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
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
    subject: Subject,
    budget: Budget,
    *,
    choices: Sequence[int] = (2, 4, 8),
    activations: int = 8,
    steps: Sequence[str] = (),
    progress: Progress | None = None,
) -> Mixed:
    """Chooses bits for every layer and measures the choice, the float network and uniform schemes within the budget.

    choices: bits that a layer may get; with bitops its input activation, too. activations: with size, of all layers.
    progress: called with (networks measured, networks in all).
    Raises SchemeError for a model without a layer to quantize, for bits out of range, and for a budget that even the
    fewest bits exceed.
    """
    options = [LayerBits(w, a) for w, a in product(choices, choices if budget.measure == "bitops" else [activations])]
    for bits in options:
        bits.check(str(bits))
    base = QuantScheme.parse(str(_uniform(budget, activations, min(choices))), steps=tuple(steps))
    prepared = subject.prepared(base)
    costs = subject.layer_costs(prepared)
    _check(budget, costs, options)
    losses = _losses(prepared, base, list(costs), options, progress)
    table = [[budget.cost(layer, bits) for bits in options] for layer in costs.values()]
    picks = choose(table, losses, budget.limit(list(costs.values())))
    assert picks is not None  # the budget was checked
    layers = {name: options[pick] for name, pick in zip(costs, picks, strict=True)}
    expected = sum(row[pick] for row, pick in zip(losses, picks, strict=True))
    scheme = _scheme(base, layers)
    measured = _measure_all(subject, budget, costs, scheme, expected, choices, activations)
    return Mixed(scheme, layers, costs, budget, len(subject.images), measured)


def mixed_table(result: Mixed, title: str) -> Table:
    """The measurements, one line per scheme."""
    unit = "bits/weight" if result.budget.measure == "size" else "bits (bit-ops as of wBaB)"
    table = Table(
        title=title,
        caption=f"on {result.images:,} test images; divergence: mean KL from the float network's answers, nats / 1000",
        header_style="bold",
    )
    table.add_column("scheme")
    for heading in (unit, "accuracy", "loss", "divergence", "SQNR, dB"):
        table.add_column(heading, justify="right")
    for row in result.measured:
        f = row.figures
        numbers = (f"{f.accuracy:.1f}", f"{f.loss:.3f}", f"{1000 * f.divergence:.2f}", f"{f.sqnr:.1f}")
        table.add_row(row.name, f"{row.bits:.2f}", *numbers)
    return table


def layers_table(result: Mixed) -> Table:
    """The bits of every layer."""
    table = Table(header_style="bold")
    table.add_column("layer")
    for heading in ("weights", "multiply-adds", "bits"):
        table.add_column(heading, justify="right")
    for name, bits in result.layers.items():
        cost = result.costs[name]
        table.add_row(name, f"{cost.weights:,}", f"{cost.multiply_adds:,}", str(bits))
    return table


def _check(budget: Budget, costs: dict[str, LayerCost], options: Sequence[LayerBits]) -> None:
    if not math.isfinite(budget.bits) or budget.bits <= 0:
        raise GhnqError(f"A budget of {budget.bits} bits is none; give the average bits of a weight, such as 5.0.")
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
    progress: Progress | None,
) -> list[list[float]]:
    """Divergence on the calibration images, for each layer under each option alone.

    Where weights and activations are both to be chosen, their losses are measured apart and added.
    """
    reference = reference_logits(prepared, prepared.images)
    apart = len({bits.activation for bits in options}) > 1
    needed = {part for bits in options for part in _parts(bits, apart)}
    total, done, rows = len(names) * len(needed), 0, []
    for name in names:
        of: dict[LayerBits, float] = {}
        for bits in sorted(needed, key=str):
            scheme = replace(base, weight_bits=None, activation_bits=None, overrides=((name, bits),))
            of[bits] = divergence(logits_under(prepared, scheme, prepared.images), reference)
            done += 1
            if progress is not None:
                progress(done, total)
        rows.append([sum(of[part] for part in _parts(bits, apart)) for bits in options])
    return rows


def _parts(bits: LayerBits, apart: bool) -> tuple[LayerBits, ...]:
    return (LayerBits(bits.weight, None), LayerBits(WIDE, bits.activation)) if apart else (bits,)


def _scheme(base: QuantScheme, layers: dict[str, LayerBits]) -> QuantScheme:
    """The most frequent bits for all, and overrides for the others."""
    common = Counter(layers.values()).most_common(1)[0][0]
    others = tuple((name, bits) for name, bits in layers.items() if bits != common)
    return replace(base, weight_bits=common.weight, activation_bits=common.activation, overrides=others)


def _uniform(budget: Budget, activations: int, least: int) -> LayerBits:
    bits = min(max(int(budget.bits) if math.isfinite(budget.bits) else least, least), WIDE)
    return LayerBits(bits, bits if budget.measure == "bitops" else activations)


def _measure_all(
    subject: Subject,
    budget: Budget,
    costs: dict[str, LayerCost],
    scheme: QuantScheme,
    expected: float,
    choices: Sequence[int],
    activations: int,
) -> tuple[Measured, ...]:
    layers = list(costs.values())
    words = {_uniform(budget, activations, min(choices))}
    words |= {_uniform(replace(budget, bits=choice), activations, choice) for choice in choices}
    uniform = [replace(scheme, weight_bits=w.weight, activation_bits=w.activation, overrides=()) for w in sorted(words)]
    pixels, labels = subject.dataset.normalise(subject.images.pixels), subject.images.labels
    rows: list[Measured] = []
    for name, under in [*((str(u), u) for u in uniform), ("mixed", scheme)]:
        prepared = subject.prepared(under)
        bits = budget.as_bits(sum(budget.cost(costs[n], under.bits_for(n)) for n in costs), layers)
        if bits > budget.bits * (1 + 1e-9):
            continue
        reference = reference_logits(prepared, pixels)
        if not rows:
            in_float = compare(reference, reference, labels)
            rows.append(Measured("float32", QuantScheme.parse("float32"), 32.0, in_float))
        figures = compare(logits_under(prepared, under, pixels), reference, labels)
        rows.append(Measured(name, under, bits, figures, expected if name == "mixed" else None))
    return tuple(rows)
