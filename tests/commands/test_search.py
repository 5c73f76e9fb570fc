"""`ghnq search`: what it prints and writes, that it goes on where it was stopped, what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from ghnq.search.loop import EVALUATED
from ghnq.search.study import STUDY_NAME, open_storage
from ghnq.spaces.spec_file import read_spec_file

from .conftest import Cli

QUICK = ("--scheme", "w4a8", "--images", 40, "--workers", 1)


def test_the_document_the_study_and_the_next_commands(ghnq: Cli, tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "found"
    call = ghnq("search", *QUICK, "--checkpoint", tiny_checkpoint, "--trials", 3, "--out", out, "--json")
    assert call.code == 0, call.err
    document = json.loads(call.out)
    assert json.loads((out / "search.json").read_text()) == document
    assert document["trials"] == 3
    assert document["objectives"] == ["accuracy", "macs"]
    assert "chance" in document["worth"][0]
    study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(None, out))
    done = [trial.values for trial in study.trials if trial.user_attrs.get(EVALUATED)]
    assert len(done) == 3
    for row in document["front"]:
        assert [row["accuracy"], row["macs"]] in done
        space, spec = read_spec_file(out / "front" / row["file"])
        assert (space.name, spec.structure_hash) == ("convnets", row["structure_hash"])
        assert not any(
            a >= row["accuracy"] and m <= row["macs"] and [a, m] != [row["accuracy"], row["macs"]] for a, m in done
        )
    rank, finetune = (shlex.split(command) for command in document["next"])
    assert rank[1] == "rank"
    assert ghnq(*rank[1:], "--by", "macs", "--images", 40).code == 0
    assert Path(finetune[2]).is_file()

    again = ("search", *QUICK, "--checkpoint", tiny_checkpoint, "--out", out)
    refused = ghnq(*again, "--trials", 4)
    assert (refused.code, "--resume" in refused.err) == (2, True)
    assert json.loads(ghnq(*again, "--trials", 4, "--resume", "--json").out)["trials"] == 4
    other = ghnq(*again, "--trials", 4, "--resume", "--objectives", "accuracy,bytes")
    assert other.code == 2
    assert "whose objectives is accuracy,macs, not accuracy,bytes" in other.err


@pytest.mark.slow
def test_an_interrupted_search_goes_on(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "found"
    command = [sys.executable, "-m", "ghnq", "search", *map(str, QUICK), "--checkpoint", str(tiny_checkpoint)]
    command += ["--trials", "500", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and _evaluated(out) < 2:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed = "".join(process.communicate(timeout=60))
    assert process.returncode == 130
    assert "trials are kept in" in " ".join(printed.split())
    before = _evaluated(out)
    assert before >= 2
    command[command.index("500")] = str(before + 1)
    assert subprocess.run([*command, "--resume"], check=False, capture_output=True).returncode == 0
    assert _evaluated(out) == before + 1


def _evaluated(folder: Path) -> int:
    if not (folder / "study.journal").is_file():
        return 0
    try:
        study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(None, folder))
    except KeyError:  # the file is there, the study is not yet
        return 0
    return sum(bool(trial.user_attrs.get(EVALUATED)) for trial in study.trials)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sampler", "nsga3"], "nsga2"),
        (["--objectives", "acuracy"], "did you mean 'accuracy'"),
        (["--objectives", "macs,macs"], "more than once"),
        (["--space", "convnet"], "convnets"),
        (["--by", "macs"], "no accuracy of a network"),
        (["--by", "fitted"], "give accuracy, loss, finetune or train"),
        (["--by", "acc"], "--by takes"),
        (["--trials", 0], "--trials is 0"),
        (["--images", 0], "--images is 0"),
        (["--minutes", "nan", "--by", "finetune"], "--minutes is nan"),
        (["--scheme", "w4a8,w8a8"], "a search is for one scheme"),
        (["--max-macs", 0], "--max-macs 0 leaves no candidate"),
        (["--storage", "postgresql://nobody@127.0.0.1:1/none"], "cannot be used"),
    ],
)
def test_what_is_refused(ghnq: Cli, tmp_path: Path, tiny_checkpoint: Path, options: list[object], said: str) -> None:
    call = ghnq("search", *QUICK, "--checkpoint", tiny_checkpoint, "--out", tmp_path / "x", "--trials", 2, *options)
    assert call.code == 2
    assert said in " ".join(call.err.split())
