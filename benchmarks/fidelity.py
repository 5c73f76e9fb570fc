"""Claim: graphs and, from equal weights, all predicted parameters are those of GHN-2's reference on random CNNs.

    python benchmarks/fidelity.py --ppuda PATH [--networks 60] [--seed 0] [--json]

Each network is traced by ghnq and built into a graph by the reference. The two number nodes differently (both in a
topological order), so a renumbering is looked for that keeps op and first parameter of every node, where nodes without
parameters are distinguished by their source; then node types, edges and virtual edges (pairs with a path of 2 to
50 edges, and its length) must be the same sets. After that both predict all parameters with the same random weights;
the difference is that of the largest element, relative to the tensor's largest. Exit code 1 where a kind that the
reference supports disagrees. For the kinds that it does not support it says below the table what happens instead.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import networkx as nx
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghnq.errors import GraphError
from ghnq.graph import OPS, ArchGraph, trace
from ghnq.graph.batching.batch import MAX_DISTANCE
from ghnq.hypernet.model import GHN, Parameters
from ghnq.hypernet.published_weights import from_published
from random_networks import KINDS, MIXED, UNSUPPORTED, network
from references import Reference, ghn2_config, load_ghn2, quiet

TOLERANCE = 1e-5
OP_NAMES = tuple(OPS)
Lengths = dict[tuple[int, int], int]


@dataclass
class Result:
    """What was found for the networks of one kind."""

    kind: str
    supported: bool
    networks: int = 0
    nodes: int = 0
    equal_graphs: int = 0
    predicted: int = 0
    largest_difference: float = 0.0
    disagreements: list[str] = field(default_factory=list)


def ours_as_networkx(graph: ArchGraph) -> tuple[nx.DiGraph, Lengths]:
    """The traced graph with labelled nodes, and its edges, virtual ones included, with their lengths."""
    first: dict[int, str] = {}
    for parameter in graph.parameters:
        first.setdefault(parameter.node, parameter.name)
    distances = graph.distances()
    pairs = zip(*distances.nonzero(), strict=True)
    lengths = {(int(u), int(v)): int(distances[u, v]) for u, v in pairs if distances[u, v] <= MAX_DISTANCE}
    return _networkx([node.op for node in graph.nodes], [first.get(i, "") for i in range(len(graph))], lengths), lengths


def theirs_as_networkx(graph: Any) -> tuple[nx.DiGraph, Lengths]:
    """The same of the reference's graph."""
    ops = [OP_NAMES[index] for index in graph.node_feat[:, 0].tolist()]
    owners = [node["param_name"] if node["module"] is not None else "" for node in graph._nodes]
    lengths = {(u, v): length for u, v, length in graph.edges.tolist()}
    return _networkx(ops, owners, lengths), lengths


def _networkx(ops: list[str], owners: list[str], lengths: Lengths) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from((i, {"op": op, "owner": owner}) for i, (op, owner) in enumerate(zip(ops, owners, strict=True)))
    graph.add_edges_from(edge for edge, length in lengths.items() if length == 1)
    return graph


def renumbering(left: nx.DiGraph, right: nx.DiGraph) -> dict[int, int] | None:
    """From the nodes of one graph to those of the other, keeping ops, first parameters and edges; None without one."""
    for graph in (left, right):
        for i in nx.topological_sort(graph):
            node = graph.nodes[i]
            origin = "" if node["owner"] else hash(tuple(sorted(graph.nodes[u]["key"] for u in graph.predecessors(i))))
            node["key"] = f"{node['op']} {node['owner'] or origin}"
    matcher = nx.isomorphism.DiGraphMatcher(left, right, node_match=lambda a, b: a["key"] == b["key"])
    return dict(matcher.mapping) if matcher.is_isomorphic() else None


