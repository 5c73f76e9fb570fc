"""The graph hypernetwork: graphs in, named parameters out (arXiv 1810.05749, 2110.13100).

Dimensions: M networks, N nodes of all graphs, D hidden, S slots of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from ghnq.errors import check_type
from ghnq.graph.batching.batch import GraphBatch, SlotGroup
from ghnq.graph.ir import ArchGraph
from ghnq.graph.ops import GHN2_OPS
from ghnq.hypernet.checkpoint import read_checkpoint, write_checkpoint
from ghnq.hypernet.config import GHNConfig, Task
from ghnq.hypernet.decoders import DECODERS
from ghnq.hypernet.decoders.channel_modulation import VectorModulation
from ghnq.hypernet.decoders.vector import VectorDecoder
from ghnq.hypernet.encoders import ENCODERS
from ghnq.hypernet.node_embedding import NodeEmbedding
from ghnq.hypernet.parameter_normalisation import bounded_scale, bounded_shift
from ghnq.hypernet.parameter_shapes import kind_of, request_for, reshape_kernel, reshape_table, reshape_vector
from ghnq.hypernet.precision_embedding import PrecisionEmbedding, precision_features
from ghnq.hypernet.structural_encoding import StructuralEncoding, structural_features
from ghnq.quant.scheme import QuantScheme

Parameters = dict[str, Tensor]
FLOAT = QuantScheme.parse("float32")


class GHN(nn.Module, PyTorchModelHubMixin):
    """A graph hypernetwork.

    Args:
        config: Its sizes and choices; None: the defaults.
        task: The images it was trained on; None for one that was not trained here.
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
        # The structural encoding is named `place` in configurations and state dictionaries.
        self.place = StructuralEncoding(hidden=config.hidden) if config.place else None
        self.precision = PrecisionEmbedding(hidden=config.hidden) if config.condition else None
        self.encoder = ENCODERS[config.encoder](config)
        self.norm = nn.LayerNorm(config.hidden) if config.layer_norm else nn.Identity()
        self.decoder = DECODERS[config.decoder](config)
        self.vectors = VectorDecoder(
            hidden=config.hidden, max_channels=max(config.max_shape[:2]), num_classes=config.num_classes
        )
        rank = config.channel_rank
        self.vector_modulation = VectorModulation(hidden=config.hidden, rank=rank) if rank else None

    def predict(
        self, graph: ArchGraph, scheme: str | QuantScheme = "float32", *, channels_last: bool = False
    ) -> Parameters:
        """Predicts all parameters of one architecture; differentiable.

        Args:
            scheme: The precision they will be run at; a hypernetwork without `condition` predicts the same for all.
            channels_last: Whether kernels are stored in channels last.

        Returns:
            Name -> tensor of the module's own shape. Tensors of one shape may share a storage.

        Raises:
            SchemeError: The scheme is unknown.
            GhnqError: `graph` is no graph.
        """
        check_type(graph, ArchGraph, "predict()", "ghnq.trace(module, input_shape) makes one of a module")
        batch = GraphBatch.from_graphs([graph])
        return self(batch, [QuantScheme.parse(scheme)], channels_last=channels_last)[0]  # type: ignore[no-any-return]

    def forward(
        self, batch: GraphBatch, schemes: Sequence[QuantScheme] | None = None, *, channels_last: bool = False
    ) -> list[Parameters]:
        """Predicts all parameters of every architecture of a batch.

        Args:
            schemes: The precision of each architecture; None: float32 for all.
            channels_last: Whether kernels are stored in channels last.

        Returns:
            For each architecture, in the order of the batch, name -> tensor.
        """
        stacks = self.decode(self.encode(batch, schemes), batch, channels_last=channels_last)
        networks: list[Parameters] = [{} for _ in range(batch.size)]
        for group, stack in zip(batch.groups, stacks, strict=True):
            tensors = stack if channels_last else stack.contiguous()
            for slot, tensor in zip(group.slots, tensors.unbind(0), strict=True):
                networks[slot.graph][slot.name] = tensor
        return networks

    def encode(self, batch: GraphBatch, schemes: Sequence[QuantScheme] | None = None) -> Tensor:
        """Returns the embeddings of all nodes after the encoder, [N, D]."""
        h = self.embed(batch.op, batch.shape)
        if self.place is not None:
            h = h + self.place(structural_features(batch.graphs).to(h.device))
        if self.precision is not None:
            features = precision_features(batch.graphs, schemes or [FLOAT] * batch.size)
            h = h + self.precision(features.to(h.device))
        return torch.as_tensor(self.norm(self.encoder(h, batch)))

    def decode(self, h: Tensor, batch: GraphBatch, *, channels_last: bool) -> list[Tensor]:
        """Returns one stacked tensor [S, *shape] per slot group, from node embeddings [N, D]."""
        decoded: dict[int, Tensor] = {}
        roles = [g.role if kind_of(g) == "vector" else None for g in batch.groups]
        for decode, decodes in (
            (partial(self._weights, channels_last=channels_last), (None,)),
            (self._gains, ("weight", "class_weight")),
            (self._norm_scales, ("norm_weight",)),
            (self._shifts, ("norm_bias", "bias")),
            (self._class_biases, ("class_bias",)),
        ):
            index = [i for i, role in enumerate(roles) if role in decodes]
            if index:
                groups = [batch.groups[i] for i in index]
                decoded.update(zip(index, decode(_gather(h, groups), groups), strict=True))
        return [decoded[i] for i in range(len(batch.groups))]

    def _weights(self, parts: tuple[Tensor, ...], groups: list[SlotGroup], *, channels_last: bool) -> list[Tensor]:
        requests = [request_for(g, self.config, channels_last=channels_last) for g in groups]
        return [
            reshape_table(w, g, normalise=self.config.normalise) if kind_of(g) == "table" else reshape_kernel(w, g)
            for w, g in zip(self.decoder(parts, requests), groups, strict=True)
        ]

    def _gains(self, parts: tuple[Tensor, ...], groups: list[SlotGroup]) -> list[Tensor]:
        scale, _ = self.vectors(torch.cat(parts))
        return self._reshape_and_modulate(scale, parts, groups, scales=True, bounded=None)

    def _norm_scales(self, parts: tuple[Tensor, ...], groups: list[SlotGroup]) -> list[Tensor]:
        scale, _ = self.vectors(torch.cat(parts))
        bounded = bounded_scale if self.config.normalise else None
        return self._reshape_and_modulate(scale, parts, groups, scales=True, bounded=bounded)

    def _shifts(self, parts: tuple[Tensor, ...], groups: list[SlotGroup]) -> list[Tensor]:
        _, raw = self.vectors(torch.cat(parts))
        bounded = bounded_shift if self.config.normalise else None
        return self._reshape_and_modulate(raw, parts, groups, scales=False, bounded=bounded)

    def _reshape_and_modulate(
        self,
        raw: Tensor,
        parts: tuple[Tensor, ...],
        groups: list[SlotGroup],
        *,
        scales: bool,
        bounded: Callable[[Tensor], Tensor] | None,
    ) -> list[Tensor]:
        """Returns the rows of each group in its shape, with an offset for each channel of vectors that repeat."""
        # Bounded before they are repeated: to the last bit what a hypernetwork without channel factors predicts.
        reshaped = _reshape_vectors(raw if bounded is None else bounded(raw), groups)
        if self.vector_modulation is None:
            return reshaped
        offsets = self.vector_modulation.scale_offsets if scales else self.vector_modulation.shift_offsets
        for i, unbounded in enumerate(_reshape_vectors(raw, groups)):
            channels = unbounded[0].numel()
            if channels > self.vectors.max_channels:
                modulated = unbounded + offsets(parts[i], channels).view_as(unbounded)
                reshaped[i] = modulated if bounded is None else bounded(modulated)
        return reshaped

    def _class_biases(self, parts: tuple[Tensor, ...], groups: list[SlotGroup]) -> list[Tensor]:
        _, raw = self.vectors(torch.cat(parts))
        bias = self.vectors.class_bias(raw)
        return _reshape_vectors(bounded_shift(bias) if self.config.normalise else bias, groups)

    def save_pretrained(  # type: ignore[override]  # without the options of the hub's own format
        self, save_directory: str | Path, *, config: object = None
    ) -> None:
        """Writes `model.safetensors` and `config.json` into a directory, each file atomically.

        Args:
            config: Ignored; `push_to_hub` passes it. What is written is `self.config`.
        """
        write_checkpoint(Path(save_directory), self.config, self.task, self.state_dict())

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> GHN:
        """Reads a checkpoint and returns its hypernetwork in evaluation mode.

        Args:
            pretrained_model_name_or_path: A shipped name, a directory, or a hub id.
            revision: The revision of a hub id.
            token: The access token for a hub id.

        Raises:
            CheckpointError: The checkpoint does not exist or is invalid.
        """
        stored = read_checkpoint(pretrained_model_name_or_path, revision=revision, token=token)
        ghn = cls(stored.config, task=stored.task)
        ghn.load_state_dict(stored.checked_weights(ghn.state_dict()))
        return ghn.eval()


def check_ghn(ghn: object, call: str) -> None:
    """Checks that an argument of `call` is a hypernetwork.

    Raises:
        GhnqError: It is not.
    """
    check_type(ghn, GHN, call, "ghnq.GHN.from_pretrained('cifar10') is one")


def _gather(h: Tensor, groups: list[SlotGroup]) -> tuple[Tensor, ...]:
    """Returns the embeddings [S, D] of each group's nodes."""
    return torch.split(h[torch.cat([g.nodes for g in groups])], [len(g.slots) for g in groups])


def _reshape_vectors(stacked: Tensor, groups: list[SlotGroup]) -> list[Tensor]:
    """Returns the rows of each group [S, *shape], from those of all groups [_, C]."""
    parts = torch.split(stacked, [len(g.slots) for g in groups])
    return [reshape_vector(part, g.shape) for part, g in zip(parts, groups, strict=True)]
