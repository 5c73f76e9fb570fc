"""Result folders of every kind, written with the functions that the commands use, with made-up numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghnq.evaluation import Results
from ghnq.evaluation.rows import Row

ABOUT: dict[str, Any] = {
    "checkpoint": "made-up",
    "data": "digits",
    "data_hash": "d" * 64,
    "checkpoint_hash": "c" * 64,
    "hypernetwork": {"num_classes": 10},
    "image_shape": [1, 8, 8],
    "protocol": "deploy",
    "test_images": 200,
    "calibration_images": 64,
    "seed": 0,
    "versions": {"ghnq": "0.1.0"},
    "machines": [],
}


def row(index: int, scheme: str, correct: int, split: str = "test", images: int = 200) -> Row:
    return Row(
        split=split, index=index, structure_hash=f"{index:064x}", scheme=scheme, protocol="deploy", correct=correct,
        images=images, nonfinite=0, parameters=1000 + 10 * index, multiply_adds=50_000 + 1000 * index,
    )  # fmt: skip


def evaluation(
    folder: Path, correct: Mapping[tuple[str, str], Sequence[int]], about: Mapping[str, Any] | None = None
) -> Path:
    """An evaluation; for each split and scheme the numbers of correct images of architectures 0, 1, ..."""
    rows = [
        row(index, scheme, count, split)
        for (split, scheme), counts in correct.items()
        for index, count in enumerate(counts)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    Results.from_rows(rows, {**ABOUT, **(about or {})}).save(folder)
    return folder


def write(folder: Path, name: str, content: object) -> Path:
    """A JSON file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def log(folder: Path, lines: Sequence[object]) -> Path:
    """A log of a training run."""
    return write(folder, "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def metrics(accuracy: float, divergence: float | None) -> dict[str, float | None]:
    return {"accuracy": accuracy, "loss": 1.0, "divergence": divergence, "sqnr": 20.0}


def sensitivity(folder: Path, model: str = "convnets/test/0") -> Path:
    """The errors of two layers, of which the second is better quantized."""
    layers = [
        {
            "layer": name, "bits": "w4a8", "weights": 90, "multiply_adds": 900, "alone": metrics(89.0, alone),
            "all_but": metrics(88.0, all_but),
        }
        for name, alone, all_but in (("stem.conv", 0.02, 0.01), ("classifier", 0.001, 0.07))
    ]  # fmt: skip
    document = {
        "model": model, "checkpoint": "digits", "data": "digits", "data_sha256": "d" * 64, "scheme": "w4a8",
        "protocol": "deploy", "steps": [], "images": 200, "float32": metrics(90.0, 0.0),
        "quantized": metrics(87.0, 0.05), "layers": layers,
    }  # fmt: skip
    return write(folder, "sensitivity.json", document)


def mixed(folder: Path) -> Path:
    measured = [
        {"name": name, "bits": bits, "expected": None, **metrics(accuracy, 0.01)}
        for name, bits, accuracy in (("float32", 32.0, 90.0), ("w4a8", 4.0, 85.0), ("mixed", 4.5, 88.0))
    ]
    document = {
        "model": "convnets/test/0", "checkpoint": "digits", "data": "digits", "data_sha256": "d" * 64,
        "measure": "size", "budget_bits": 4.5, "scheme": "w4a8+stem.conv=w8a8", "steps": [], "images": 200,
        "layers": {"stem.conv": "w8a8", "classifier": "w4a8"}, "measured": measured,
        "layer_costs": {"stem.conv": {"weights": 90, "multiply_adds": 900},
                        "classifier": {"weights": 640, "multiply_adds": 640}},
    }  # fmt: skip
    return write(folder, "mixed.json", document)


def profile(folder: Path) -> Path:
    def cost(scale: int) -> dict[str, Any]:
        names = ("bit_operations", "bytes", "weight_bytes", "packed_weight_bytes", "compressed_bytes")
        names += ("compressed_weight_bytes", "peak_activation_bytes")
        return dict.fromkeys(names, 100 * scale) | {"latency": {"median_ms": 0.5 * scale, "p95_ms": 0.7 * scale}}

    document = {
        "file": "net.onnx", "facts": {"scheme": "w8a8", "protocol": "deploy", "origin": {"model": "convnets/test/0"}},
        "weights": 730, "multiply_adds": 1540, "quantized": cost(1), "float32": cost(4), "float_layers": [],
        "batch": 1, "threads": 1, "repeats": 50, "onnxruntime": "1.19",
    }  # fmt: skip
    return write(folder, "profile.json", document)


def finetune(folder: Path, model: str = "convnets/test/0") -> Path:
    log(folder, [{"step": step, "loss": 2.0 / step, "accuracy": 10.0 + step, "lr": 0.01} for step in range(1, 30)])
    document = {
        "model": model, "init": "digits", "data": "digits", "scheme": "w4a8", "steps": 29, "epochs": 5.0,
        "seconds": 12.0, "lr": 0.01, "rollbacks": 0, "test_images": 200, "before": {"float32": 70.0, "w4a8": 60.0},
        "after": {"float32": 90.0, "w4a8": 88.5}, "val_images": 100, "val": 87.0, "weights": "model.safetensors",
        "data_sha256": "d" * 64,
    }  # fmt: skip
    return write(folder, "result.json", document)


def training(folder: Path) -> Path:
    steps = [
        {"step": 10 * n, "loss": 3 / n, "accuracy": 20.0 + n, "lr": 0.001, "gradient_norm": 1.0 / n, "seconds": 7.0 * n}
        for n in range(1, 100)
    ]
    checks = [{"step": 100 * n, "val/accuracy": 30.0 + n, "val/sem": 1.0, "val/w4a8": 20.0 + n} for n in range(1, 10)]
    log(folder, sorted([*steps, *checks], key=lambda line: line["step"]))
    (folder / "recipe.yaml").write_text("data: digits\nsteps: 1000\nmeta_batch: 8\n")
    return folder


def ranking(folder: Path, by: str = "accuracy", test_images: int | None = None) -> Path:
    """Twelve candidates: a limit took three, nine were measured in round 1, six in round 2, three are the best."""
    sizes = [
        {"parameters": 900 + 99 * i, "multiply_adds": 40_000 + 9000 * i, "bytes": 450 + 50 * i, "peak_memory": 3000 + i}
        for i in range(12)
    ]  # fmt: skip
    value = {i: 50.0 + (37 * i) % 40 for i in range(9)}
    order = sorted(value, key=lambda i: -value[i])
    lines = [
        {
            "model": f"convnets/test/{i}",
            "limit": "--max-macs" if i >= 9 else None,
            "round": None if i >= 9 else 2 if i in order[:6] else 1,
            "value": value.get(i),
            "place": order.index(i) + 1 if i in order[:3] else None,
            **size,
        }
        for i, size in enumerate(sizes)
    ]
    rows = [
        {
            "model": f"convnets/test/{i}", "value": value[i], "accuracy": {"w4a8": value[i], "float32": value[i] + 1.5},
            "test": {} if test_images is None else {"w4a8": value[i] - 1, "float32": value[i]}, **sizes[i],
            "latency_ms": None, "pareto": place == 0,
        }
        for place, i in enumerate(order[:3])
    ]  # fmt: skip
    document = {
        "checkpoint": "digits", "data": "digits", "data_sha256": "d" * 64, "protocol": "deploy", "steps": [],
        "schemes": ["w4a8", "float32"], "by": by, "limits": {"--max-macs": 115_000}, "seed": 0,
        "worth": {"tau": 0.08, "within_budget": None, "sentences": ["Kendall's tau is 0.08.", "Be careful."],
                  "signals": {
                      name: {"tau": tau, "interval": interval, "within_budget": None, "within_interval": None}
                      for name, tau, interval in (("accuracy", 0.08, [-0.2, 0.3]), ("params", 0.38, None))
                  }},
        "image_shape": [1, 8, 8], "num_classes": 10, "images": 143, "minutes": 0.5, "candidates": 13,
        "filtered": {"multiply_adds": 3},
        "failed": [{"model": "nets.py:Wrong", "reason": "my <own> mistake"}],
        "rounds": [{"candidates": 9, "images": 50, "seconds": 0.0}, {"candidates": 6, "images": 143, "seconds": 0.0}],
        "seconds": {}, "rows": rows, "ghnq_version": "0.1.0",
    }  # fmt: skip
    if test_images is not None:
        document["test_images"] = test_images
    write(folder, "candidates.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return write(folder, "ranking.json", document)


def search(folder: Path, values: Sequence[Sequence[float]] | None = None, **changes: Any) -> Path:
    """A search; `values` are accuracy, multiply-adds and bytes of each architecture, in the order of the trials."""
    values = values or [(50 + (17 * i) % 40, 10_000 + (7919 * i) % 90_000, 500 + (31 * i) % 900) for i in range(30)]
    names = ["accuracy", "macs", "bytes"][: len(values[0])]

    def beats(other: Sequence[float], one: Sequence[float]) -> bool:
        return other[0] >= one[0] and all(a <= b for a, b in zip(other[1:], one[1:], strict=True)) and other != one

    front = [i for i, each in enumerate(values) if not any(beats(other, each) for other in values)]
    lines = [
        {
            "trial": 2 * i, "values": dict(zip(names, each, strict=True)), "structure_hash": f"{i:064x}",
            "parameters": 1000 + i, "depth": 5, "family": "stages",
            "model": f"{i:02d}-made-up.json" if i in front else "",
        }
        for i, each in enumerate(values)
    ]  # fmt: skip
    document = {
        "checkpoint": "digits", "data": "digits", "data_sha256": "d" * 64, "space": "convnets", "scheme": "w4a8",
        "protocol": "deploy", "steps": [], "objectives": names, "signal": "accuracy", "worth": ["Be careful."],
        "directions": {name: "maximize" if name == "accuracy" else "minimize" for name in names}, "images": 143,
        "minutes": None, "sampler": "nsga2", "seed": 0, "trials": len(values), "front": [], "ghnq_version": "0.1.0",
    }  # fmt: skip
    write(folder, "trials.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return write(folder, "search.json", document | changes)


def every_kind(root: Path) -> list[Path]:
    """One folder of each kind that there is, and a second evaluation to compare with."""
    both = {("test", "float32"): [180, 170, 160], ("test", "w4a8"): [175, 172, 150], ("deep", "float32"): [120],
            ("deep", "w4a8"): [110]}  # fmt: skip
    better = {key: [count + 10 + 2 * i for i, count in enumerate(counts)] for key, counts in both.items()}
    return [
        evaluation(root / "first", both), evaluation(root / "second", better, {"checkpoint": "other"}),
        finetune(root / "tuned"), training(root / "run"), sensitivity(root / "layers"), mixed(root / "mixed"),
        profile(root / "file"), ranking(root / "ranked"), search(root / "found"),
    ]  # fmt: skip
