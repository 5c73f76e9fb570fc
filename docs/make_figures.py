"""Draws the figures of the site from the stored results and from the code, into docs/figures/.

python docs/make_figures.py
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt

from ghnq.graph import trace
from ghnq.graph.drawing.draw import draw
from ghnq.quant import fake_quantize, scale_zero_point
from ghnq.quant.affine import integer_range
from ghnq.spaces import convnets

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from search_samplers import STORED, curves  # noqa: E402
from start_tables import at_best_rate, short  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
LABELS = {"w2a2+stem.conv=w8a8+classifier=w8a8": "w2a2\n(first and last\nlayer w8a8)"}
COLOURS = ("#00695c", "#00897b", "#26a69a", "#ef6c00", "#c62828")
PLAIN = ("grey", COLOURS[0], COLOURS[3])


def accuracy_by_scheme() -> None:
    """One point for each of the 100 networks of `test`, CIFAR-10, and the mean of each scheme."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for line in (ROOT / "results" / "cifar10" / "deploy" / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("split") == "test":
            accuracies[row["scheme"]].append(100 * row["correct"] / row["images"])
    (count,) = {len(values) for values in accuracies.values()}
    figure, axes = plt.subplots(figsize=(8, 3.6))
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, count)
    for position, (values, colour) in enumerate(zip(accuracies.values(), COLOURS, strict=True)):
        axes.scatter(position + spread, values, s=14, alpha=0.55, color=colour, linewidths=0)
        mean = float(np.mean(values))
        axes.hlines(mean, position - 0.32, position + 0.32, color="black", linewidth=2)
        axes.text(position + 0.36, mean, f"{mean:.1f}", va="center", fontsize=11)
    axes.axhline(10, color="grey", linewidth=1, linestyle="dashed")
    axes.text(-0.42, 11, "guessing", color="grey", fontsize=9)
    axes.set_xticks(range(len(accuracies)), [LABELS.get(scheme, scheme) for scheme in accuracies])
    axes.set_xlim(-0.45, len(accuracies) - 0.3)
    axes.set_ylim(0, 75)
    axes.set_ylabel("accuracy on CIFAR-10, %")
    axes.set_title(f"{count} networks never seen, weights predicted, 2,000 test images; bars: means", fontsize=10)
    save(figure, "accuracy_by_scheme")


def quantization_grid() -> None:
    """What rounding to 4 bits does to a value, for a symmetric and an asymmetric range."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axes, symmetric, title in (
        (panels[0], True, "weights: symmetric, -7 ... 7"),
        (panels[1], False, "activations: asymmetric, 0 ... 15"),
    ):
        low, high = torch.tensor(-0.4), torch.tensor(1.0)
        scale, zero_point = scale_zero_point(low, high, bits=4, symmetric=symmetric)
        values = torch.linspace(-1.4, 1.4, 2000)
        axes.plot(values, values, color="grey", linewidth=1, linestyle="dashed", label="x")
        quantized = fake_quantize(values, scale, zero_point, *integer_range(4, symmetric))
        axes.plot(values, quantized, color=COLOURS[0], label="simulated value x'")
        axes.axvspan(float(low), float(high), color=COLOURS[2], alpha=0.12, label="range -0.4 ... 1.0")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("value x")
    panels[0].legend(fontsize=8, loc="upper left")
    save(figure, "quantization_grid")


def search_samplers() -> None:
    """Hypervolume of samplers against evaluations: means over seeds, and their standard errors."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for (sampler, found), colour in zip(curves(ROOT / STORED), PLAIN, strict=False):
        values = np.array(found)
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
        evaluations = np.arange(1, values.shape[1] + 1)
        axes.plot(evaluations, mean, color=colour, label=sampler)
        axes.fill_between(evaluations, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("architectures measured")
    axes.set_ylabel("hypervolume")
    axes.set_title(f"accuracy at w4a8 and multiply-adds; mean and standard error of {len(values)} seeds", fontsize=10)
    axes.legend(fontsize=9, loc="lower right")
    save(figure, "search_samplers")


def finetune_start() -> None:
    """Accuracy after fine-tuning from predicted and Kaiming's weights: means over seeds, and their standard errors."""
    stored = (ROOT / "results" / "finetuning" / "rows.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, stored) if row["images"] == 5000]
    networks = sorted({short(row["architecture"]) for row in rows})
    figure, panels = plt.subplots(2, 3, figsize=(9, 5.4), sharex=True, sharey=True)
    for axes, network in zip(panels.flat, networks, strict=True):
        for scheme, dashes in (("float32", "solid"), ("w4a4", "dashed")):
            for start, colour in (("predicted", COLOURS[0]), ("kaiming", COLOURS[3])):
                of_line = [
                    row for row in rows
                    if (short(row["architecture"]), row["scheme"], row["start"]) == (network, scheme, start)
                ]  # fmt: skip
                budgets = sorted({row["epochs"] for row in of_line})
                found = [list(at_best_rate(r for r in of_line if r["epochs"] == each).values()) for each in budgets]
                errors = [np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else 0.0 for each in found]
                axes.errorbar(
                    budgets, [np.mean(each) for each in found], yerr=errors, color=colour, linestyle=dashes,
                    marker="o", markersize=3, capsize=2, label=f"{start.replace('kaiming', 'Kaiming')}, {scheme}",
                )  # fmt: skip
        axes.set_title(network, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.minorticks_off()
        axes.set_ylim(0, 80)
    for axes in panels[1]:
        axes.set_xlabel("epochs over 5,000 images")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy, %")
    panels[0, 0].legend(fontsize=7, loc="center right")
    save(figure, "finetune_start")


def save(figure: plt.Figure, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    # No date and fixed ids, so that the same figure is the same file.
    figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    matplotlib.rcParams.update({"svg.hashsalt": "ghnq", "svg.fonttype": "none", "font.family": "sans-serif"})
    accuracy_by_scheme()
    quantization_grid()
    search_samplers()
    finetune_start()
    module = convnets.build(convnets.spec("test", 17), in_channels=3, num_classes=10, device="meta")
    draw(trace(module, (3, 32, 32)), FIGURES / "graph.svg")
