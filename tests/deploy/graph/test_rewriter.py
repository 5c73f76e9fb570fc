"""Graphs are built and rewritten without changing the original; every tensor that a graph computes is visited."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from ghnq.deploy.graph.capture import capture
from ghnq.deploy.graph.rewriter import GraphBuilder, GraphRewriter, node_argument, visit_tensors
from ghnq.deploy.graph.supported_ops import aten
from tests.deploy.nets import CALIBRATION, NETS, TEST


def run(module: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(TEST)
    return result


@pytest.mark.parametrize("name", NETS)
def test_by_default_a_graph_is_rewritten_as_it_is(name: str) -> None:
    graph = capture(NETS[name](), CALIBRATION)
    before = str(graph.graph)

    rewritten = GraphRewriter(graph).rewrite("Copy")

    assert type(rewritten).__name__ == "Copy"
    assert str(graph.graph) == before
    assert [node.target for node in rewritten.graph.nodes if node.op == "call_function"] == [
        node.target for node in graph.graph.nodes if node.op == "call_function"
    ]
    assert dict(rewritten.named_buffers()).keys() == dict(graph.named_buffers()).keys()
    torch.testing.assert_close(run(rewritten), run(graph), rtol=0, atol=0)


def test_a_subclass_replaces_calls_and_leaves_nodes_out() -> None:
    class ReluToTanh(GraphRewriter):
        def call_node(self, node: fx.Node) -> fx.Node | None:
            if node.target is aten.relu.default:
                return self.new.call(aten.tanh.default, self.value(node_argument(node)), like=node)
            if node.target is aten.clamp.default:
                return self.value(node_argument(node))
            return super().call_node(node)

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU6()).eval()
    rewritten = ReluToTanh(capture(network, CALIBRATION)).rewrite()
    expected = nn.Sequential(network[0], network[1], nn.Tanh(), network[3])
    torch.testing.assert_close(run(rewritten), run(expected))


def test_errors_of_a_rule_keep_their_class_and_message() -> None:
    class Failing(GraphRewriter):
        def call_node(self, node: fx.Node) -> fx.Node | None:
            raise KeyError("this one")

    with pytest.raises(KeyError, match=r"^'this one'$"):
        Failing(capture(NETS["chain"](), CALIBRATION)).rewrite()


def test_constants_of_one_name_are_shared_if_they_are_identical() -> None:
    builder = GraphBuilder()
    one, other = torch.ones(2), torch.ones(2, dtype=torch.float64)
    names = [
        builder.constant("a.b", one).target,
        builder.constant("a.b", one.clone()).target,
        builder.constant("a.b", other).target,
        builder.constant("a_b", torch.zeros(2)).target,
        builder.constant("a_b", one, shared=False).target,
    ]
    assert names == ["a_b", "a_b", "a_b_", "a_b__", "a_b___"]
    builder.graph.output(builder.constant("a_b", other))
    assert [(name, tensor.dtype) for name, tensor in builder.module().named_buffers()] == [
        ("a_b", torch.float32), ("a_b_", torch.float64), ("a_b__", torch.float32), ("a_b___", torch.float32),
    ]  # fmt: skip


def test_a_module_has_only_the_tensors_that_its_graph_reads() -> None:
    builder = GraphBuilder()
    images = builder.graph.placeholder("images")
    builder.constant("unused", torch.ones(1))
    builder.graph.output(builder.call(aten.mul.Tensor, images, builder.constant("used", torch.full((1,), 2.0))))
    builder.graph.eliminate_dead_code()
    module = builder.module()
    assert [name for name, _ in module.named_buffers()] == ["used"]
    torch.testing.assert_close(run(module), 2 * TEST)


def test_every_tensor_is_visited_in_every_batch() -> None:
    graph = capture(NETS["branches"](), CALIBRATION)
    seen: list[tuple[str, int]] = []

    visit_tensors(graph, TEST[:5].split(3), lambda node, tensor: seen.append((node.name, len(tensor))))

    names = [node.name for node in graph.graph.nodes]
    assert [name for name, _ in seen] == 2 * names
    assert [size for name, size in seen if name == "images"] == [3, 2]
