"""`ghnq score`, and weights in place of a checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ghnq as package
from ghnq.analysis.score import choose_images, score
from ghnq.data import Images, load
from ghnq.errors import DataError
from ghnq.models import load_model
from ghnq.prediction import Count, Network
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme, quantize

from .conftest import Cli

MODEL = "convnets/test/5"
NETS = """
from torch import nn

class Digits(nn.Module):
    def __init__(self, classes=10, width=12):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

def wide():
    return Digits(width=20)

def five():
    return Digits(5)

def without_norms():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )
"""


@pytest.fixture
def nets(models: Path) -> Path:
    (models.parent / "nets.py").write_text(NETS)
    return models.parent


def trained(folder: Path) -> tuple[nn.Module, Path]:
    """A network of the user's with statistics of its own, and its file without any metadata."""
    torch.manual_seed(3)
    module = load_model(f"{folder / 'nets.py'}:Digits").train()
    digits = load("digits")
    for _ in range(3):
        module(digits.normalise(digits.train.pixels[:200]))
    file = folder / "own.safetensors"
    save_file(dict(module.state_dict()), file)
    return module.eval(), file


def test_one_row_for_each_model_and_scheme(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    call = ghnq(
        "score", MODEL, "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--schemes", "float32,w4a8",
        "--images", 60, "--out", "scores", "--json",
    )  # fmt: skip
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["on"] == "val"
    assert document["images"] == 60
    rows = document["rows"]
    assert [(row["model"], row["scheme"]) for row in rows] == [
        (model, scheme) for model in (MODEL, "nets.py:Digits") for scheme in ("float32", "w4a8")
    ]
    for row in rows:
        assert row["accuracy"] == pytest.approx(100 * row["correct"] / 60, abs=0)
    assert rows[1]["drop_from_float32"] == rows[0]["accuracy"] - rows[1]["accuracy"]
    assert pq.read_table("scores/results.parquet").to_pylist() == rows
    assert json.loads(Path("scores/summary.json").read_text())["rows"] == rows


def test_held_out_images_are_training_images(ghnq: Cli, nets: Path) -> None:
    digits = load("digits")
    rest, held = hold_out(digits)
    assert held is not None
    assert torch.equal(choose_images(digits, "val", None).pixels, held.pixels)
    assert len(rest.train) + len(held) == len(digits.train)
    together = torch.cat([rest.train.pixels, held.pixels]).flatten(1).numpy()
    assert np.array_equal(np.sort(together, axis=0), np.sort(digits.train.pixels.flatten(1).numpy(), axis=0))
    assert choose_images(digits, "test", 7).labels.tolist() == digits.test.first(7).labels.tolist()


def test_accuracy_of_stored_weights_is_that_of_the_module(ghnq: Cli, nets: Path) -> None:
    module, file = trained(nets)
    call = ghnq("score", "nets.py:Digits", "--weights", file, "--data", "digits", "--on", "test", "--json")
    assert call.code == 0, call.err
    rows = {row["scheme"]: row for row in json.loads(call.out)["rows"]}
    digits = load("digits")
    images = digits.normalise(digits.test.pixels)
    with torch.no_grad():
        correct = int((module(images).argmax(1) == digits.test.labels).sum())
        # Statistics are kept in float; quantization measures them again through the quantized network.
        simulated = quantize(module, "w8a8", calibration=digits.calibration(512, 0))
        quantized = int((simulated(images).argmax(1) == digits.test.labels).sum())
    assert rows["float32"]["correct"] == correct
    assert rows["w8a8"]["correct"] == pytest.approx(quantized, abs=2)
    python = score(module, digits, schemes=("float32", "w4a4"), on="test", name="nets.py:Digits")
    assert [row.document() for row in python] == [rows["float32"], rows["w4a4"]]


def test_what_predict_calibrates_is_what_score_measures(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    for model in ("nets.py:Digits", "nets.py:without_norms"):
        predicted = ghnq(
            "predict", model, "--checkpoint", tiny_checkpoint, "--data", "digits", "--out", "p.safetensors"
        )
        assert predicted.code == 0, predicted.err
        module = load_model(model)
        module.load_state_dict(load_file("p.safetensors"), strict=True)
        digits = load("digits")
        with torch.no_grad():
            logits = module.eval()(digits.normalise(digits.test.pixels))
        correct = int((logits.argmax(1) == digits.test.labels).sum())
        for options in (["--weights", "p.safetensors"], ["--checkpoint", tiny_checkpoint]):
            call = ghnq("score", model, *options, "--schemes", "float32", "--on", "test", "--json")
            assert json.loads(call.out)["rows"][0]["correct"] == pytest.approx(correct, abs=1), (model, options)
        with safe_open("p.safetensors", "pt") as file:
            metadata = file.metadata()
        assert (metadata["calibrated"], metadata["standardise"], metadata["data"]) == ("true", "false", "digits")
        assert metadata["data_sha256"] == digits.content_hash


def test_uncalibrated_weights_are_calibrated_where_they_are_used(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    call = ghnq("predict", "nets.py:without_norms", "--checkpoint", tiny_checkpoint, "--out", "p.safetensors", "--json")
    document = json.loads(call.out)
    assert "standardised on images" in document["warnings"][0]
    assert document["input_shape"] == [1, 8, 8]
    found = [
        json.loads(ghnq("score", "nets.py:without_norms", *options, "--schemes", "float32,w4a4", "--json").out)["rows"]
        for options in (["--weights", "p.safetensors", "--data", "digits"], ["--checkpoint", tiny_checkpoint])
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("command", ["export", "sensitivity", "mixed"])
def test_commands_take_weights(ghnq: Cli, nets: Path, command: str) -> None:
    _, file = trained(nets)
    more = {
        "export": ["--scheme", "w8a8", "--out", "net.onnx"],
        "sensitivity": ["--images", 50],
        "mixed": ["--budget-bits", 5, "--images", 50],
    }
    call = ghnq(command, "nets.py:Digits", "--weights", file, "--data", "digits", *more[command], "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    if command == "export":
        assert document["weights"] == "own.safetensors"
        assert document["checkpoint"] is None
        assert len(document["weights_sha256"]) == 64
        verified = json.loads(ghnq("verify", "net.onnx", "--data", "digits", "--json").out)
        assert verified["agreement"] == 100
    else:
        assert document["weights"] == "own.safetensors"
        assert document["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_does_not_fit_is_said(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    _, file = trained(nets)
    weights = ["--weights", file, "--data", "digits"]
    assert package.CheckpointError is not None
    for words, message in [
        (["score", "nets.py:Digits", "--weights", "ownn.safetensors"], "own.safetensors"),
        (["score", "nets.py:Digits", "--weights", file], "--data"),
        (["score", "nets.py:wide", *weights], "'conv.weight' has shape (12, 1, 3, 3)"),
        (["score", MODEL, *weights], "another model"),
        (["score", "nets.py:Digits", *weights, "--checkpoint", "digits"], "one of the two"),
        (["score", "nets.py:Digits", *weights, "--on", "tset"], "did you mean 'test'"),
        (["score", "nets.py:Digits", "nets.py:Digits", *weights], "more than once"),
        (["score", "nets.py:Digits", *weights, "--schemes", "w8b8"], "w8b8"),
        (["score", "nets.py:Digits", *weights, "--images", 100_000], "100000"),
        (["score", "nets.py:five", "--checkpoint", tiny_checkpoint], "5 outputs"),
    ]:
        call = ghnq(*words)
        assert call.code == 2, words
        assert message in call.err, (words, call.err)
        assert "Traceback" not in call.err
    call = ghnq("predict", "nets.py:five", "--checkpoint", tiny_checkpoint, "--out", "p.safetensors")
    assert "5 outputs" in call.err
    assert "10 classes" in call.err


def test_calibration_images_are_not_measured(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = load("digits")
    held = hold_out(digits)[1]
    assert held is not None
    measured = {image.numpy().tobytes() for image in digits.normalise(held.pixels)}
    doubles = sum(image.numpy().tobytes() in measured for image in digits.normalise(hold_out(digits)[0].train.pixels))
    assert doubles == 0
    seen: list[torch.Tensor] = []
    original = package.quant.pipeline.prepare

    def spy(module: nn.Module, calibration: torch.Tensor, **options: object) -> object:
        seen.append(calibration)
        return original(module, calibration, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("ghnq.prediction.network.prepare", spy)
    call = ghnq("score", "nets.py:Digits", "--checkpoint", tiny_checkpoint, "--schemes", "float32")
    assert call.code == 0, call.err
    score(load_model("nets.py:Digits"), digits, schemes=("float32",))
    assert [len(images) for images in seen] == [512, 512]
    assert not any(image.numpy().tobytes() in measured for images in seen for image in images)


def test_weights_of_other_images_are_told_and_of_another_size_refused(ghnq: Cli, nets: Path) -> None:
    module, _ = trained(nets)
    for metadata, code, message in (
        (
            {"input_shape": "3,32,32", "data": "photos"},
            2,
            "for images of 3x32x32 ('photos'), but those of 'digits' are",
        ),
        ({"input_shape": "1,8,8", "data": "photos", "data_sha256": "0" * 64}, 0, "made with other images ('photos')"),
        ({"input_shape": "1,8,8", "data_sha256": load("digits").content_hash}, 0, ""),
    ):
        save_file(dict(module.state_dict()), "told.safetensors", metadata=metadata)
        call = ghnq("score", "nets.py:Digits", "--weights", "told.safetensors", "--data", "digits", "--images", 20)
        assert call.code == code, call.err
        assert message in call.err
        assert ("made with other" in call.err) == ("made with other" in message)


@pytest.mark.parametrize("member", [("test", 17), ("bnfree", 0)])
def test_what_initialize_returns_is_scored_as_predicted(member: tuple[str, int]) -> None:
    """A new module's norms have mean 0 and variance 1, with which every image is one class."""
    dataset, ghn = load("digits", image_size=16), package.GHN.from_pretrained("digits")
    module = package.spaces.convnets.build(package.spaces.convnets.spec(*member), in_channels=1)
    network = package.initialize(module, ghn, input_shape=dataset.input_shape)
    expected = score(module, dataset, ghn=ghn, schemes=["float32", "w4a8"], on="test")
    assert score(network, dataset, schemes=["float32", "w4a8"], on="test") == expected
    assert all(row.accuracy > 30 for row in expected)


def test_images_that_were_resized_for_the_weights_are_resized_again(ghnq: Cli, nets: Path) -> None:
    """Fine-tuning from a checkpoint for 16 x 16 digits leaves weights for these; `--data digits` names them."""
    module, _ = trained(nets)
    resized = load("digits", image_size=16)
    for digest, code in ((resized.content_hash, 0), (load("digits", image_size=12).content_hash, 2)):
        metadata = {"input_shape": "1,16,16", "data": "digits", "data_sha256": digest}
        save_file(dict(module.state_dict()), "resized.safetensors", metadata=metadata)
        for data in ((), ("--data", "digits")):
            call = ghnq(
                "score", "nets.py:Digits", "--weights", "resized.safetensors", *data, "--on", "test",
                "--schemes", "float32", "--json",
            )  # fmt: skip
            assert call.code == code, call.err
            if code == 0:
                (row,) = json.loads(call.out)["rows"]
                (expected,) = score(module, resized, schemes=["float32"], on="test")
                assert row["correct"] == expected.correct
            else:
                assert "for images of 1x16x16" in call.err


def test_more_outputs_than_classes_and_pickles(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    (nets / "twenty.py").write_text("from nets import Digits\n\ndef net():\n    return Digits(20)\n")
    call = ghnq("score", "twenty.py:net", "--checkpoint", tiny_checkpoint, "--images", 20, "--json")
    assert call.code == 0, call.err
    assert any("20 outputs" in text for text in json.loads(call.out)["warnings"])
    torch.save({}, nets / "own.pt")
    call = ghnq("score", "nets.py:Digits", "--weights", "own.pt", "--data", "digits")
    assert call.code == 2
    assert "safetensors.torch.save_file" in call.err


def test_a_second_model_that_does_not_fit_is_found_before_the_first_is_measured(
    ghnq: Cli, nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = trained(nets)
    monkeypatch.setattr("ghnq.commands.score.score_networks", lambda *args: pytest.fail("measured"))
    call = ghnq("score", "nets.py:Digits", "nets.py:wide", "--weights", file, "--data", "digits")
    assert call.code == 2
    assert "nets.py:wide: 'conv.weight' has shape" in call.err


def test_rows_are_kept_as_they_come_and_are_not_measured_again(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["nets.py:Digits", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--schemes", "float32,w4a8"]
    whole = ghnq("score", *words, "--json")
    measured: list[str] = []
    original = Network.count_correct

    def interrupted(self: Network, scheme: QuantScheme, images: Images) -> Count:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(str(scheme))
        return original(self, scheme, images)

    with monkeypatch.context() as patched:
        patched.setattr(Network, "count_correct", interrupted)
        stopped = ghnq("score", *words, "--out", "kept")
    assert stopped.code == 130
    assert "3 rows are kept in 'kept'" in stopped.err
    assert "Traceback" not in stopped.err
    assert not Path("kept/results.parquet").exists()
    rows = [json.loads(line) for line in Path("kept/rows.jsonl").read_text().splitlines()]
    assert [(row["model"], row["scheme"]) for row in rows if "scheme" in row] == [
        ("nets.py:Digits", "float32"), ("nets.py:Digits", "w4a8"), ("nets.py:wide", "float32"),
    ]  # fmt: skip

    def count(self: Network, scheme: QuantScheme, images: Images) -> Count:
        measured.append(str(scheme))
        return original(self, scheme, images)

    monkeypatch.setattr(Network, "count_correct", count)
    for more, expected in (([], ["w4a8"]), ([], [])):
        measured.clear()
        call = ghnq("score", *words, *more, "--out", "kept", "--json")
        assert call.code == 0, call.err
        assert measured == expected
        assert json.loads(call.out)["rows"] == json.loads(whole.out)["rows"]
    # Other schemes and models are added; what is not asked for is not in the table.
    measured.clear()
    call = ghnq("score", "nets.py:wide", "--checkpoint", tiny_checkpoint, "--schemes", "w8a8,float32", "--out", "kept",
                "--json")  # fmt: skip
    assert measured == ["w8a8"]
    table = json.loads(call.out)["rows"]
    assert [row["scheme"] for row in table] == ["w8a8", "float32"]
    assert table[0]["drop_from_float32"] == table[1]["accuracy"] - table[0]["accuracy"]
    assert pq.read_table("kept/results.parquet").to_pylist() == table


def test_a_model_that_is_edited_is_measured_again(
    ghnq: Cli, nets: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["nets.py:Digits", "--checkpoint", tiny_checkpoint, "--schemes", "float32", "--out", "kept", "--json"]
    relu = json.loads(ghnq("score", *words).out)["rows"]
    (nets / "nets.py").write_text(NETS.replace(".relu()", ".abs()"))  # the same graph: activations are no nodes
    assert ghnq("score", *words).code == 0
    rows = [json.loads(line) for line in Path("kept/rows.jsonl").read_text().splitlines()]
    assert len({row["network"] for row in rows if "network" in row}) == 2
    (nets / "nets.py").write_text(NETS)
    monkeypatch.setattr(Network, "count_correct", lambda *_: pytest.fail("measured"))
    assert json.loads(ghnq("score", *words).out)["rows"] == relu


def test_rows_of_another_measurement_are_refused(ghnq: Cli, nets: Path, tiny_checkpoint: Path) -> None:
    _, file = trained(nets)
    words = ["score", "nets.py:Digits", "--schemes", "float32", "--images", 30, "--out", "kept"]
    first = ghnq(*words, "--checkpoint", tiny_checkpoint)
    assert first.code == 0, first.err
    before = Path("kept/rows.jsonl").read_bytes()
    for more, named in (
        (["--checkpoint", tiny_checkpoint, "--on", "test"], "on was val, now test"),
        (["--checkpoint", tiny_checkpoint, "--images", 40], "images was 30, now 40"),
        (["--checkpoint", tiny_checkpoint, "--protocol", "paper"], "protocol was deploy, now paper"),
        (["--checkpoint", tiny_checkpoint, "--steps", "equalize"], "steps was , now equalize"),
        (["--weights", file, "--data", "digits"], "weights_sha256 was None, now"),
    ):
        call = ghnq(*words, *more)
        assert call.code == 2, more
        assert named in call.err, call.err
        assert "another folder" in call.err
    assert Path("kept/rows.jsonl").read_bytes() == before


def test_few_images_have_none_held_out() -> None:
    digits = load("digits")
    from dataclasses import replace

    few = replace(digits, train=digits.train.first(8))
    with pytest.raises(DataError, match="--on test"):
        choose_images(few, "val", None)


def ten_of_my_own(folder: Path) -> None:
    """Digits in negative, whose classes are named in another order: as many classes, of other images."""
    digits = load("digits")
    for split, part, count in (("train", digits.train, 300), ("test", digits.test, 60)):
        for number, (pixels, label) in enumerate(zip(part.pixels[:count], part.labels[:count].tolist(), strict=True)):
            file = folder / split / f"class {(label * 3 + 1) % 10}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - pixels[0].numpy()).save(file)


def test_the_head_of_other_images_is_solved_even_for_as_many_classes(ghnq: Cli, nets: Path) -> None:
    ten_of_my_own(nets / "mine")
    words = ["score", MODEL, "--checkpoint", "digits", "--schemes", "float32", "--on", "test", "--json"]
    small = [*words, "--data", "mine", "--image-size", 16]
    found = {}
    for name, call in {
        "mine": ghnq(*small),
        "mine, predicted": ghnq(*small, "--head", "predicted"),
        "own": ghnq(*words),
        "own, solved": ghnq(*words, "--head", "solved"),
    }.items():
        assert call.code == 0, call.err
        found[name] = json.loads(call.out)
    accuracy = {name: document["rows"][0]["accuracy"] for name, document in found.items()}
    heads = {name: document.get("head") for name, document in found.items()}
    assert heads["own"] is None
    assert heads["mine, predicted"] is None
    assert "270 training images of 'mine'" in heads["mine"]
    assert "training images of 'digits'" in heads["own, solved"]
    assert accuracy["mine, predicted"] < 30  # names the classes at random
    assert accuracy["mine"] > 50
    assert accuracy["own, solved"] > accuracy["own"] - 5
    (line,) = [text for text in found["mine"]["warnings"] if "body is predicted" in text]
    assert "as many classes" in line
    assert "--head predicted" in line
    assert not found["own"]["warnings"]


def test_a_head_that_cannot_be_had_is_refused(ghnq: Cli, nets: Path) -> None:
    _, file = trained(nets)
    ten_of_my_own(nets / "mine")
    shutil.rmtree(nets / "mine" / "train" / "class 3")
    shutil.rmtree(nets / "mine" / "test" / "class 3")
    out = ["--out", "p.safetensors"]
    for words, message in [
        (["score", MODEL, "--head", "slved"], "did you mean 'solved'"),
        (["score", "nets.py:Digits", "--weights", file, "--data", "digits", "--head", "solved"], "leave --head out"),
        (["finetune", MODEL, "--init", "kaiming", "--data", "digits", "--head", "solved"], "leave it out"),
        (["predict", MODEL, "--checkpoint", "digits", "--head", "solved", *out], "--data"),
        (["score", MODEL, "--checkpoint", "digits", "--data", "mine", "--head", "predicted"], "'mine' has 9"),
        (["score", MODEL, "--checkpoint", "digits", "--data", "mine", "--head", "predicted"], "the head is solved"),
    ]:
        call = ghnq(*words)
        assert call.code == 2, words
        assert message in call.err, (words, call.err)
        assert "Traceback" not in call.err


@pytest.mark.slow
def test_the_head_is_an_option_wherever_weights_are_predicted(ghnq: Cli, nets: Path) -> None:
    out = {"predict": ["--out", "p.safetensors"], "export": ["--out", "p.onnx"]}
    for command, more in {
        "predict": [],
        "export": [],
        "sensitivity": ["--images", 20],
        "mixed": ["--images", 20, "--budget-bits", 5],
        "finetune": ["--epochs", 0.1, "--lr", 0.01, "--out", "run"],
    }.items():
        option = "--init" if command == "finetune" else "--checkpoint"
        call = ghnq(command, "nets.py:Digits", option, "digits", "--data", "digits", "--head", "solved",
                    *more, *out.get(command, []), "--json")  # fmt: skip
        assert call.code == 0, (command, call.err)
        warnings = json.loads(call.out)["warnings"]
        assert any("head solved by ridge regression" in text for text in warnings), (command, warnings)
