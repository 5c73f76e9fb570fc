"""Each command does what its line in the table says, and `--json` leaves one document alone on stdout."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import ghnq as package
from ghnq.graph import trace
from ghnq.models import load_model
from ghnq.spaces.description import describe
from tests.torch_versions import needs_program_files

from .conftest import Cli

COMMANDS = [
    "demo",
    "train",
    "evaluate",
    "predict",
    "score",
    "finetune",
    "draw",
    "spaces",
    "import",
    "checkpoints",
    "export",
    "verify",
    "profile",
]


SHAPE = ("--input-shape", "3,32,32")


def test_help_names_every_command(ghnq: Cli) -> None:
    call = ghnq("--help")
    assert call.code == 0
    assert all(command in call.out for command in COMMANDS)
    assert ghnq("-h").out == call.out


def test_version(ghnq: Cli) -> None:
    assert ghnq("--version") == type(ghnq("--version"))(0, f"ghnq {package.__version__}\n", "")


def test_predict_writes_every_parameter_under_its_own_name(ghnq: Cli, models: Path, tiny_checkpoint: Path) -> None:
    out = models.parent / "new" / "net.safetensors"
    call = ghnq("predict", "models.py:Net", "--checkpoint", tiny_checkpoint, *SHAPE, "--out", out, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert "the model is made" in call.err

    module = load_model("models.py:Net")
    tensors = load_file(out)
    expected = dict(module.named_parameters())
    keys = [
        "model",
        "checkpoint",
        "checkpoint_sha256",
        "data",
        "input_shape",
        "num_classes",
        "scheme",
        "calibrated",
        "head",
        "parameters",
        "tensors",
        "seconds",
        "out",
        "unused",
        "warnings",
    ]
    assert list(document) == keys
    untrained_for, uncalibrated = document["warnings"]
    assert untrained_for == "the hypernetwork was trained for images of 1x8x8, not 3x32x32: expect poor accuracy"
    assert "norms need statistics" in uncalibrated
    assert "--data" in uncalibrated
    assert not document["calibrated"]
    assert document["parameters"] == sum(p.numel() for p in expected.values())
    assert document["tensors"] == len(module.state_dict())
    assert document["out"] == str(out)
    module.load_state_dict(tensors, strict=True)
    oracle = package.GHN.from_pretrained(tiny_checkpoint).predict(trace(module, (3, 32, 32)))
    for name in expected:
        torch.testing.assert_close(tensors[name], oracle[name].detach(), rtol=0, atol=0)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == "models.py:Net"
    assert metadata["ghnq_version"] == package.__version__
    assert metadata["input_shape"] == "3,32,32"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_predict_for_people(ghnq: Cli, models: Path, tiny_checkpoint: Path) -> None:
    call = ghnq("predict", "convnets/test/3", "--checkpoint", tiny_checkpoint, "--out", "net.safetensors")
    assert call.code == 0, call.err
    assert "convnets/test/3" in call.out
    assert "written to net.safetensors" in call.out
    assert (
        load_file("net.safetensors").keys() == load_model("convnets/test/3", input_shape=(1, 8, 8)).state_dict().keys()
    )


def test_what_is_untested_and_what_is_unused_is_told(ghnq: Cli, models: Path, tiny_checkpoint: Path) -> None:
    call = ghnq(
        "predict", "models.py:Scaled", "--checkpoint", tiny_checkpoint, *SHAPE, "--out", "net.safetensors", "--json"
    )
    document = json.loads(call.out)
    assert document["unused"] == ["spare"]
    assert ["'gamma'" in text for text in document["warnings"][:2]] == [True, False]
    assert "'spare'" in document["warnings"][1]
    assert call.err.count("warning: ") == len(document["warnings"])
    tensors = load_file("net.safetensors")
    assert tensors["gamma"].shape == (20, 1, 1)
    assert torch.equal(tensors["spare"], torch.ones(3))  # as the module has it
    assert "'gamma'" in ghnq("draw", "models.py:Scaled", "-o", "net.svg").err


def test_a_forward_that_fails_shows_the_users_lines_and_not_ours(
    ghnq: Cli, models: Path, tiny_checkpoint: Path
) -> None:
    call = ghnq("predict", "models.py:Fails", "--checkpoint", tiny_checkpoint, *SHAPE, "--out", "net.safetensors")
    assert call.code == 2
    assert 'return self.head({}["x"])' in call.err
    assert "module '(root)' (Fails) failed" in call.err
    assert "KeyError: 'x'" in call.err
    assert "ghnq/graph" not in call.err
    assert not Path("net.safetensors").exists()


def test_a_failed_prediction_keeps_the_old_file(
    ghnq: Cli, models: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = models.parent / "net.safetensors"
    out.write_text("old")

    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_text("hal")
        raise OSError("disk full")

    monkeypatch.setattr("ghnq.prediction.stored_weights.save_file", half)
    call = ghnq("predict", "models.py:Net", "--checkpoint", tiny_checkpoint, *SHAPE, "--out", out)
    assert call.code == 2
    assert "net.safetensors' cannot be written (disk full); free space there" in call.err
    assert "Traceback" not in call.err
    assert out.read_text() == "old"
    assert not list(models.parent.glob(".*"))


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_draw(ghnq: Cli, models: Path, suffix: str) -> None:
    call = ghnq("draw", "models.py:Net", "-o", f"net{suffix}")
    assert call.code == 0, call.err
    assert f"drawn to net{suffix}" in call.out
    text = (models.parent / f"net{suffix}").read_text()
    assert "<svg" in text
    assert ">models.py:Net</text>" in text  # the title
    assert "conv\n" in text  # hovering over a node shows the name of its layer first


def test_spaces_show(ghnq: Cli) -> None:
    call = ghnq("spaces", "show", "convnets/test/17", "--json")
    document = json.loads(call.out)
    spec = package.spaces.convnets.spec("test", 17)
    module = package.spaces.convnets.build(spec, device="meta")
    assert document["name"] == "convnets/test/17"
    assert document["structure_hash"] == spec.structure_hash
    assert package.spaces.convnets.Spec.from_json(json.dumps(document["spec"])) == spec
    assert document["parameters"] == sum(p.numel() for p in module.parameters())
    people = ghnq("spaces", "show", "convnets/test/17")
    assert spec.structure_hash[:12] in people.out
    assert f"{document['parameters']:,}" in people.out


def test_checkpoints(ghnq: Cli) -> None:
    from ghnq.hypernet.checkpoint import shipped_checkpoints

    document = json.loads(ghnq("checkpoints", "--json").out)
    assert [row["name"] for row in document["checkpoints"]] == list(shipped_checkpoints())
    people = ghnq("checkpoints")
    assert all(name in people.out for name in shipped_checkpoints())


@needs_program_files
def test_export_and_verify(ghnq: Cli, models: Path, tiny_checkpoint: Path) -> None:
    (models.parent / "grey.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(288, 10))\n"
    )
    words = ["export", "grey.py:net", "--checkpoint", tiny_checkpoint, "--scheme", "w4a8", "--out", "net.onnx"]
    call = ghnq(*words, "--calibration", 64, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["bytes"] == Path("net.onnx").stat().st_size
    assert (document["scheme"], document["protocol"], document["opset"]) == ("w4a8", "deploy", 17)
    assert len(document["checkpoint_sha256"]) == 64

    call = ghnq("verify", "net.onnx", "--images", 50, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert (document["images"], document["agreement"], document["saturation"]) == (50, 100.0, False)
    assert document["kernels"]["integer"].items() >= {"QLinearConv": 1, "Reshape": 1, "QGemm": 1}.items()
    assert document["kernels"]["floating"] == {}
    assert document["facts"]["origin"]["model"] == "grey.py:net"
    people = ghnq("verify", "net.onnx", "--data", "digits", "--images", 50)
    assert "100.00 %" in people.out
    assert "1 QLinearConv" in people.out
    assert "in float: nothing" in people.out

    call = ghnq(*words[:-1], "net.pt2", "--calibration", 64, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert (document["bytes"], document["opset"]) == (Path("net.pt2").stat().st_size, None)
    call = ghnq("verify", "net.pt2", "--images", 50, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert (document["images"], document["eager"]["agreement"], document["compiled"]) == (50, 100.0, None)
    assert document["facts"]["origin"]["model"] == "grey.py:net"
    Path("cut.pt2").write_bytes(Path("net.pt2").read_bytes()[:5000])
    call = ghnq("verify", "cut.pt2", "--json")
    assert call.code == 2
    assert "not a torch.export program" in call.err
    people = ghnq("verify", "net.pt2", "--images", 50)
    assert "100.00 %" in people.out

    before = sorted(models.parent.iterdir())
    call = ghnq("profile", "net.onnx", "--repeats", 3, "--batch", 2, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert document["quantized"]["bytes"] == Path("net.onnx").stat().st_size
    assert document["multiply_adds"] == 36 * 8 * 9 + 2880
    assert document["quantized"]["bit_operations"] == 32 * document["multiply_adds"]
    assert (document["batch"], document["threads"], document["repeats"], document["warnings"]) == (2, 1, 3, [])
    people = ghnq("profile", "net.onnx", "--repeats", 3)
    assert "5,472" in people.out
    assert "batch 1, threads 1, 3 runs of each, CPUExecutionProvider" in people.out
    assert sorted(models.parent.iterdir()) == before


@pytest.mark.slow
def test_evaluate(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", tiny_checkpoint, "--splits", "test,deep", "--schemes", "float32,w8a8", "--limit", 2]
    call = ghnq(*words, "--images", 20, "--out", tmp_path / "results", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert set(document) >= {"checkpoint", "data", "protocol", "rows"}
    assert (document["checkpoint"], document["data"], document["protocol"]) == (
        "tiny",
        "digits",
        "deploy",
    )
    assert [(row["split"], row["scheme"]) for row in document["rows"]] == [
        ("test", "float32"), ("test", "w8a8"), ("deep", "float32"), ("deep", "w8a8"),
    ]  # fmt: skip
    for row in document["rows"]:
        assert set(row) == {
            "split", "scheme", "architectures", "images", "mean", "sem", "max", "min", "drop_from_float32",
        }  # fmt: skip
        assert (row["architectures"], row["images"]) == (2, 20)
        assert 0 <= row["min"] <= row["mean"] <= row["max"] <= 100
    people = ghnq(*words, "--images", 20, "--out", tmp_path / "results")
    assert people.code == 0
    assert "w8a8" in people.out
    assert "deep" in people.out


@pytest.mark.slow
def test_spaces_describe(ghnq: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convnets = package.spaces.convnets
    monkeypatch.setattr("ghnq.commands.spaces.measure", lambda space, **options: describe(space, 20, **options))
    call = ghnq("spaces", "describe", "convnets", "--out", tmp_path / "new" / "figure.html", "--json")
    document = json.loads(call.out)
    assert [split["split"] for split in document["splits"]] == list(convnets.SPLITS)
    assert all({"parameters", "multiply_adds", "depth", "ops"} <= split.keys() for split in document["splits"])
    assert document == {**describe(convnets.SPACE, 20).to_dict(), "out": str(tmp_path / "new" / "figure.html")}
    assert "<html" in (tmp_path / "new" / "figure.html").read_text()[:500]

    people = ghnq("spaces", "describe", "convnets", "--out", tmp_path / "figure.html")
    assert all(split in people.out for split in convnets.SPLITS)
    assert all(word in people.out for word in ("parameters", "multiply-adds", "depth", "sep_conv"))


@pytest.mark.slow
def test_demo(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ghnq.evaluation.demo import demo

    monkeypatch.setattr(
        "ghnq.commands.demo.run_demo", partial(demo, checkpoint=str(tiny_checkpoint), architectures=2, workers=1)
    )
    call = ghnq("demo", "--out", tmp_path / "demo", "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert [row["scheme"] for row in document["rows"]] == ["float32", "w8a8", "w4a8", "w4a4"]
    assert {path.suffix for path in (tmp_path / "demo").iterdir()} >= {".html", ".svg", ".parquet", ".json"}
    people = ghnq("demo", "--out", tmp_path / "demo")
    assert "2 architectures" in people.out
    assert str(tmp_path / "demo" / "architecture.svg") in people.out
