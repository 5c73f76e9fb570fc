"""The references' own graphs and predictions: GHN-2's from `../shared/peers/ghn2`, GHN-3's from beside this file."""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
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


def formula_state(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """A state dictionary of the given shapes whose values need no file: a sine for every tensor, its name the phase."""
    return {
        name: (
            0.3 * torch.sin(2.3 * torch.arange(torch.Size(shape).numel()).double() + zlib.crc32(name.encode()) % 100)
        )
        .float()
        .view(shape)
        for name, shape in shapes.items()
    }


def read_ghn3() -> tuple[ArchGraph, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """A graph, GHN-3's configuration and state dictionary, and the parameters that its own code predicted from them."""
    path = Path(__file__).with_name("ghn3_reference.safetensors")
    with safe_open(path, framework="pt") as file:
        about = {key: json.loads(text) for key, text in file.metadata().items() if key != "graph"}
        graph = ArchGraph.from_json(file.metadata()["graph"])
    return graph, about["config"], formula_state(about["shapes"]), load_file(path)
