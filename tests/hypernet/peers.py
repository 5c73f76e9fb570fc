"""The reference's own graphs and predictions, read from `../shared/peers/ghn2`."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ghnq.graph.ir import ArchGraph, Node, Parameter


def read_peer(folder: Path, name: str) -> tuple[ArchGraph, dict[str, Tensor]]:
    """The graph the reference built, in our form, and its arrays (`graph/embedding`, `param/...`)."""
    arrays = load_file(folder / f"{name}.safetensors")
    info = json.loads((folder / f"{name}.json").read_text())
    shapes = {n["node"]: (*n["shape"], 1, 1, 1)[:4] for n in info["parameter_nodes"]}
    names = {n["node"]: n["param"].rpartition(".")[0] for n in info["parameter_nodes"]}
    nodes = tuple(Node(op, names.get(i, op), shapes.get(i)) for i, op in enumerate(info["node_ops"]))
    edges = tuple(sorted((u, v) for u, v, hops in arrays["graph/edges"].tolist() if hops == 1))
    parameters = []
    for n in info["parameter_nodes"]:
        shape, param, node = tuple(n["shape"]), n["param"], n["node"]
        if n["op"] == "bn":
            parameters.append(Parameter(param, shape, node, "norm_weight"))
            parameters.append(Parameter(param.replace(".weight", ".bias"), shape, node, "norm_bias"))
        elif n["op"] == "bias":
            parameters.append(Parameter(param, shape, node, "class_bias" if n["last_bias"] else "bias"))
        elif n["op"] == "conv":
            parameters.append(Parameter(param, shape, node, "class_weight" if n["last_weight"] else "weight"))
    return ArchGraph(nodes, edges, tuple(parameters), tuple(info["input_shape"]), 10), arrays
