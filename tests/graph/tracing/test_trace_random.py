"""Random networks: the traced graph equals the one read from PyTorch's autograd graph, however the module is held."""

from __future__ import annotations

import copy

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from ghnq.graph import ArchGraph, trace
from ghnq.hypernet import GHN, GHNConfig
from tests.graph.random_networks import OPS, Program, programs
from tests.graph.tracing.autograd_oracle import graph_of
from tests.graph.tracing.isomorphism import labelled, same_up_to_numbers

SHAPE = (3, 8, 8)
torch.manual_seed(0)
GHN_OF_TESTS = GHN(GHNConfig(hidden=8, max_shape=(4, 5, 3, 3))).eval()
pytestmark = pytest.mark.filterwarnings("ignore::ghnq.errors.GhnqWarning")


@settings(max_examples=150)
@given(programs())
def test_the_graph_is_the_one_of_autograd(program: Program) -> None:
    expected = graph_of(program.eval(), torch.rand(2, *SHAPE))
    assert same_up_to_numbers(labelled(trace(program, SHAPE)), expected)


@settings(max_examples=40)
@given(programs())
def test_device_mode_and_repetition_do_not_change_the_graph(program: Program) -> None:
    graph = trace(program.train(), SHAPE)
    assert trace(program, SHAPE) == graph
    assert trace(program.eval(), SHAPE) == graph
    assert trace(copy.deepcopy(program).to("meta"), SHAPE) == graph
    assert hash(trace(program, SHAPE)) == hash(graph)


@settings(max_examples=60)
@given(programs())
def test_every_parameter_is_predicted(program: Program) -> None:
    graph = trace(program, SHAPE)
    with torch.no_grad():
        predicted = GHN_OF_TESTS.predict(graph)
    assert {n: p.shape for n, p in predicted.items()} == {n: p.shape for n, p in program.named_parameters()}
    assert all(bool(p.isfinite().all()) for p in predicted.values())


@settings(max_examples=40)
@given(programs(OPS))
def test_every_parameter_is_owned_once_and_every_shape_is_right(program: Program) -> None:
    graph = trace(program, SHAPE).validate()
    assert {p.name: p.shape for p in graph.parameters} == {n: tuple(p.shape) for n, p in program.named_parameters()}
    assert len(graph.parameters) == len({p.name for p in graph.parameters})
    outputs: dict[str, tuple[int, ...]] = {}
    multiply_adds = 0

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal multiply_adds
        if isinstance(module, nn.Conv2d | nn.Linear):
            multiply_adds += module.weight[0].numel() * out[0].numel()

    for name, module in program.named_modules():
        if not list(module.children()):
            module.register_forward_hook(count)
            module.register_forward_hook(
                lambda _, __, out, name=name: outputs.__setitem__(name, tuple(out.shape[1:]))  # type: ignore[misc]
            )
    program(torch.rand(2, *SHAPE))
    for parameter in graph.parameters:
        node = graph.nodes[parameter.node]
        assert node.output_shape == outputs[node.name]
    assert graph.multiply_adds == multiply_adds
    assert graph.num_outputs == program.head.out_features
    assert graph.num_parameters == sum(p.numel() for p in program.parameters())


@settings(max_examples=40)
@given(programs())
def test_distances_and_json(program: Program) -> None:
    graph = trace(program, SHAPE)
    lengths = dict(nx.all_pairs_shortest_path_length(nx.DiGraph(list(graph.edges))))
    distances = graph.distances()
    for u in range(len(graph)):
        for v in range(len(graph)):
            assert distances[u, v] == lengths[u].get(v, 0)
    assert graph.depth == nx.dag_longest_path_length(nx.DiGraph(list(graph.edges)))
    assert ArchGraph.from_json(graph.to_json()) == graph
