"""The graph hypernetwork: graphs in, named parameters out (arXiv 1810.05749, 2110.13100).

Dimensions: M networks, N nodes of all graphs, D hidden, S slots of a group.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from ghnq.graph.batch import GraphBatch, SlotGroup
from ghnq.graph.ir import ArchGraph, Shape
from ghnq.graph.ops import GHN2_OPS
from ghnq.hypernet.config import GHNConfig, Task
from ghnq.hypernet.decoders import DECODERS
from ghnq.hypernet.decoders.conv import Shape4, WeightRequest
from ghnq.hypernet.decoders.vector import VectorDecoder
from ghnq.hypernet.embed import NodeEmbedding
from ghnq.hypernet.encoders import ENCODERS
from ghnq.hypernet.fit import normalise, tile

Parameters = dict[str, Tensor]
WEIGHTS = ("weight", "class_weight")


class GHN(nn.Module, PyTorchModelHubMixin):
    """A graph hypernetwork.

    config: its sizes and choices.
    task: the images it was trained on; None for one that was not trained here.
    """

    def __init__(self, config: GHNConfig | None = None, *, task: Task | None = None) -> None:
        super().__init__()
        self.config = config = config or GHNConfig()
        self.task = task
        self.embed = NodeEmbedding(
            hidden=config.hidden,
            num_ops=len(GHN2_OPS),
            num_classes=config.num_classes,
            max_kernel=config.max_shape[3],
        )
        self.encoder = ENCODERS[config.encoder](config)
        self.norm = nn.LayerNorm(config.hidden) if config.layer_norm else nn.Identity()
        self.decoder = DECODERS[config.decoder](config)
        self.vectors = VectorDecoder(
            hidden=config.hidden, max_channels=max(config.max_shape[:2]), num_classes=config.num_classes
        )

    def predict(self, graph: ArchGraph) -> Parameters:
        """All parameters of one architecture by name, each of the module's own shape; differentiable."""
        return self(GraphBatch.from_graphs([graph]))[0]  # type: ignore[no-any-return]

    def forward(self, batch: GraphBatch) -> list[Parameters]:
        """Parameters of every architecture of the batch, in the batch's order."""
        h = self.encode(batch)
        networks: list[Parameters] = [{} for _ in range(batch.size)]
        for group, tensors in zip(batch.groups, self.decode(h, batch), strict=True):
            for slot, tensor in zip(group.slots, tensors.unbind(0), strict=True):
                networks[slot.graph][slot.name] = tensor
        return networks

    def encode(self, batch: GraphBatch) -> Tensor:
        """Node embeddings after message passing, [N, D]."""
        return torch.as_tensor(self.norm(self.encoder(self.embed(batch.op, batch.shape), batch)))

    def decode(self, h: Tensor, batch: GraphBatch) -> list[Tensor]:
        """One stacked tensor [S, *shape] per slot group, fitted to the shape the network wants."""
        weights = [i for i, g in enumerate(batch.groups) if g.role in WEIGHTS]
        requests = [_request(batch.groups[i]) for i in weights]
        decoded = self.decoder([h[batch.groups[i].nodes] for i in weights], requests) if weights else []
        raw: dict[int, Tensor] = {
            i: tile(d, r.shape).reshape(len(d), *batch.groups[i].shape)
            for i, d, r in zip(weights, decoded, requests, strict=True)
        }
        vectors = [i for i in range(len(batch.groups)) if i not in raw]
        raw.update(zip(vectors, self._decode_vectors(h, [batch.groups[i] for i in vectors]), strict=True))
        return [_laid_out(self._normalise(raw[i], g)) for i, g in enumerate(batch.groups)]

    def _decode_vectors(self, h: Tensor, groups: list[SlotGroup]) -> list[Tensor]:
        if not groups:
            return []
        scale, shift = self.vectors(h[torch.cat([g.nodes for g in groups])])
        sizes = [len(g.slots) for g in groups]
        decoded = []
        for group, a, b in zip(groups, scale.split(sizes), shift.split(sizes), strict=True):
            tensor = a if group.role == "norm_weight" else b
            if group.role == "class_bias":
                tensor = self.vectors.class_bias(tensor)
            decoded.append(tile(tensor, group.shape))
        return decoded

    def _normalise(self, tensor: Tensor, group: SlotGroup) -> Tensor:
        return normalise(tensor, group.role, group.shape) if self.config.normalise else tensor

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Writes `model.safetensors` and `config.json` into a directory, each whole or not at all."""
        from ghnq.hypernet.checkpoint import save

        save(self, Path(save_directory))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **_: Any) -> GHN:
        """Loads a shipped name, a directory or a hub id; raises CheckpointError."""
        from ghnq.hypernet.checkpoint import load

        return load(pretrained_model_name_or_path)


def _laid_out(stacked: Tensor) -> Tensor:
    """Stored so that each kernel of the stack is channels-last, which convolutions on a CPU run fastest with."""
    if stacked.dim() != 5:
        return stacked.contiguous()
    return stacked.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _request(group: SlotGroup) -> WeightRequest:
    depthwise = group.op in ("sep_conv", "dil_conv") and len(group.shape) > 1 and group.shape[1] == 1
    return WeightRequest(_four(group.shape), depthwise, group.role == "class_weight")


def _four(shape: Shape) -> Shape4:
    """A weight's shape as (out, in, height, width)."""
    o, i, h, w = (*shape, 1, 1, 1)[:4]
    return o, i, h, w
