"""The traced graphs of the networks in `../shared/peers/ghn2` equal the ones that GHN-2's own code built of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx
import pytest
from safetensors.numpy import load_file

from ghnq.graph import OPS, ArchGraph, trace
from tests.graph.tracing.isomorphism import labelled, same_up_to_numbers

NETS = {"plainnet": "PlainNet", "resnet": "ResNet"}


@pytest.fixture(scope="module")
def folder(shared_dir: Path) -> Path:
    path = shared_dir / "peers" / "ghn2"
    if not path.is_dir():
        pytest.skip("needs ../shared/peers/ghn2, the graphs that the reference implementation built")
    return path


@pytest.fixture(scope="module")
def nets(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ghn2_nets", folder / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference(folder: Path, name: str) -> tuple[nx.DiGraph, dict[str, Any], dict[tuple[int, int], int]]:
    """The reference's graph labelled like ours, its description, and its real and virtual edges with their lengths."""
    about = json.loads((folder / f"{name}.json").read_text())
    arrays = load_file(folder / f"{name}.safetensors")
    lengths = {(int(u), int(v)): int(d) for u, v, d in arrays["graph/edges"]}
    owners = {row["node"]: row["param"] for row in about["parameter_nodes"] if "." in row["param"]}
    graph = nx.DiGraph()
    ops = list(OPS)
    for i, index in enumerate(arrays["graph/node_type"].tolist()):
        graph.add_node(i, label=(ops[index], owners.get(i, "")))
    graph.add_edges_from(edge for edge, length in lengths.items() if length == 1)
    return graph, about, lengths


@pytest.mark.parametrize("name", NETS)
def test_nodes_and_edges(folder: Path, nets: ModuleType, name: str) -> None:
    traced = trace(getattr(nets, NETS[name])(), (3, 32, 32))
    expected, about, _ = reference(folder, name)
    assert [expected.nodes[i]["label"][0] for i in range(len(expected))] == about["node_ops"]
    assert same_up_to_numbers(labelled(traced), expected)


def renumbering(traced: ArchGraph, expected: nx.DiGraph) -> dict[int, int]:
    matcher = nx.isomorphism.DiGraphMatcher(
        labelled(traced), expected, node_match=lambda a, b: a["label"] == b["label"]
    )
    assert matcher.is_isomorphic()
    return dict(matcher.mapping)


@pytest.mark.parametrize("name", NETS)
def test_virtual_edges(folder: Path, nets: ModuleType, name: str) -> None:
    traced = trace(getattr(nets, NETS[name])(), (3, 32, 32))
    expected, _, lengths = reference(folder, name)
    to = renumbering(traced, expected)
    distances = traced.distances()
    ours = {
        (to[u], to[v]): int(distances[u, v])
        for u in range(len(traced))
        for v in range(len(traced))
        if 0 < distances[u, v] <= 50
    }
    assert ours == lengths


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_the_classification_layer(folder: Path, nets: ModuleType, name: str) -> None:
    traced = trace(getattr(nets, NETS[name])(), (3, 32, 32))
    expected, about, _ = reference(folder, name)
    back = {v: u for u, v in renumbering(traced, expected).items()}
    roles = {p.name: p.role for p in traced.parameters}
    for row in about["parameter_nodes"]:
        shape = tuple(row["shape"]) + (1,) * (4 - len(row["shape"]))
        assert traced.nodes[back[row["node"]]].shape == shape
        assert (roles.get(row["param"]) == "class_weight") == row["last_weight"]
        assert (roles.get(row["param"]) == "class_bias") == row["last_bias"]
