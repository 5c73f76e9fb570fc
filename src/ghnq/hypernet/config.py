"""The configuration of a hypernetwork; a checkpoint stores it beside the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Depthwise = Literal["shared", "own"]


class GHNConfig(BaseModel):
    """Sizes and choices of a hypernetwork; keyword-only, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    num_classes: int = Field(default=10, ge=2, description="Outputs of the networks it was trained for.")
    hidden: int = Field(default=32, ge=8, description="Width of the node embeddings; a multiple of 8.")
    max_shape: tuple[int, int, int, int] = Field(
        default=(64, 64, 7, 7),
        strict=False,
        description="Largest block (out, in, height, width) that is predicted; larger weights repeat it.",
    )
    encoder: Literal["gatedgnn", "graphormer", "mlp"] = Field(
        default="gatedgnn",
        description="How nodes exchange information: `gatedgnn`, `graphormer`, or not at all (`mlp`).",
    )
    layers: int = Field(default=3, ge=1, description="Layers of the graphormer.")
    heads: int | None = Field(
        default=None,
        ge=1,
        description="Attention heads of the graphormer; absent: 8, or 16 where `hidden` is above 64.",
    )
    virtual_edges: bool = Field(
        default=True,
        description="Whether nodes also receive messages of all nodes that reach them, weighted by 1/distance.",
    )
    layer_norm: bool = Field(default=True, description="Whether node embeddings are normalised before decoding.")
    decoder: Literal["conv", "lowrank"] = Field(
        default="conv",
        description="How a node embedding becomes a weight: all of it (`conv`), or two thin factors, which is for a "
        "`max_shape` of thousands of channels (`lowrank`).",
    )
    channel_rank: int = Field(
        default=0,
        ge=0,
        description="Rank of the per-channel factors of layers wider than `max_shape`, with which no two filters are "
        "equal; 0: such layers repeat one block, as published.",
    )
    rank: int = Field(default=32, ge=1, description="Rank of the factors of `lowrank`.")
    decoder_hidden: tuple[int, int] | None = Field(
        default=None, strict=False, description="Widths inside the decoder; (4, 8) times `hidden` if absent."
    )
    decoder_norm: bool = Field(
        default=False,
        description="Layer norms inside the decoder `conv`: predicted weights begin at He's scale, hardly correlated "
        "between kernel positions, and learn faster.",
    )
    depthwise: Depthwise = Field(
        default="own", description="Depthwise weights from a decoder of their own, or from the first input channel."
    )
    identity: bool = Field(
        default=False,
        description="Whether kernels are predicted as differences from the identity kernel, which passes channels on.",
    )
    kernel: Literal["corner", "centre"] = Field(
        default="corner", description="Which part of the largest kernel a smaller one is."
    )
    place: bool = Field(
        default=False, description="Whether nodes have a structural encoding: depth, resolution, degrees."
    )
    condition: bool = Field(
        default=False,
        description="Whether nodes receive the bit-widths and the granularity at which their parameters will be run.",
    )
    normalise: bool = Field(
        default=True, description="Whether predicted weights are scaled by fan-in and vectors are bounded."
    )

    @model_validator(mode="after")
    def _check(self) -> GHNConfig:
        if self.hidden % 8:
            raise ValueError(f"hidden is {self.hidden}; it must be a multiple of 8")
        if min(self.max_shape) < 1 or self.max_shape[2] != self.max_shape[3]:
            raise ValueError(f"max_shape is {self.max_shape}; all sizes must be positive and height equal to width")
        if self.encoder == "graphormer" and self.hidden % self.num_heads:
            raise ValueError(f"hidden is {self.hidden}; it must be a multiple of heads, which is {self.num_heads}")
        if self.decoder_norm and self.decoder != "conv":
            raise ValueError(f"decoder_norm is for decoder 'conv'; the decoder is '{self.decoder}'")
        return self

    @property
    def num_heads(self) -> int:
        """The number of attention heads of the graphormer."""
        return self.heads or (16 if self.hidden > 64 else 8)

    @property
    def decoder_widths(self) -> tuple[int, int]:
        """The widths inside the decoder."""
        return self.decoder_hidden or (4 * self.hidden, 8 * self.hidden)


class Task(BaseModel):
    """The images a hypernetwork was trained on, which its predicted networks expect at their input.

    Attributes:
        data_sha256: `ImageDataset.content_hash` of all of them, images held out for validation included; None in
            checkpoints of versions that did not store it.
        read_options: How they were read (`ReadOptions.record` of `ghnq.data`); None where nothing was said about it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: str
    image_shape: tuple[int, int, int] = Field(strict=False)
    mean: tuple[float, ...] = Field(strict=False)
    std: tuple[float, ...] = Field(strict=False)
    space: str = "convnets"
    data_sha256: str | None = None
    read_options: dict[str, int | float | str | bool] | None = None
