"""Recipes: everything that decides a training run, in one YAML file; every key is documented here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ghnq import spaces
from ghnq.data import ReadOptions
from ghnq.errors import SpaceError, nearest
from ghnq.hypernet.config import GHNConfig
from ghnq.quant.scheme import QuantScheme
from ghnq.spaces import Space, Spec
from ghnq.training.recipe.scheme_mix import check_mix

Decay = Annotated[float, Field(ge=0, lt=1)]
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Optimizer(BaseModel):
    """How a gradient becomes a step."""

    model_config = _STRICT

    name: Literal["adam", "adamw"] = Field(default="adamw", description="Adam, or Adam with decoupled weight decay.")
    lr: float = Field(default=1e-3, gt=0, strict=False, description="Peak learning rate.")
    weight_decay: float = Field(default=1e-5, ge=0, strict=False, description="Weight decay.")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), strict=False, description="Decay of the two moments.")
    clip: float = Field(
        default=5.0, gt=0, strict=False, description="Largest norm of the gradient; more is scaled down."
    )


class Schedule(BaseModel):
    """How the learning rate moves with the progress of the run.

    Progress is steps done over steps, or, under --max-minutes, the larger of that and minutes trained over minutes
    given, so that the rate has come down when the time is up.
    """

    model_config = _STRICT

    name: Literal["cosine", "linear", "constant", "step"] = Field(
        default="cosine", description="Shape after the warm-up; `step` multiplies the rate at `milestones`."
    )
    warmup: int = Field(default=100, ge=0, description="Steps over which the rate rises from zero.")
    fall: float = Field(
        default=1.0,
        gt=0,
        le=1,
        strict=False,
        description="The last part of the run, as a fraction of it, in which the rate falls; before, it is constant.",
    )
    final: float = Field(
        default=0.01,
        ge=0,
        le=1,
        strict=False,
        description="Rate at the end of `cosine` and `linear`, as a fraction of the peak.",
    )
    milestones: tuple[Annotated[float, Field(gt=0, lt=1, strict=False)], ...] = Field(
        default=(),
        strict=False,
        description="Of `step`: fractions of the run, ascending, after each of which the rate is multiplied by "
        "`gamma`.",
    )
    gamma: float = Field(default=0.1, gt=0, lt=1, strict=False, description="Of `step`: the factor at a milestone.")

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError(
                "schedule 'step' needs milestones, fractions of the run such as [0.667, 0.833]"
                if self.name == "step"
                else f"milestones belong to schedule 'step'; the schedule is '{self.name}'"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}; each must be greater than the one before")
        return self


class Quantization(BaseModel):
    """The precision that networks are trained for: float training (GHN-Q) by default, else through quantization."""

    model_config = _STRICT

    mix: dict[str, Annotated[float, Field(strict=False, allow_inf_nan=False)]] = Field(
        default={"float32": 1.0},
        description="Schemes and how often each is drawn for a network, such as `{float32: 1, w4a8: 2}`; `mixed` draws "
        "bits for every layer.",
    )
    protocol: Literal["deploy", "paper"] = Field(
        default="deploy",
        description="What decides granularity, symmetry and folding of the schemes that networks are trained for and "
        "validated under; see docs/concepts/quantization.md.",
    )
    steps: tuple[Literal["search_weights", "search_activations"], ...] = Field(
        default=(),
        strict=False,
        description="Searches for ranges that deployment will make: validation makes them, and training fits such "
        "ranges roughly at 4 bits and below.",
    )
    strategy: Literal["round", "noise"] = Field(
        default="round", description="Round to the grid with straight-through gradients, or add noise of one step."
    )


class Curriculum(BaseModel):
    """An easier beginning: small images, fewer kinds of networks, or both. Validation is always on the whole task."""

    model_config = _STRICT

    steps: int = Field(default=0, ge=0, description="Steps that it lasts; 0: none.")
    image_size: int | None = Field(
        default=None, ge=8, description="Images are shrunk to this size meanwhile; absent: as they are."
    )
    multiply_adds: float | None = Field(
        default=None,
        ge=1e6,
        strict=False,
        description="Networks of more multiply-adds, for an image of 3x32x32, are not drawn meanwhile; absent: all.",
    )
    family: str | None = Field(
        default=None,
        description="Only networks of this family (of `convnets`: `stages` or `cells`) are drawn meanwhile; absent: "
        "all.",
    )
    stem_stride: Literal[1, 2] | None = Field(
        default=None, description="Only networks whose first convolution has this stride are drawn; absent: both."
    )

    def admits(self, space: Space[Spec], spec: Spec) -> bool:
        """Returns whether an architecture of the space may be drawn meanwhile."""
        traits = space.traits(spec)
        return (
            (self.multiply_adds is None or space.cost(spec).multiply_adds <= self.multiply_adds)
            and self.family in (None, traits["family"])
            and self.stem_stride in (None, traits.get("stem_stride"))
        )


class Validation(BaseModel):
    """How often, and on what, the run is measured: architectures of split `val`, training images held out."""

    model_config = _STRICT

    every: int = Field(default=1000, ge=1, description="Steps between measurements.")
    architectures: int = Field(default=20, ge=1, description="Architectures of split `val`.")
    images: int = Field(default=256, ge=1, description="Images taken from the training split and never trained on.")
    schemes: tuple[str, ...] = Field(
        default=("float32",),
        min_length=1,
        strict=False,
        description="Schemes to measure under; the mean over them decides which checkpoint is the best.",
    )
    calibration: int = Field(default=256, ge=2, description="Training images for batch-norm statistics.")


class Recipe(BaseModel):
    """A training run. Keyword-only; unknown keys are refused."""

    model_config = _STRICT

    name: str = Field(description="What the progress bar calls the run.")
    data: str = Field(description="`digits`, a directory, or a hub id; `--data` overrides it.")
    image_size: int | None = Field(default=None, ge=4, description="Resize images to this size; absent: as they are.")
    holdout: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        strict=False,
        description="Part of the images of each class that becomes the test split, where the data have none.",
    )
    label_column: str | None = Field(default=None, description="Column of labels, where the data have several.")
    skip_unreadable: bool = Field(default=False, description="Leave out images that cannot be read.")
    space: str = Field(default=spaces.DEFAULT, description="Where the architectures come from.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Decides initial weights, architectures and images.")
    hypernet: GHNConfig = Field(default=GHNConfig(), description="The hypernetwork; `num_classes` comes from the data.")
    init: str | None = Field(
        default=None,
        description="Checkpoint (shipped name, directory, or hub id) whose weights the run starts from, and whose "
        "`hypernet` it takes, though `condition` and `channel_rank` may be added and `decoder_hidden` wider; for other "
        "classes, all but the decoder of the classification layer is kept; absent: random weights.",
    )
    steps: int = Field(ge=1, description="Updates of the hypernetwork.")
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        strict=False,
        description="Minutes of training after which to stop; `--max-minutes` overrides it.",
    )
    meta_batch: int = Field(default=8, ge=1, description="Networks in each step.")
    batch_size: int = Field(default=64, ge=2, description="Images for each network of a step.")
    share_images: bool = Field(default=False, description="All networks of a step see the same images.")
    reuse: int = Field(
        default=1,
        ge=1,
        description="How often an architecture is used while it is fresh; saves tracing where networks are small.",
    )
    augment: bool = Field(default=True, description="Shift and, where the data allows it, mirror training images.")
    crop: int | None = Field(
        default=None,
        ge=8,
        description="Train on random crops of this many pixels (arXiv 1906.06423); calibration and validation see "
        "whole images. Absent: whole images.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, strict=False, description="Weight of the uniform target.")
    soft_labels: str | None = Field(
        default=None,
        description="File of a teacher's class probabilities for every training image "
        "(ghnq.training.networks.soft_labels), to train towards instead of the labels; absent: the labels.",
    )
    optimizer: Optimizer = Field(default=Optimizer(), description="See Optimizer.")
    schedule: Schedule = Field(default=Schedule(), description="See Schedule.")
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        strict=False,
        description="Decay of the weight average that is validated and saved; 0: none.",
    )
    curriculum: Curriculum = Field(default=Curriculum(), description="See Curriculum.")
    validation: Validation = Field(default=Validation(), description="See Validation.")
    save_every: int = Field(default=500, ge=1, description="Steps between savings of the training state.")
    log_every: int = Field(default=20, ge=1, description="Steps between lines of the log.")
    workers: int = Field(
        default=2,
        ge=1,
        description="Processes on the CPU, one thread each, that share the networks of a step; `--devices` overrides "
        "it.",
    )
    cuda_workers: int = Field(
        default=1,
        ge=1,
        description="Processes that share a CUDA device; `--devices` says how many devices there are.",
    )
    cuda_graphs: bool = Field(
        default=False,
        description="On CUDA, networks in float that come back (`reuse`) are recorded as CUDA graphs and played again.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where networks run; `auto`: on CUDA if there is any. `--device` overrides it."
    )
    precision: Literal[32, "bf16"] = Field(
        default=32, description="Of the networks' forward and backward passes; `bf16`: mixed. The rest is float32."
    )
    prefetch: int | None = Field(
        default=None,
        ge=0,
        le=16,
        description="Steps whose architectures and graphs a thread prepares ahead; 0: none. Absent: 2 with CUDA, and 0 "
        "on the CPU, where the core that prepares is the one that trains.",
    )

    quantization: Quantization = Field(default=Quantization(), description="See Quantization.")

    @property
    def read_options(self) -> ReadOptions:
        """How the images are read."""
        return ReadOptions(self.holdout, self.image_size, self.label_column, self.skip_unreadable)

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        check_mix(self.quantization.mix)
        self._check_space()
        for scheme in self.validation.schemes:
            QuantScheme.parse(scheme, protocol=self.quantization.protocol)
        if self.meta_batch < self.workers:
            raise ValueError(
                f"meta_batch {self.meta_batch} is fewer than {self.workers} workers; each needs a network of every step"
            )
        return self

    @field_validator("space")
    @classmethod
    def _check_space_name(cls, name: str) -> str:
        try:
            spaces.get(name)
        except SpaceError as error:
            raise ValueError(str(error)) from error
        return name

    def _check_space(self) -> None:
        space = spaces.get(self.space)
        family, available = self.curriculum.family, space.splits.get("val", 0)
        if family is not None and family not in space.families:
            raise ValueError(
                f"curriculum.family is {family!r}{nearest(family, space.families)}; the space '{space.name}' has "
                f"{', '.join(space.families)}"
            )
        if self.validation.architectures > available:
            raise ValueError(
                f"validation.architectures is {self.validation.architectures}; split 'val' of the space "
                f"'{space.name}' has {available}"
            )
