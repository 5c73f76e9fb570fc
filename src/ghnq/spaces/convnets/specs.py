"""Specs of the ConvNets space: frozen values with a JSON form and a structure hash, without tensors.

The *stages* family is a sequence of blocks (plain, separable, inverted residual, residual basic and bottleneck). The
*cells* family repeats a normal and a reduction cell, as DARTS and DeepNets-1M (Knyazev et al., 2021) do, without
attention and squeeze-excitation. Their operation `none` is an absent edge here, so that every branch has an effect.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ghnq.errors import SpaceError
from ghnq.spaces.convnets.literals import CellOp, Downsample, Join
from ghnq.validation_errors import explain_one

MAX_DOWNSAMPLINGS = 3  # 8x8 images, the smallest that must work, are 1x1 after three halvings
Channels = Annotated[int, Field(ge=1, le=4096)]


class Value(BaseModel):
    """Base of frozen, strict values: unknown fields and wrong types are refused, nothing is converted."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Stem(Value):
    """The first convolution: output channels, kernel size and stride."""

    channels: Channels
    kernel: Literal[3, 5, 7]
    stride: Literal[1, 2]


class ConvBlock(Value):
    """convolution - norm - relu; `channels` are those of the convolution's output, before the join."""

    kind: Literal["conv"] = "conv"
    channels: Channels
    kernel: Literal[1, 3, 5]
    join: Join = "none"


class SeparableBlock(Value):
    """depthwise - norm - relu - pointwise - norm - relu (MobileNet), then the join."""

    kind: Literal["separable"] = "separable"
    channels: Channels
    kernel: Literal[3, 5, 7]
    join: Join = "none"


class InvertedBlock(Value):
    """Inverted residual with a linear bottleneck (MobileNetV2); adds its input if the shapes are equal."""

    kind: Literal["inverted"] = "inverted"
    channels: Channels
    kernel: Literal[3, 5, 7]
    expansion: Literal[2, 3, 4, 6]


class BasicBlock(Value):
    """Two 3x3 convolutions with a shortcut (ResNet), which is a 1x1 convolution if the shapes differ."""

    kind: Literal["basic"] = "basic"
    channels: Channels


class BottleneckBlock(Value):
    """1x1, kernel x kernel and 1x1 convolutions with a shortcut (ResNet), `channels // reduction` in the middle."""

    kind: Literal["bottleneck"] = "bottleneck"
    channels: Channels
    kernel: Literal[3, 5]
    reduction: Literal[2, 4]


Block = ConvBlock | SeparableBlock | InvertedBlock | BasicBlock | BottleneckBlock


def join_kind(block: Block) -> Join:
    """Returns how a block joins its output with its input, besides the sum that residual kinds always have."""
    return block.join if isinstance(block, ConvBlock | SeparableBlock) else "none"


def output_channels(block: Block, channels_in: int) -> int:
    """Returns the output channels of a block with `channels_in` input channels; a concatenation has both."""
    return channels_in + block.channels if join_kind(block) == "concat" else block.channels


class Stage(Value):
    """Blocks at one resolution. `downsample`: the first block has stride 2, or a 2x2 pooling precedes it."""

    downsample: Downsample
    blocks: tuple[Annotated[Block, Field(discriminator="kind")], ...] = Field(min_length=1)

    @property
    def first_stride(self) -> int:
        """The stride of the first block."""
        return 2 if self.downsample == "stride" else 1


class Stages(Value):
    """The body of a stage network."""

    family: Literal["stages"] = "stages"
    stages: tuple[Stage, ...] = Field(min_length=1)

    @property
    def downsamplings(self) -> int:
        """How often the body halves height and width."""
        return sum(stage.downsample != "none" for stage in self.stages)

    @property
    def num_blocks(self) -> int:
        """The number of blocks of all stages."""
        return sum(len(stage.blocks) for stage in self.stages)


class Edge(Value):
    """`op` applied to state `source` of a cell: 0 and 1 are the outputs of the last two cells, 2, 3, ... the nodes."""

    op: CellOp
    source: Annotated[int, Field(ge=0)]


def is_redundant(edges: tuple[Edge, ...]) -> bool:
    """Returns whether a node with these edges computes nothing new: one skip, or the sum of the cell's inputs."""
    return all(edge.op == "skip" for edge in edges) and (len(edges) == 1 or all(edge.source < 2 for edge in edges))


