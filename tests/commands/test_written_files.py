"""What commands write: names and hashes instead of the user's paths, and rates in percent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from ghnq.data import load
from ghnq.errors import GhnqWarning
from ghnq.runs.tensor_file import read_tensors, write_tensors
from ghnq.training.run.state import FORMAT
from tests.commands.conftest import Call, Cli

from ..torch_versions import needs_program_files
from .test_score import NETS

PRIVATE = "Private-4711"
HOLDOUT = ("--holdout", "0.25")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Path:
    """A folder that nothing may be told about: images, a model, a checkpoint, a scheme file, and a recipe."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / PRIVATE
    digits = load("digits")
    for number in range(10):
        for count, index in enumerate(torch.nonzero(digits.train.labels == number).flatten()[:24].tolist()):
            file = folder / "photos" / str(number) / f"{count}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.train.pixels[index, 0].numpy()).save(file)
    (folder / "nets.py").write_text(NETS)
    (folder / "mine.yaml").write_text("scheme: w4a8\noverrides: {head: w8a8}\n")
    (folder / "tiny.yaml").write_text(
        f"name: tiny\ndata: {folder / 'photos'}\ninit: {folder / 'ghn'}\nsteps: 2\nmeta_batch: 2\nbatch_size: 4\n"
        "validation: {architectures: 1, images: 10, calibration: 16, every: 2}\nsave_every: 1\nlog_every: 1\n"
        "workers: 1\ndevice: cpu\n"
    )
    shutil.copytree(tiny_checkpoint, folder / "ghn")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def check_secrecy(folder: Path) -> list[Path]:
    """Looks for the private folder in all files, byte by byte, and in the tables; returns the files."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert PRIVATE not in str(file.relative_to(folder))
        assert PRIVATE.encode() not in file.read_bytes(), file
        if file.suffix == ".html":
            packed = re.findall(rb"[A-Za-z0-9+/=]{200,}", file.read_bytes())
            texts = [zlib.decompress(base64.b64decode(each)) for each in packed if each.startswith(b"eN")]
            assert texts or file.name == "net.html"
            assert not any(PRIVATE.encode() in text for text in texts), file
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            assert PRIVATE not in f"{table.schema.metadata} {table.to_pylist()}"
    return files


def header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def photos_hash(home: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GhnqWarning)
        return load(home / "photos", holdout=0.25).content_hash


def as_earlier_versions_stored_it(state: Path, data: str) -> None:
    """Puts the path of the data, as typed, into a training state, and takes out how they were read."""
    tensors, about = read_tensors(state, FORMAT, ())
    for key in ("recipe", "task"):
        about[key] = json.dumps({**json.loads(about[key]), "data": data, "read_options": None})
    recipe = json.loads(about["recipe"])
    del recipe["read_options"]
    about["recipe"] = json.dumps(recipe)
    write_tensors(state, tensors, about)


def succeed(call: Call) -> Call:
    assert call.code == 0, call.err
    return call


def test_predicted_weights(ghnq: Cli, home: Path) -> None:
    model, out = f"{home / 'nets.py'}:Digits", Path("out")
    words = ["predict", model, "--checkpoint", home / "ghn"]
    succeed(ghnq(*words, "--out", out / "plain.safetensors"))
    call = succeed(ghnq(*words, "--data", home / "photos", *HOLDOUT, "--out", out / "p.safetensors", "--json"))
    check_secrecy(out)
    about = header(out / "p.safetensors")
    assert (about["model"], about["checkpoint"], about["data"]) == ("nets.py:Digits", "ghn", "photos")
    assert about["data_sha256"] == photos_hash(home)
    sha256 = hashlib.sha256((home / "ghn" / "model.safetensors").read_bytes()).hexdigest()
    assert about["checkpoint_sha256"] == header(out / "plain.safetensors")["checkpoint_sha256"] == sha256
    assert json.loads(about["read_options"]) == {"holdout": 0.25}
    assert json.loads(call.out)["data"] == "photos"


@needs_program_files
def test_exported_files(ghnq: Cli, home: Path) -> None:
    out = Path("out")
    for name in ("net.onnx", "net.pt2"):
        words = ["export", f"{home / 'nets.py'}:Digits", "--checkpoint", home / "ghn", "--data", home / "photos"]
        call = succeed(
            ghnq(*words, *HOLDOUT, "--scheme", home / "mine.yaml", "--calibration", 64, "--out", out / name, "--json")
        )
        document = json.loads(call.out)
        assert (document["model"], document["checkpoint"]) == ("nets.py:Digits", "ghn")
        assert (document["data"], document["data_sha256"]) == ("photos", photos_hash(home))
    shutil.copy(out / "net.onnx", home / "net.onnx")
    succeed(ghnq("profile", home / "net.onnx", "--repeats", 2, "--out", out / "profile"))
    check_secrecy(out)
    for name in ("net.onnx", "net.pt2"):
        call = succeed(ghnq("verify", out / name, "--data", home / "photos", "--json"))
        document = json.loads(call.out)
        assert document["facts"]["origin"]["read_options"] == {"holdout": 0.25}
        assert not any("other images" in each for each in document["warnings"])  # read as for the calibration
        assert document["images"] == 60
        rates = document if name == "net.onnx" else {**document, **document["eager"]}
        assert rates["agreement"] == 100
        assert rates["accuracy_simulation"] * 60 / 100 == pytest.approx(round(rates["accuracy_simulation"] * 60 / 100))
        call = ghnq("verify", out / name)
        assert call.code == 2
        assert "was made with 'photos', and there is no such folder here; give the images with --data" in call.err


@pytest.mark.slow
def test_studies(ghnq: Cli, home: Path) -> None:
    model, out = f"{home / 'nets.py'}:Digits", Path("out")
    source = ["--checkpoint", home / "ghn", "--data", home / "photos", *HOLDOUT]
    scored = succeed(
        ghnq("score", model, *source, "--schemes", f"float32,{home / 'mine.yaml'}", "--out", out / "scores", "--json")
    )
    succeed(ghnq("sensitivity", model, *source, "--images", 20, "--out", out / "s.html"))
    succeed(ghnq("mixed", model, *source, "--budget-bits", 5, "--images", 20, "--out", out / "m.yaml"))
    succeed(ghnq("sensitivity", model, *source, "--images", 20, "--out", out.absolute() / "sensitivity"))
    succeed(ghnq("mixed", model, *source, "--budget-bits", 5, "--images", 20, "--out", home / "studies" / "mixed"))
    shutil.copytree(home / "studies" / "mixed", out / "mixed")
    shutil.copytree(home / "studies" / "mixed", home / "studies" / "damaged")
    (home / "studies" / "damaged" / "mixed.json").write_text("{")
    told = succeed(ghnq("report", home / "studies", out / "scores", "--out", out / "page.html")).err
    assert "left out" in told
    succeed(ghnq("draw", model, "-o", out / "net.html", "--input-shape", "1,8,8"))
    check_secrecy(out)
    document = json.loads(scored.out)
    summary = json.loads((out / "scores" / "summary.json").read_text())
    for each in (document, summary):
        assert (each["checkpoint"], each["data"], each["rows"][0]["model"]) == ("ghn", "photos", "nets.py:Digits")
        assert each["read_options"] == {"holdout": 0.25}


@pytest.mark.slow
def test_evaluations(ghnq: Cli, home: Path) -> None:
    words = ["evaluate", home / "ghn", "--data", home / "photos", *HOLDOUT, "--limit", 2, "--schemes", "float32,w4a8"]
    call = succeed(ghnq(*words, "--out", "out", "--json"))
    names = {file.name for file in check_secrecy(Path("out"))}
    assert {"rows.jsonl", "results.parquet", "summary.json", "command.json", "report.html"} <= names
    document = json.loads(call.out)
    assert (document["checkpoint"], document["data"]) == ("ghn", "photos")
    shutil.move(home / "photos", home / "pictures")
    shutil.move(home / "ghn", home / "other")
    words[1], words[3] = home / "other", home / "pictures"
    again = succeed(ghnq(*words, "--out", "out", "--json"))  # the same content, by other names
    assert json.loads(again.out)["rows"] == document["rows"]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(home / "pictures" / "0" / "0.png")
    other = ghnq(*words, "--out", "out", "--json")
    assert other.code == 2
    assert "holds another evaluation: data_hash was" in other.err


@pytest.mark.slow
def test_fine_tuning(ghnq: Cli, home: Path) -> None:
    model, out = f"{home / 'nets.py'}:Digits", Path("out")
    data = ["--data", home / "photos", *HOLDOUT]
    words = ["finetune", model, "--init", home / "ghn", *data, "--scheme", home / "mine.yaml", "--epochs", 0.5,
             "--lr", 0.05]  # fmt: skip
    succeed(ghnq(*words, "--out", out / "a"))
    shutil.copytree(out / "a", home / "a")
    teacher = f"{model}@{home / 'a' / 'weights.safetensors'}"
    further = ["finetune", model, "--weights", home / "a", "--data", home / "photos", "--epochs", 0.5, "--lr", 0.01,
               "--teacher", teacher]  # fmt: skip
    call = succeed(ghnq(*further, "--out", out / "b", "--json"))
    assert not any("other images" in warning for warning in json.loads(call.out)["warnings"])  # the hold-out is reused
    check_secrecy(out)
    result = json.loads((out / "b" / "result.json").read_text())
    sha256 = hashlib.sha256((home / "a" / "weights.safetensors").read_bytes()).hexdigest()
    assert (result["model"], result["weights_sha256"]) == ("nets.py:Digits", sha256)
    assert (result["data"], result["data_sha256"]) == ("photos", photos_hash(home))
    assert result["read_options"] == {"holdout": 0.25}

    shutil.move(home / "photos", home / "pictures")
    shutil.move(home / "ghn", home / "other")
    words[3], words[5] = home / "other", home / "pictures"
    succeed(ghnq(*words, "--out", out / "a", "--resume"))  # the same content, by other names
    words[7] = 0.5
    changed = ghnq(*words, "--out", out / "a", "--resume")
    assert changed.code == 2
    assert "how they are read (was --holdout 0.25, now --holdout 0.5)" in changed.err


@pytest.mark.slow
def test_training(ghnq: Cli, home: Path) -> None:
    out = Path("out")
    succeed(ghnq("train", home / "tiny.yaml", *HOLDOUT, "--out", out))
    check_secrecy(out)
    task = json.loads((out / "best" / "config.json").read_text())["task"]
    assert (task["data"], task["data_sha256"]) == ("photos", photos_hash(home))
    assert task["read_options"] == {"holdout": 0.25}
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any(line.get("val/accuracy", 0) > 1 for line in lines)  # percent
    shutil.move(home / "photos", home / "pictures")
    words = ["train", home / "tiny.yaml", "--data", home / "pictures", "--out", out, "--resume"]
    succeed(ghnq(*words, *HOLDOUT))
    check_secrecy(out)
    as_earlier_versions_stored_it(out / "state.safetensors", str(home / "photos"))
    succeed(ghnq(*words, *HOLDOUT))
    for options, message in (([], "holdout (was 0.25, now None)"), (["--holdout", 0.5], "holdout (was 0.25, now 0.5)")):
        call = ghnq(*words, *options)
        assert call.code == 2
        assert message in call.err