def compare_graphs(ours: ArchGraph, theirs: Any) -> str:
    """Returns a description of the differences; empty for equal graphs."""
    left, our_lengths = ours_as_networkx(ours)
    right, their_lengths = theirs_as_networkx(theirs)
    to = renumbering(left, right)
    if to is not None:
        renumbered = {(to[u], to[v]): length for (u, v), length in our_lengths.items()}
        return "" if renumbered == their_lengths else "virtual edges differ"
    our_ops, their_ops = (Counter(op for _, op in graph.nodes(data="op")) for graph in (left, right))
    here, there = our_ops - their_ops, their_ops - our_ops
    without = left.copy()
    for i, op in left.nodes(data="op"):
        if op in here:
            without.add_edges_from((u, v) for u in without.predecessors(i) for v in without.successors(i))
            without.remove_node(i)
    same = "; equal without these" if here and renumbering(without, right) is not None else ""
    if here or there:
        return f"nodes only here: {dict(here)}, only in the reference: {dict(there)}{same}"
    our_edges, their_edges = map(_edges_between_owners, (left, right))
    return f"edges only here: {sorted(our_edges - their_edges)[:3]}, only there: {sorted(their_edges - our_edges)[:3]}"


def _edges_between_owners(graph: nx.DiGraph) -> set[tuple[str, str]]:
    title = {i: data["owner"] or data["op"] for i, data in graph.nodes(data=True)}
    return {(title[u], title[v]) for u, v in graph.edges}


def largest_difference(ours: Parameters, theirs: Parameters) -> tuple[float, str]:
    """The largest difference relative to a tensor's largest element, and the parameter where it is."""
    if ours.keys() != theirs.keys():
        return float("inf"), str(sorted(ours.keys() ^ theirs.keys())[:3])
    return max(
        (float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-30)), name)
        for name in ours
    )


def examine(result: Result, seed: int, reference: Reference, ghn: GHN) -> None:
    """Adds one network to the result of its kind."""
    module = network(result.kind, seed)
    result.networks += 1
    try:
        ours = trace(module, (3, 32, 32))
    except GraphError as error:
        problem = f"ghnq refuses it: {error}"
    else:
        result.nodes += len(ours)
        with torch.no_grad():
            problem = _against(reference, module, ours, ghn.predict(ours), result)
    if problem:
        result.disagreements.append(f"{result.kind} {seed}: {problem}")


def _against(reference: Reference, module: nn.Module, ours: ArchGraph, predicted: Parameters, result: Result) -> str:
    try:
        with torch.enable_grad(), quiet():
            batch = reference.batch(module)
        problem = compare_graphs(ours, batch.graphs[0])
        if problem:
            return problem
        result.equal_graphs += 1
        with quiet():
            expected = reference.predict(module, batch)
    except (AssertionError, RuntimeError) as error:
        return f"the reference stops with {type(error).__name__}: {error}"
    difference, name = largest_difference(predicted, expected)
    result.predicted += 1
    result.largest_difference = max(result.largest_difference, difference)
    return f"{name} differs by {difference:.1e}" if difference > TOLERANCE else ""


def show(results: list[Result]) -> None:
    """The table, the reasons for the kinds that the reference does not support, and every disagreement."""
    table = Table(title="ghnq against GHN-2's reference")
    table.add_column("kind", no_wrap=True)
    for column in ("networks", "nodes", "graphs equal", "largest difference"):
        table.add_column(column, justify="right")
    for i, r in enumerate(results):
        if not r.supported and results[i - 1].supported:
            table.add_section()
        difference = f"{r.largest_difference:.1e}" if r.predicted else "–"
        table.add_row(r.kind, str(r.networks), str(r.nodes), str(r.equal_graphs), difference)
    console = Console()
    console.print(table)
    console.print("Below the line: not supported by the reference, which")
    for kind, reason in UNSUPPORTED.items():
        console.print(f"  {kind}: {reason}", soft_wrap=True)
    for r in results:
        for line in r.disagreements:
            console.print(line, style="red" if r.supported else "dim", markup=False, soft_wrap=True)


def main(
    ppuda: Annotated[Path, typer.Option(help="A copy of github.com/facebookresearch/ppuda.")],
    networks: Annotated[int, typer.Option(help="How many, spread over the kinds.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the weights, and of the first network of each kind.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Compares graphs and predictions, kind by kind."""
    torch.manual_seed(seed)
    config = ghn2_config(32)
    reference = load_ghn2(ppuda, config)
    ghn = from_published(config, reference.hypernetwork.state_dict())
    results = [Result(kind, kind not in UNSUPPORTED) for kind in (*KINDS, MIXED, *UNSUPPORTED)]
    for i in range(networks):
        examine(results[i % len(results)], seed + i // len(results), reference, ghn)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        show(results)
    if any(result.supported and result.disagreements for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
