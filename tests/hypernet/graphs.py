"""Random valid architectures, without a module behind them."""

import numpy as np

from ghnq.graph.ir import ArchGraph, Node, Parameter


def random_graph(seed: int, *, size: int = 12, classes: int = 10) -> ArchGraph:
    """A connected graph of convolutions of odd sizes, norms, biases, sums and pools, ending in a linear classifier."""
    rng = np.random.default_rng(seed)
    nodes, parameters = [Node("input", "input")], []
    edges: set[tuple[int, int]] = set()
    for v in range(1, size - 1):
        op = str(rng.choice(["conv", "sep_conv", "bn", "bias", "sum", "max_pool"]))
        o, i = int(rng.integers(1, 150)), int(rng.integers(1, 150))
        k = int(rng.choice([1, 2, 3, 5, 7]))
        name = f"layer{v}"
        if op in ("conv", "sep_conv"):
            shape = (o, 1 if op == "sep_conv" else i, k, int(rng.choice([1, k])))
            parameters.append(Parameter(f"{name}.weight", shape, v, "weight"))
        elif op == "max_pool":
            shape = (1, 1, k, k)
        else:
            shape = (o, 1, 1, 1)
        if op == "bn":
            parameters += [
                Parameter(f"{name}.weight", (o,), v, "norm_weight"),
                Parameter(f"{name}.bias", (o,), v, "norm_bias"),
            ]
        if op == "bias":
            parameters.append(Parameter(f"{name}.bias", (o,), v, "bias"))
        nodes.append(Node(op, name, None if op == "sum" else shape))
        edges |= {(int(u), v) for u in rng.choice(v, size=min(v, int(rng.integers(1, 4))), replace=False)}
    width = int(rng.integers(1, 150))
    nodes += [Node("conv", "fc", (classes, width, 1, 1)), Node("bias", "fc", (classes, 1, 1, 1))]
    parameters += [
        Parameter("fc.weight", (classes, width), size - 1, "class_weight"),
        Parameter("fc.bias", (classes,), size, "class_bias"),
    ]
    leaves = set(range(size - 1)) - {u for u, _ in edges}
    edges |= {(u, size - 1) for u in leaves} | {(size - 1, size)}
    return ArchGraph(tuple(nodes), tuple(sorted(edges)), tuple(parameters), (3, 32, 32), classes)
