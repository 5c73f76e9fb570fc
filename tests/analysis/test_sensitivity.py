"""Sensitivity of one small network, compared with direct computation of each number."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from ghnq.analysis.sensitivity import measure_sensitivity, sensitivity_table
from ghnq.hypernet import GHN
from ghnq.hypernet.initialize import initialize
from ghnq.prediction import Network
from ghnq.quant import QuantScheme, quantize


def test_rows_equal_the_plain_way(network: Network, ghn: GHN) -> None:
    report = measure_sensitivity(network, network.dataset.test, QuantScheme.parse("w3a8"))
    assert [row.name for row in report.layers] == ["first", "middle", "last"]
    net = initialize(network.module, ghn, (1, 8, 8))
    x, labels = network.dataset.normalise(network.dataset.test.pixels), network.dataset.test.labels
    with torch.no_grad():
        reference = quantize(net, "float32", calibration=network.calibration)(x)
        words = ["float32+middle=w3a8", "w3a8+middle=float32", "w3a8"]
        logits_of_schemes = [quantize(net, word, calibration=network.calibration)(x) for word in words]
    row = report.layers[1]
    for figures, logits in zip((row.alone, row.all_but, report.quantized), logits_of_schemes, strict=True):
        assert figures.accuracy == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
        assert figures.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
        p, q = reference.softmax(1).double(), logits.softmax(1).double()
        assert figures.divergence == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3, abs=1e-7)
        noise = float((logits - reference).double().square().mean() / reference.double().square().mean())
        assert figures.sqnr == pytest.approx(-10 * math.log10(noise), abs=0.01)
    assert report.in_float.divergence == 0
    assert report.in_float.sqnr == math.inf
    assert report.document()["float32"]["sqnr"] is None


def test_labels_name_the_whole_scheme(network: Network) -> None:
    def label(text: str, **changes: Any) -> str:
        return measure_sensitivity(network, network.dataset.test, QuantScheme.parse(text, **changes)).label

    assert label("w4a8") == "w4a8"
    assert label("w4a8+first=w8a8", steps=("correct_bias", "squant")) == "w4a8+first=w8a8 + squant + correct_bias"
    assert label("w4a8", protocol="paper") == "w4a8, protocol paper"
    assert label("w4a8", weight_range="mse") == "w4a8, protocol custom"
    many = "w4a8+first=w8a8+last=w8a8+middle=w2a8+m*=w3a8"
    assert label(many) == "2 x w8a8, 1 x w3a8"


def test_nothing_is_cut_at_80_columns(network: Network) -> None:
    report = measure_sensitivity(network, network.dataset.test, QuantScheme.parse("w4a8"))
    long = replace(report, layers=tuple(replace(row, name=f"stages.0.blocks.{row.name}") for row in report.layers))
    stream = io.StringIO()
    Console(file=stream, width=80).print(sensitivity_table(long, "title"))
    text = stream.getvalue()
    assert "…" not in text
    assert all(row.name[:10] in text for row in long.layers)
    assert max(map(len, text.splitlines())) <= 80
