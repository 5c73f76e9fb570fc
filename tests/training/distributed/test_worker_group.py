"""Runs of several processes: as one process would train, to the bit again, and ended together whatever happens."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ghnq.errors import TrainingError
from ghnq.runs.distributed.topology import Topology, launched_rank
from ghnq.training import Recipe
from ghnq.training.distributed.balance import assign_fixed, balance_by_cost
from ghnq.training.distributed.topology import choose_topology
from ghnq.training.recipe import dump_recipe, validate_recipe
from tests.training.conftest import TINY
from tests.training.runs import assert_same_run, die_and_resume, go, log, losses


@pytest.fixture
def pair() -> Recipe:
    return validate_recipe({**TINY, "workers": 2, "meta_batch": 4}, "pair")


def run_script(recipe: Recipe, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder that holds the recipe as `recipe.yaml`."""
    (folder / "script.py").write_text(text)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_repeat_to_the_bit_and_resume_to_the_bit(
    pair: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(pair, tmp_path / "a")
    die_and_resume(pair, tmp_path / "b", at_step=3, monkeypatch=monkeypatch)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_its_name(pair: Recipe, tmp_path: Path) -> None:
    done = run_script(
        pair,
        tmp_path,
        "import multiprocessing, os, signal, threading, time\n"
        "from pathlib import Path\n"
        "from ghnq.training import load_recipe, train\n"
        "def kill():\n"
        "    while not Path('run/log.jsonl').exists() or not Path('run/log.jsonl').read_text():\n"
        "        time.sleep(0.05)\n"
        "    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=kill, daemon=True).start()\n"
        "    train(load_recipe('recipe.yaml', ['steps=100000']), out=Path('run'))\n",
    )
    assert done.returncode == 1
    assert "a training process is gone; resume the run with --resume" in done.stderr


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told(pair: Recipe, tmp_path: Path) -> None:
    done = run_script(
        pair,
        tmp_path,
        "from pathlib import Path\nfrom ghnq.training import load_recipe, train\n"
        "train(load_recipe('recipe.yaml'), out=Path('run'))\n",
    )
    assert done.returncode == 1
    assert "needs `if __name__ == '__main__':`" in done.stderr


def assert_same_curve(a: Path, b: Path) -> None:
    """Losses equal up to rounding; the norm of the gradient rests on differences, and has fewer digits."""
    assert [s for s, _ in losses(a)] == [s for s, _ in losses(b)]
    assert [x for _, x in losses(a)] == pytest.approx([x for _, x in losses(b)], rel=1e-5)
    norms = [[line["gradient_norm"] for line in log(out) if "loss" in line][:3] for out in (a, b)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


@pytest.fixture
def gentle() -> Recipe:
    """Steps so small, and batches so large, that rounding has not grown to be seen when the run ends."""
    changes = {"meta_batch": 5, "batch_size": 32, "steps": 10, "schedule": {"warmup": 1000}}
    return validate_recipe({**TINY, **changes}, "gentle")


@pytest.mark.slow
@pytest.mark.parametrize("share_images", [False, True])
def test_two_processes_give_the_curve_of_one(gentle: Recipe, tmp_path: Path, share_images: bool) -> None:
    recipe = gentle.model_copy(update={"share_images": share_images})
    go(recipe, tmp_path / "one")
    go(recipe, tmp_path / "two", devices=2)
    assert_same_curve(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_gives_the_curve_of_one(gentle: Recipe, tmp_path: Path) -> None:
    go(gentle, tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(gentle))
    done = subprocess.run(torchrun("--out", "two"), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint:") == 1
    assert_same_curve(tmp_path / "one", tmp_path / "two")


def torchrun(*words: str) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*start, "-m", "ghnq", "train", "recipe.yaml", *words]


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_a_state_to_resume_from(gentle: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(gentle.model_copy(update={"steps": 100_000})))
    process = subprocess.Popen(torchrun("--out", "run"), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() or len(losses(tmp_path / "run")) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert "Interrupted; the run is saved" in err
    trained = losses(tmp_path / "run")[-1][0]
    [state] = (tmp_path / "run").glob("state.safetensors")
    assert json.loads(state_metadata(state)["progress"])["step"] == trained


def state_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_two_processes_with_a_state(pair: Recipe, tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(pair.model_copy(update={"steps": 100_000})))
    words = [sys.executable, "-m", "ghnq", "train", "recipe.yaml", "--out", "run", "--devices", "2"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() or len(losses(tmp_path / "run")) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "--resume --devices 2" in err
    assert (tmp_path / "run" / "state.safetensors").exists()


@pytest.mark.slow
def test_the_others_end_when_the_first_is_gone(pair: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(pair.model_copy(update={"steps": 100_000})))
    words = [sys.executable, "-m", "ghnq", "train", "recipe.yaml", "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() or len(losses(tmp_path / "run")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    others = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert others
    process.kill()
    process.wait()
    while any(running(pid) for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_number_of_processes_may_change_on_a_resume(tiny: Recipe, tmp_path: Path) -> None:
    go(tiny, tmp_path / "run")
    go(tiny.model_copy(update={"workers": 2}), tmp_path / "run", resume=True, devices=1)


class TestPlace:
    """Which place a recipe, --devices and the machine come to."""

    def test_workers_on_the_cpu_and_one_cuda_device(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = tiny.model_copy(update={"workers": 2})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_topology(recipe, None) == Topology("cpu", world_size=2, local_world_size=2)
        assert choose_topology(recipe, 1) == Topology("cpu", world_size=1, local_world_size=1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose_topology(recipe, None) == Topology("cuda", world_size=1, local_world_size=1)
        assert choose_topology(recipe, 2) == Topology("cuda", world_size=2, local_world_size=2)
        assert choose_topology(recipe.model_copy(update={"device": "cpu"}), None).device_type == "cpu"

    @pytest.mark.parametrize(
        ("found", "devices", "message"),
        [
            (0, None, "asks for 1 CUDA devices, and PyTorch finds no CUDA device here; take device=cpu"),
            (2, 3, "asks for 3 CUDA devices, and PyTorch finds 2 CUDA devices here; take --devices 2 or fewer"),
        ],
    )
    def test_cuda_devices_that_are_not_there(
        self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch, found: int, devices: int | None, message: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
        with pytest.raises(TrainingError, match=message):
            choose_topology(tiny.model_copy(update={"device": "cuda", "meta_batch": 8}), devices)

    def test_more_processes_than_networks(self, tiny: Recipe, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="meta_batch 2 is fewer than 3 processes"):
            go(tiny.model_copy(update={"device": "cpu"}), tmp_path / "run", devices=3)
        assert not (tmp_path / "run").exists()

    def test_no_processes(self, tiny: Recipe) -> None:
        with pytest.raises(TrainingError, match="--devices is 0"):
            choose_topology(tiny, 0)

    def test_processes_that_share_a_cuda_device(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        recipe = tiny.model_copy(update={"cuda_workers": 3, "meta_batch": 6})
        place = choose_topology(recipe, 2)
        assert place == Topology("cuda", world_size=6, local_world_size=6, processes_per_device=3)
        assert place.backend == "gloo"  # NCCL refuses two processes on one device
        devices = [replace(place, rank=rank, local_rank=rank).device.index for rank in range(6)]
        assert devices == [0, 0, 0, 1, 1, 1]
        assert choose_topology(recipe.model_copy(update={"cuda_workers": 1}), 2).backend == "nccl"
        with pytest.raises(TrainingError, match="PyTorch finds 2 CUDA devices"):
            choose_topology(recipe.model_copy(update={"meta_batch": 9}), 3)
        with pytest.raises(TrainingError, match=r"fewer than 9 processes.* take fewer cuda_workers"):
            choose_topology(recipe.model_copy(update={"cuda_workers": 9}), 1)

    def test_what_is_for_cuda_changes_nothing_on_the_cpu(self, tiny: Recipe, tmp_path: Path) -> None:
        recipe = tiny.model_copy(update={"device": "cpu"})
        go(recipe, tmp_path / "a")
        go(recipe.model_copy(update={"cuda_workers": 4, "cuda_graphs": True}), tmp_path / "b")
        assert losses(tmp_path / "a") == losses(tmp_path / "b")

    def test_torchrun_decides(self, tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        numbers = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "RANK": 3, "LOCAL_RANK": 1}
        for name, value in numbers.items():
            monkeypatch.setenv(name, str(value))
        recipe = tiny.model_copy(update={"device": "cpu", "meta_batch": 4})
        assert choose_topology(recipe, None) == Topology(
            "cpu", world_size=4, local_world_size=2, rank=3, local_rank=1, by_torchrun=True
        )
        assert launched_rank() == 3
        with pytest.raises(TrainingError, match="--devices is 4, but torchrun has started 2"):
            choose_topology(recipe, 4)


class TestSpread:
    """Which process trains which network."""

    @pytest.mark.parametrize("ranks", [1, 2, 3, 5])
    def test_none_is_idle_and_none_has_much_more_than_another(self, ranks: int) -> None:
        generator = torch.Generator().manual_seed(ranks)
        for _ in range(50):
            costs = torch.rand(ranks + 4, generator=generator).add(0.01).tolist()
            owners = balance_by_cost(costs, ranks)
            loads = [sum(e for e, o in zip(costs, owners, strict=True) if o == rank) for rank in range(ranks)]
            assert min(loads) > 0
            assert max(loads) <= max(4 / 3 * sum(costs) / ranks + 1e-9, *costs) + max(costs) * (ranks > 2) / 3

    def test_an_architecture_has_one_home(self) -> None:
        assert assign_fixed([7, 4, 9, 1, 3], 2) == [1, 0, 1, 1, 1]
        assert assign_fixed([8, 2, 4, 6], 2) == [0, 0, 0, 1]  # none is idle
        rng = np.random.default_rng(0)
        for ranks in (1, 2, 5, 16):
            for _ in range(100):
                indices = rng.choice(1000, 16, replace=False).tolist()
                owners = assign_fixed(indices, ranks)
                assert set(owners) == set(range(ranks))
                moved = sum(owner != index % ranks for owner, index in zip(owners, indices, strict=True))
                assert moved == ranks - len({index % ranks for index in indices})

    def test_longest_first(self) -> None:
        assert balance_by_cost([1, 9, 5, 5], 2) == [0, 0, 1, 1]


def test_bf16_trains(tiny: Recipe, tmp_path: Path) -> None:
    """Figures differ from those in float32, by little; weights and state stay in float32."""
    go(tiny, tmp_path / "a")
    go(tiny.model_copy(update={"precision": "bf16"}), tmp_path / "b")
    (_, wide), (_, narrow) = losses(tmp_path / "a")[0], losses(tmp_path / "b")[0]
    assert wide != narrow
    assert narrow == pytest.approx(wide, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("encoder", ["gatedgnn", "graphormer", "mlp"])
def test_a_cuda_device_gives_the_curve_of_the_cpu(gentle: Recipe, tmp_path: Path, encoder: str) -> None:
    hypernet: Any = gentle.hypernet.model_copy(update={"encoder": encoder})
    for device in ("cpu", "cuda"):
        recipe = gentle.model_copy(update={"device": device, "hypernet": hypernet, "steps": 3})
        go(recipe, tmp_path / device)
    expected = [x for _, x in losses(tmp_path / "cpu")]
    assert [x for _, x in losses(tmp_path / "cuda")] == pytest.approx(expected, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [{"cuda_workers": 2}, {"cuda_graphs": True, "reuse": 3}])
def test_sharing_a_cuda_device_or_recording_changes_nothing(
    gentle: Recipe, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = gentle.model_copy(update={"device": "cuda", "reuse": changes.get("reuse", gentle.reuse)})
    go(recipe, tmp_path / "a")
    go(recipe.model_copy(update=changes), tmp_path / "b")
    expected = [x for _, x in losses(tmp_path / "a")]
    assert [x for _, x in losses(tmp_path / "b")] == pytest.approx(expected, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_cuda_devices_give_the_curve_of_one(gentle: Recipe, tmp_path: Path) -> None:
    recipe = gentle.model_copy(update={"device": "cuda", "steps": 3})
    go(recipe, tmp_path / "one")
    go(recipe, tmp_path / "two", devices=2)
    expected = [x for _, x in losses(tmp_path / "one")]
    assert [x for _, x in losses(tmp_path / "two")] == pytest.approx(expected, rel=1e-3)