class Genotype(Value):
    """A cell: each node sums its one or two edges; the states in `concat` are concatenated (nodes count from 2)."""

    nodes: tuple[Annotated[tuple[Edge, ...], Field(min_length=1, max_length=2)], ...] = Field(min_length=1)
    concat: tuple[int, ...] = Field(min_length=1)

    @field_validator("nodes")
    @classmethod
    def _in_order(cls, nodes: tuple[tuple[Edge, ...], ...]) -> tuple[tuple[Edge, ...], ...]:
        # A sum has no order: one order for all, so that equal cells have equal hashes.
        return tuple(tuple(sorted(edges, key=lambda edge: edge.source)) for edges in nodes)

    @model_validator(mode="after")
    def _check_states(self) -> Self:
        last = len(self.nodes) + 1
        for state, edges in enumerate(self.nodes, start=2):
            sources = [edge.source for edge in edges]
            if max(sources) >= state:
                raise ValueError(f"node {state} takes state {max(sources)}, which does not come before it")
            if len(set(sources)) < len(sources):
                raise ValueError(f"node {state} takes state {sources[0]} twice")
            if is_redundant(edges):
                raise ValueError(f"node {state} computes nothing new: give it an operation other than skip")
        if list(self.concat) != sorted(set(self.concat)) or self.concat[0] < 2 or self.concat[-1] > last:
            raise ValueError(f"concat {list(self.concat)} must be increasing node numbers from 2 to {last}")
        used = {edge.source for edges in self.nodes for edge in edges} | set(self.concat)
        if unused := set(range(1, last + 1)) - used:
            raise ValueError(f"nothing uses state {min(unused)}: use it in an edge or in concat")
        return self

    def uses(self, state: int) -> bool:
        """Returns whether an edge takes the state."""
        return any(edge.source == state for edges in self.nodes for edge in edges)


class Cells(Value):
    """The body of a cell network: `count` cells, of which those at one and two thirds are reduction cells.

    Attributes:
        channels: Of a node: before the first reduction, between the two, and after the second.
        preprocess: Whether both inputs of each cell have a 1x1 convolution; if not, only inputs of another shape.
    """

    family: Literal["cells"] = "cells"
    count: Annotated[int, Field(ge=3)]
    channels: tuple[Channels, Channels, Channels]
    preprocess: bool
    normal: Genotype
    reduction: Genotype

    @model_validator(mode="after")
    def _no_disguised_convolution(self) -> Self:
        for state, edges in enumerate(self.reduction.nodes, start=2):
            if any(edge.op == "skip" and edge.source < 2 for edge in edges):
                raise ValueError(
                    f"node {state} of the reduction cell skips from an input; a strided skip is written conv_1x1"
                )
        return self

    @property
    def reductions(self) -> tuple[int, int]:
        """The positions of the two reduction cells."""
        return self.count // 3, 2 * self.count // 3

    def genotype(self, position: int) -> Genotype:
        """The genotype of the cell at `position`."""
        return self.reduction if position in self.reductions else self.normal

    @property
    def downsamplings(self) -> int:
        """How often the body halves height and width."""
        return 2


class Spec(Value):
    """An architecture of the ConvNets space.

    Attributes:
        norm: `bn` after every convolution that precedes an activation; None if these convolutions have biases instead.
        hidden: The width of the linear layer before the classifier; None if there is only the classifier.

    Raises:
        pydantic.ValidationError: The values are wrong; from JSON this is a `SpaceError`.

    >>> spec = Spec(
    ...     norm="bn",
    ...     stem=Stem(channels=16, kernel=3, stride=2),
    ...     body=Stages(stages=(Stage(downsample="stride", blocks=(BasicBlock(channels=32),)),)),
    ...     hidden=None,
    ... )
    >>> Spec.from_json(spec.to_json()) == spec
    True
    """

    norm: Literal["bn"] | None
    stem: Stem
    body: Annotated[Stages | Cells, Field(discriminator="family")]
    hidden: Channels | None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        halvings = self.body.downsamplings + (self.stem.stride == 2)
        if halvings > MAX_DOWNSAMPLINGS:
            raise ValueError(f"{halvings} downsamplings; at most {MAX_DOWNSAMPLINGS}, so that 8x8 images work")
        if isinstance(self.body, Stages):
            _check_joins(self.body, self.stem.channels)
        return self

    @property
    def family(self) -> str:
        """`stages` or `cells`."""
        return self.body.family

    def to_json(self) -> str:
        """Returns the canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Spec:
        """Reads what `to_json` wrote.

        Raises:
            SpaceError: The text is not a spec; the message names the wrong field.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SpaceError(_explain(error)) from error

    @cached_property
    def structure_hash(self) -> str:
        """sha256 of the canonical JSON, in hex: equal structures have equal hashes in every process and version."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _check_joins(body: Stages, channels: int) -> None:
    for number, stage in enumerate(body.stages):
        for position, block in enumerate(stage.blocks):
            join = join_kind(block)
            if join != "none" and position == 0 and stage.first_stride == 2:
                raise ValueError(f"block {position} of stage {number} has stride 2 and cannot join its input by {join}")
            if join == "sum" and block.channels != channels:
                raise ValueError(
                    f"block {position} of stage {number} cannot add {channels} input channels to its {block.channels}"
                )
            if isinstance(block, BottleneckBlock) and block.channels % block.reduction:
                raise ValueError(
                    f"block {position} of stage {number}: reduction must divide its {block.channels} channels"
                )
            channels = output_channels(block, channels)


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"not a ConvNets spec: {explain_one(first, Spec)}{more}"
