"""A mistake in any word of any command: one screen on stderr, exit code 2, nothing on stdout, nothing half-written."""

from pathlib import Path

import pytest

from .conftest import Cli

LONGEST_SCREEN = 24


@pytest.mark.parametrize(
    ("words", "says"),
    [
        # Words that typer knows.
        (["demos"], "demo"),
        (["demo", "--ot", "x"], "--out"),
        (["spaces", "shew", "convnets/test/1"], "show"),
        (["predict", "models.py:Net"], "--out"),
        (["draw", "models.py:Net"], "--out"),
        (["evaluate"], "CHECKPOINT"),
        (["evaluate", "CKPT", "--limit", "0"], "--limit"),
        (["evaluate", "CKPT", "--limit", "ten"], "--limit"),
        (["evaluate", "CKPT", "--images", "-5"], "--images"),
        (["train", "recipe.yaml", "--max-minutes", "soon"], "--max-minutes"),
        # Checkpoints.
        (["evaluate", "digitz"], "did you mean 'digits'"),
        (["evaluate", "no/such/folder"], "no/such/folder"),
        (["evaluate", "pickled.pt"], "pickle"),
        (["evaluate", "empty"], "config.json"),
        (["predict", "models.py:Net", "--out", "a.safetensors", "--checkpoint", "digitz"], "did you mean 'digits'"),
        # Splits, schemes, protocols.
        (["evaluate", "CKPT", "--splits", "tset"], "did you mean 'test'"),
        (["evaluate", "CKPT", "--splits", "test,test"], "more than once"),
        (["evaluate", "CKPT", "--splits", ""], "empty item"),
        (["evaluate", "CKPT", "--splits", "train"], "give a limit"),
        (["evaluate", "CKPT", "--splits", "test/500"], "0 to 499"),
        (["evaluate", "CKPT", "--splits", "test/x"], "must be an integer"),
        (["evaluate", "CKPT", "--splits", "convnets/test/17"], "one architecture is SPLIT/INDEX, for example test/17"),
        (["evaluate", "CKPT", "--schemes", "w8b8"], "did you mean 'w8a8'"),
        (["evaluate", "CKPT", "--schemes", "w1a1"], "2 to 16"),
        (["evaluate", "CKPT", "--schemes", "float32,"], "empty item"),
        (["evaluate", "CKPT", "--protocol", "deplyo"], "did you mean 'deploy'"),
        # Post-training steps and scheme files.
        (["evaluate", "CKPT", "--steps", "equalise"], "did you mean 'equalize'"),
        (["evaluate", "CKPT", "--steps", "squant,squant"], "more than once"),
        (["evaluate", "CKPT", "--steps", ""], "empty item"),
        (["evaluate", "CKPT", "--schemes", "recipe.yaml"], "unknown key 'name'"),
        (["evaluate", "CKPT", "--schemes", "w8a8,nowhere.yaml"], "nowhere.yaml"),
        (["predict", "models.py:Net", "--out", "a.safetensors", "--scheme", "recipe.yml"], "mean 'recipe.yaml'"),
        (["evaluate", "CKPT", "--schemes", "w8a8,quiet.yaml", "--protocol", "paper"], "leave out --protocol"),
        (["evaluate", "CKPT", "--schemes", "w8a8,quiet.yaml", "--steps", "squant"], "leave out --steps"),
        (
            ["sensitivity", "models.py:Net", "--scheme", "quiet.yaml", "--steps", "equalize"],
            "its steps: correct_bias; requested: equalize",
        ),
        (
            ["export", "models.py:Net", "--out", "net.onnx", "--scheme", "quiet.yaml", "--protocol", "paper"],
            "scheme file 'quiet.yaml': its protocol: deploy; requested: paper",
        ),
        (["export", "models.py:Net", "--out", "net.pt2", "--scheme", "quiet.yaml", "--steps", "squant"], "--steps"),
        (["export", "models.py:Net", "--out", "net.onnx", "--steps", "equalise"], "did you mean 'equalize'"),
        (
            [
                "predict",
                "models.py:Net",
                "--checkpoint",
                "CKPT",
                "--input-shape",
                "3,8,8",
                "--out",
                "a.safetensors",
                "--scheme",
                "w4+hed=w8",
            ],
            "override 'hed' matches no layer (did you mean 'head'?): layers are conv, head",
        ),
        # Studies of one model.
        (["sensitivity", "models.py:Net", "--checkpoint", "CKPT", "--scheme", "w4b8"], "unknown scheme 'w4b8'"),
        (["sensitivity", "models.py:Net", "--checkpoint", "CKPT", "--scheme", "recipe.yaml"], "unknown key 'name'"),
        (["sensitivity", "models.py:Net", "--checkpoint", "CKPT", "--out", "a.png"], ".html"),
        (["sensitivity", "models.py:Nett", "--checkpoint", "CKPT"], "did you mean 'Net'"),
        (["sensitivity", "models.py:Net", "--checkpoint", "CKPT", "--images", "9999"], "choose between 1 and"),
        (["sensitivity", "convnets/test/0", "--checkpoint", "CKPT", "--scheme", "float32"], "quantizes no layer"),
        (
            ["sensitivity", "convnets/test/0", "--checkpoint", "CKPT", "--scheme", "w4+nope=w8"],
            "'nope' matches no layer",
        ),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT"], "--budget-bits"),
        (
            ["mixed", "convnets/test/0", "--checkpoint", "CKPT", "--budget-bits", "1.5"],
            "the fewest bits on offer cost 2.00",
        ),
        (
            ["mixed", "convnets/test/0", "--checkpoint", "CKPT", "--budget-bits", "nan"],
            "the budget must be positive and finite, got nan",
        ),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--choices", "2,,4"], "empty item"),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--choices", "2,x"], "'x' is not"),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--choices", "1,4"], "2 to 16"),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--activations", "1"], "2 to 16"),
        (
            ["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--measure", "bitop"],
            "mean 'bitops'",
        ),
        (["mixed", "models.py:Net", "--checkpoint", "CKPT", "--budget-bits", "4", "--out", "a.json"], ".yaml or .yml"),
        # Data.
        (["evaluate", "CKPT", "--data", "digit"], "did you mean 'digits'"),
        (["evaluate", "CKPT", "--data", "./nowhere"], "nowhere"),
        (["evaluate", "CKPT", "--data", "empty"], "empty"),
        # Where results go.
        (["evaluate", "CKPT", "--out", "models.py"], "models.py"),
        (["evaluate", "CKPT", "--out", "models.py/deeper"], "is a file"),
        (["demo", "--out", "models.py"], "is a file"),
        (["predict", "models.py:Net", "--out", "a.pt"], ".safetensors"),
        (["predict", "models.py:Net", "--out", "empty"], ".safetensors"),
        (["draw", "models.py:Net", "-o", "a.png"], ".svg or .html"),
        (["spaces", "describe", "convnets", "--out", "a.png"], ".html"),
        # Models and shapes.
        (["draw", "models.py:Nett", "-o", "a.svg"], "did you mean 'Net'"),
        (["draw", "model.py:Net", "-o", "a.svg"], "did you mean 'models.py'"),
        (["draw", "convnets/tets/1", "-o", "a.svg"], "did you mean 'test'"),
        (["draw", "models.py:Net", "-o", "a.svg", "--input-shape", "3,32"], "three positive numbers"),
        (["draw", "models.py:Net", "-o", "a.svg", "--input-shape", "1,32,32"], "1"),
        (["draw", "models.py:nothing_to_predict", "-o", "a.svg"], "parameter"),
        (["predict", "models.py:nothing_to_predict", "--checkpoint", "CKPT", "--out", "a.safetensors"], "parameter"),
        (["predict", "models.py:Net", "--checkpoint", "CKPT", "--out", "a.safetensors", "--input-shape", "x"], "three"),
        # Files for a device.
        (["export", "models.py:Net"], "--out"),
        (["export", "models.py:Net", "--out", "net.pt"], ".onnx or .pt2"),
        (["export", "models.py:Net", "--out", "net.pt2", "--pack-int4"], "are for .onnx"),
        (["export", "models.py:Net", "--out", "net.pt2", "--scheme", "w8b8"], "did you mean 'w8a8'"),
        (["export", "models.py:Net", "--out", "models.py/net.onnx"], "is a file"),
        (["export", "models.py:Net", "--out", "net.onnx", "--scheme", "w8b8"], "did you mean 'w8a8'"),
        (["export", "models.py:Net", "--out", "net.onnx", "--protocol", "deplyo"], "did you mean 'deploy'"),
        (["export", "models.py:Net", "--out", "net.onnx", "--calibration", "1"], "--calibration"),
        (["export", "models.py:Net", "--out", "net.onnx", "--checkpoint", "CKPT"], "takes 3 channels"),
        (["verify", "nothing.onnx"], "there is no file 'nothing.onnx'"),
        (["verify", "pickled.pt"], "not an ONNX model"),
        (["verify", "empty"], "there is no file"),
        (["verify", "nothing.pt2"], "there is no file 'nothing.pt2'"),
        (["verify", "pickled.pt", "--compile"], "--compile is for .pt2 files"),
        (["profile", "nothing.onnx"], "there is no file 'nothing.onnx'"),
        (["profile", "pickled.pt"], "not an ONNX model"),
        (["profile", "program.pt2"], "export the same network as .onnx"),
        (["profile", "pickled.pt", "--batch", "0"], "--batch"),
        (["profile", "pickled.pt", "--batch", "9999"], "batch is 9,999; choose 1 to 4,096"),
        (["profile", "pickled.pt", "--threads", "0"], "--threads"),
        (["profile", "pickled.pt", "--threads", "9999"], "threads is 9,999"),
        (["profile", "pickled.pt", "--repeats", "0"], "--repeats"),
        # Spaces.
        (["spaces", "describe", "convnet"], "did you mean 'convnets'"),
        (["spaces", "show", "convnets/test"], "convnets/test/17"),
        (["spaces", "show", "convnets/test/500"], "0 to 499"),
        (["spaces", "show", "convnets/test/-1"], "-1"),
        # Recipes.
        (["train", "recipe.yml"], "did you mean 'recipe.yaml'"),
        (["train", "recipe.yaml", "--set", "stepz=3"], "did you mean 'steps'"),
        (["train", "recipe.yaml", "--set", "steps"], "KEY=VALUE"),
        (["train", "recipe.yaml", "--set", "steps=none"], "steps"),
        (["train", "recipe.yaml", "--max-minutes", "0"], "--max-minutes"),
        (["train", "recipe.yaml", "--data", "digit"], "did you mean 'digits'"),
        (["train", "recipe.yaml", "--out", "models.py"], "is a file"),
        (["train", "recipe.yaml", "--out", "nothing-yet", "--resume"], "nothing-yet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake(ghnq: Cli, models: Path, tiny_checkpoint: Path, words: list[str], says: str) -> None:
    folder = models.parent
    (folder / "empty").mkdir()
    (folder / "pickled.pt").write_bytes(b"\x80\x04N.")
    (folder / "program.pt2").write_bytes(b"PK")
    (folder / "recipe.yaml").write_text("name: tiny\ndata: digits\nsteps: 2\n")
    (folder / "quiet.yaml").write_text("scheme: w8a8\nsteps: [correct_bias]\n")
    before = sorted(folder.rglob("*"))

    call = ghnq(*[str(tiny_checkpoint) if word == "CKPT" else word for word in words])

    assert call.code == 2
    assert says in " ".join(call.err.replace("│", " ").split())
    assert "Traceback" not in call.err
    assert len(call.err.splitlines()) <= LONGEST_SCREEN
    # What the user's own file prints is the user's.
    assert call.out.replace("the file is imported\n", "").replace("the model is made\n", "") == ""
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == before


def test_truncated_and_foreign_weights(ghnq: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    weights = (tiny_checkpoint / "model.safetensors").read_bytes()
    for name, content in [("truncated", weights[: len(weights) // 2]), ("pickled", b"\x80\x04N."), ("none", b"")]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
        (folder / "model.safetensors").write_bytes(content)
        call = ghnq("evaluate", folder, "--limit", 1)
        assert (call.code, call.out) == (2, "")
        assert str(folder) in call.err
        assert "Traceback" not in call.err
