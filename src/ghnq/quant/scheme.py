"""What is quantized to how many bits, and how: a frozen value that is written `w4a8`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from ghnq.errors import SchemeError, nearest
from ghnq.quant.bit_widths import LayerBits
from ghnq.quant.scheme_mapping import PROTOCOL_FIELDS, SchemeMapping, is_scheme_file, naming_file, read_mapping

Granularity = Literal["channel", "tensor"]
Estimator = Literal["minmax", "percentile", "mse"]

GRANULARITIES: tuple[str, ...] = get_args(Granularity)
ESTIMATORS: tuple[str, ...] = get_args(Estimator)

POST_TRAINING_STEPS: dict[str, str] = {
    "equalize": "cross-layer equalization of the float weights",
    "search_weights": "weight scales of least squared error (`weight_range: mse`)",
    "search_activations": "activation ranges of least squared error (`activation_range: mse`)",
    "squant": "weights rounded so that rounding errors cancel within kernels and channels",
    "correct_bias": "mean error of each output channel subtracted from the bias",
}
"""Names of the optional post-training steps, in the order in which they are applied, and what each does."""

MAX_LISTED_LAYERS = 8
"""Layers that an error message lists."""


@dataclass(frozen=True, kw_only=True)
class QuantScheme:
    """Bit-widths, granularity and range estimators of a quantized network.

    Quantized are the weight and the input activation of every convolution and linear layer. Activations are quantized
    per tensor, asymmetric and unsigned; asymmetric weights are unsigned as well, symmetric weights are signed and use
    the narrow range -(2^(b-1)-1) .. 2^(b-1)-1.

    >>> scheme = QuantScheme.parse("w4a8")
    >>> scheme.weight_bits, scheme.activation_bits, scheme.weight_granularity, scheme.weight_symmetric
    (4, 8, 'channel', True)
    >>> str(scheme), scheme.protocol
    ('w4a8', 'deploy')
    >>> QuantScheme.parse("w4a8", protocol="paper").weight_granularity
    'tensor'
    >>> mixed = scheme.override({"stem": "w8a8", "head.*": "float32"})
    >>> str(mixed), str(mixed.bits_for("stem")), str(mixed.bits_for("head.fc")), str(mixed.bits_for("body.conv"))
    ('w4a8+stem=w8a8+head.*=float32', 'w8a8', 'float32', 'w4a8')
    >>> QuantScheme.parse(str(mixed)) == mixed
    True
    >>> QuantScheme.parse("w4a32")
    Traceback (most recent call last):
        ...
    ghnq.errors.SchemeError: scheme 'w4a32' asks for 32 activation bits: allowed are 2 to 16 (the nearest is 16)
    """

    weight_bits: int | None
    activation_bits: int | None
    weight_granularity: Granularity = "channel"
    weight_symmetric: bool = True
    weight_range: Estimator = "minmax"
    activation_range: Estimator = "minmax"
    fold: bool = True
    """Quantize the weight with the batch norm folded into it, as it is deployed; False is for comparison only."""
    reestimate: bool = True
    """Estimate the batch-norm statistics a second time, through the quantized network, before folding."""
    variance_floor: float = 0.0
    """Before folding, batch-norm variances below this fraction of their layer's median are raised to it; 0: none is.

    A channel that is constant on the calibration images has variance 0 and thus a gain of gamma / sqrt(eps) (316 gamma
    for eps 1e-5). With per-tensor weights, one such channel determines the scale of all others.
    """
    overrides: tuple[tuple[str, LayerBits], ...] = ()
    """(module name or fnmatch pattern, bit-widths); the last one that matches a layer wins."""
    steps: tuple[str, ...] = ()
    """Post-training steps (names of POST_TRAINING_STEPS), sorted into the order in which they are applied."""

    def __post_init__(self) -> None:
        self.bits.check(str(self.bits))
        for pattern, bits in self.overrides:
            if not pattern or set("+=") & set(pattern):
                raise SchemeError(f"override pattern {pattern!r}: expected a module name or a pattern like 'blocks.*'")
            bits.check(f"{pattern}={bits}")
        if not 0 <= self.variance_floor <= 1:
            raise SchemeError(f"variance_floor must be a fraction from 0 to 1, got {self.variance_floor}")
        object.__setattr__(self, "steps", _sorted_steps(self.steps))
        _check_choice("weight granularity", self.weight_granularity, GRANULARITIES)
        _check_choice("weight range estimator", self.weight_range, ESTIMATORS)
        _check_choice("activation range estimator", self.activation_range, ESTIMATORS)

    @classmethod
    def parse(cls, text: str | QuantScheme, *, protocol: str = "deploy", **changes: Any) -> QuantScheme:
        """Reads `w4a8`, or `w4a4+stem=w8a8+head.*=float32` with overrides; a QuantScheme is returned as it is.

        Args:
            text: the notation, or the path of a scheme file (`.yaml` or `.yml`, see `ghnq.quant.scheme_file`), which
                states its protocol itself.
            protocol: `deploy` or `paper` (PROTOCOLS); decides every field that is not a bit-width.
            changes: fields that differ from the protocol, for example `fold=False`.

        Raises:
            SchemeError: the notation, the protocol or a changed value is unknown, or the file is not a scheme.
        """
        if isinstance(text, QuantScheme):
            return replace(text, **changes) if changes else text
        if not isinstance(text, str):
            raise SchemeError(f"a scheme is text such as 'w8a8', or a QuantScheme, got {type(text).__name__}")
        if is_scheme_file(text):
            mapping = read_mapping(Path(text))
            with naming_file(Path(text)):
                return cls.parse(cls.from_mapping(mapping), **changes)
        _check_choice("protocol", protocol, PROTOCOLS)
        default, *overrides = text.strip().split("+")
        bits = LayerBits.parse(default)
        fields: dict[str, Any] = {**PROTOCOLS[protocol], **changes}
        scheme = cls(weight_bits=bits.weight, activation_bits=bits.activation, **fields)
        return scheme.override(_parse_override(part, text) for part in overrides) if overrides else scheme

    @classmethod
    def from_mapping(cls, mapping: SchemeMapping) -> QuantScheme:
        """Returns the scheme that the content of a scheme file describes.

        Raises:
            SchemeError: a value is not allowed.
        """
        changes = {key: value for key, value in mapping.items() if key in PROTOCOL_FIELDS}
        scheme = cls.parse(mapping["scheme"], protocol=mapping.get("protocol", "deploy"), **changes)
        return replace(scheme, steps=tuple(mapping.get("steps", ()))).override(mapping.get("overrides", {}))

    def override(self, layers: Mapping[str, str] | Iterable[tuple[str, str]]) -> QuantScheme:
        """Returns the scheme with other bit-widths for the layers whose module name matches; later patterns win.

        Raises:
            SchemeError: a value is not in the notation of bit-widths.
        """
        pairs = layers.items() if isinstance(layers, Mapping) else layers
        added = tuple((pattern, LayerBits.parse(bits)) for pattern, bits in pairs)
        return replace(self, overrides=self.overrides + added)

    @property
    def bits(self) -> LayerBits:
        """Bit-widths where no override matches."""
        return LayerBits(self.weight_bits, self.activation_bits)

    def bits_for(self, name: str) -> LayerBits:
        """Bit-widths of the layer with this module name."""
        for pattern, bits in reversed(self.overrides):
            if fnmatchcase(name, pattern):
                return bits
        return self.bits

    def check_overrides(self, layers: Iterable[str]) -> None:
        """Checks that every override matches at least one of these layers.

        Raises:
            SchemeError: an override matches none of them.
        """
        names = list(layers)
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(name, pattern) for name in names):
                listed, more = ", ".join(names[:MAX_LISTED_LAYERS]), len(names) - MAX_LISTED_LAYERS
                raise SchemeError(
                    f"override {pattern!r} matches no layer{nearest(pattern, names)}: "
                    f"layers are {listed or 'none'}" + (f" and {more} more" if more > 0 else "")
                )

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.weight_bits is None and all(bits.weight is None for _, bits in self.overrides)

    @property
    def folding_commutes(self) -> bool:
        """Whether quantizing a weight and scaling its output channels commute: if symmetric and per channel."""
        return self.weight_symmetric and self.weight_granularity == "channel"

    @property
    def with_searched_ranges(self) -> QuantScheme:
        """The scheme with the range estimators that its post-training steps ask for."""
        searches = {"search_weights": "weight_range", "search_activations": "activation_range"}
        changes: dict[str, Any] = {field: "mse" for step, field in searches.items() if step in self.steps}
        return replace(self, **changes) if changes else self

    @property
    def protocol(self) -> str:
        """Name of the protocol that all fields agree with, or `custom`."""
        for name, fields in PROTOCOLS.items():
            if all(getattr(self, field) == value for field, value in fields.items()):
                return name
        return "custom"

    def __str__(self) -> str:
        return "+".join([str(self.bits), *(f"{pattern}={bits}" for pattern, bits in self.overrides)])


class Protocol(TypedDict):
    """The fields of a scheme that a protocol decides."""

    weight_granularity: Granularity
    weight_symmetric: bool
    weight_range: Estimator
    activation_range: Estimator
    fold: bool
    reestimate: bool


PROTOCOLS: dict[str, Protocol] = {
    "deploy": {
        "weight_granularity": "channel",
        "weight_symmetric": True,
        "weight_range": "minmax",
        "activation_range": "minmax",
        "fold": True,
        "reestimate": True,
    },
    # As published: post-training quantization without any correction after it.
    "paper": {
        "weight_granularity": "tensor",
        "weight_symmetric": False,
        "weight_range": "minmax",
        "activation_range": "minmax",
        "fold": True,
        "reestimate": False,
    },
}


def _sorted_steps(steps: Iterable[str]) -> tuple[str, ...]:
    names = [steps] if isinstance(steps, str) else list(steps)
    for name in names:
        _check_choice("post-training step", name, POST_TRAINING_STEPS)
        if names.count(name) > 1:
            raise SchemeError(f"post-training step {name!r} is named more than once")
    return tuple(name for name in POST_TRAINING_STEPS if name in names)


def _parse_override(part: str, text: str) -> tuple[str, str]:
    pattern, equals, bits = part.partition("=")
    if not equals:
        raise SchemeError(f"scheme {text!r}: expected '+NAME=BITS' after the first bit-widths, got '+{part}'")
    return pattern, bits


def _check_choice(what: str, name: str, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if name not in names:
        raise SchemeError(f"unknown {what} {name!r}: allowed are {', '.join(names)}{nearest(str(name), names)}")
