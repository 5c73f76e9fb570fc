"""A real cluster of Ray on this machine: two nodes, one of which dies in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ghnq.errors import GhnqError
from ghnq.evaluation import evaluate
from ghnq.evaluation.engine import Processes, engine_of
from ghnq.evaluation.ray_cluster import RayCluster
from ghnq.hypernet import GHN
from ghnq.prediction import dataset_for

pytestmark = [
    pytest.mark.slow,
    # Of Ray itself, when it starts processes and closes its sockets.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MEMORY = 200_000_000
NETS = """
from torch import nn

def Small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one core each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
        made.add_node(num_cpus=1, object_store_memory=MEMORY)
        ray.init(address=made.address, log_to_driver=False)
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def square(task: int) -> int:
    return task * task


def slow_square(task: int) -> int:
    time.sleep(0.2)
    return task * task


def fails(task: int) -> int:
    raise KeyError(f"task {task}")


def test_results_are_those_of_one_process(cluster: Any) -> None:
    engine = RayCluster(cluster.address)
    assert engine.slots() == 2
    assert sorted(engine.run(square, range(50))) == sorted(Processes(1).run(square, range(50)))
    assert list(engine.run(square, [])) == []


def test_an_exception_of_the_function_arrives_as_it_is(cluster: Any) -> None:
    with pytest.raises(KeyError, match="task 3"):
        list(RayCluster(cluster.address).run(fails, [3]))


def test_closing_it_stops_what_runs(cluster: Any) -> None:
    results = RayCluster(cluster.address).run(slow_square, range(1000))
    assert next(results) in {n * n for n in range(10)}
    results.close()
    assert list(RayCluster(cluster.address).run(square, [7])) == [49]


def test_another_version_on_a_node_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghnq.evaluation.ray_cluster.__version__", "0.0.1")
    with pytest.raises(GhnqError, match=r"a node of the cluster has ghnq .*, and this process ghnq 0\.0\.1"):
        list(RayCluster(cluster.address).run(square, [1]))


def test_a_node_that_dies_changes_no_result(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    killer = threading.Timer(1.5, lambda: cluster.remove_node(node, allow_graceful=False))
    killer.start()
    try:
        found = list(RayCluster(cluster.address).run(slow_square, range(60)))
    finally:
        killer.join()
    assert sorted(found) == [n * n for n in range(60)]


def test_a_table_of_the_cluster_is_that_of_one_process(cluster: Any, tmp_path: Path) -> None:
    """Bit for bit, while a node dies in the middle."""
    ghn = GHN.from_pretrained("digits")
    dataset = dataset_for(ghn, None)
    options: dict[str, Any] = {
        "checkpoint": "digits", "splits": ("val",), "schemes": ("float32", "w4a8"), "limit": 8, "images": 60,
    }  # fmt: skip
    alone = evaluate(ghn, dataset, workers=1, **options)
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    seen = 0

    def progress(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if done == 3:
            cluster.remove_node(node, allow_graceful=False)

    on_cluster = evaluate(ghn, dataset, cluster=cluster.address, out=tmp_path, progress=progress, **options)
    assert seen >= 8
    assert on_cluster.table == alone.table


def test_a_ranking_on_the_cluster_is_that_of_one_process(cluster: Any, tmp_path: Path) -> None:
    """Also of a file of the user's, which workers import by its name."""
    (tmp_path / "nets.py").write_text(NETS)
    command = [sys.executable, "-m", "ghnq", "rank", "convnets/val", f"{tmp_path}/nets.py:Small", "--n", "3"]
    command += ["--by", "accuracy", "--images", "40", "--scheme", "w4a8", "--json"]
    documents = []
    for engine in (["--workers", "1"], ["--cluster", cluster.address]):
        done = subprocess.run([*command, *engine], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
    assert documents[0]["rows"] == documents[1]["rows"]
    assert len(documents[0]["rows"]) == 4
    assert not documents[1]["failed"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "refused"),
        ("ray://127.0.0.1:1", "refused"),
        ("nonsense", "Invalid address"),
    ],
)  # fmt: skip
def test_addresses_that_lead_nowhere(address: str, reason: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ghnq", "evaluate", "digits", "--limit", "1", "--cluster", address]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"RAY_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"the cluster '{address}' cannot be reached" in said
    assert reason in said


def test_one_of_the_two_options() -> None:
    assert engine_of(None, 3) == Processes(3)
    with pytest.raises(GhnqError, match="give one of the two"):
        engine_of("auto", 2)
