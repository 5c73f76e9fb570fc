"""What is quantized to how many bits, and how: a frozen value that is written `w4a8`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, Self, get_args

from ghnq.errors import SchemeError, nearest

Granularity = Literal["channel", "tensor"]
Estimator = Literal["minmax", "percentile", "mse"]

GRANULARITIES: tuple[str, ...] = get_args(Granularity)
ESTIMATORS: tuple[str, ...] = get_args(Estimator)
MIN_BITS, MAX_BITS = 2, 16

STEPS: dict[str, str] = {
    "equalize": "cross-layer equalization of the float weights",
    "search_weights": "weight scales of least squared error (`weight_range: mse`)",
    "search_activations": "activation ranges of least squared error (`activation_range: mse`)",
    "squant": "weights rounded so that rounding errors cancel within kernels and channels",
    "correct_bias": "mean error of each output channel taken into the bias",
}
"""Post-training steps that a scheme may name, in the order in which they are carried out, and what each does."""

GRAMMAR = f"'float32', 'w8a8' (weights and activations) or 'w4' (weights only), with {MIN_BITS} to {MAX_BITS} bits"
_COMMON = ("float32", "w8a8", "w4a8", "w4a4", "w2a2", "w8", "w4", "w2")
SHOWN = 8
"""Layers that a message names."""
_SHAPE = re.compile(r"w(\d+)(?:a(\d+))?")


class LayerBits(NamedTuple):
    """Bit-widths of one layer's weight and of its input activation; None leaves that side in float."""

    weight: int | None
    activation: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads one bit-width word.

        Raises:
            SchemeError: the word is not of the grammar, or a bit-width is out of range.

        >>> LayerBits.parse("w4a8")
        LayerBits(weight=4, activation=8)
        >>> LayerBits.parse("w4")
        LayerBits(weight=4, activation=None)
        """
        if text == "float32":
            return cls(None, None)
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise SchemeError(f"unknown scheme {text!r}: expected {GRAMMAR}{nearest(text, _COMMON)}")
        bits = cls(int(match[1]), None if match[2] is None else int(match[2]))
        bits.check(text)
        return bits

    def check(self, origin: str) -> None:
        """Raises SchemeError where a bit-width is out of range, or activations alone are quantized."""
        for side, bits in zip(("weight", "activation"), self, strict=True):
            if bits is not None and not MIN_BITS <= bits <= MAX_BITS:
                near = min(max(bits, MIN_BITS), MAX_BITS)
                raise SchemeError(
                    f"scheme {origin!r} asks for {bits} {side} bits: allowed are {MIN_BITS} to {MAX_BITS} "
                    f"(the nearest is {near})"
                )
        if self.weight is None and self.activation is not None:
            raise SchemeError(f"scheme {origin!r} quantizes activations but not weights: expected {GRAMMAR}")

    def __str__(self) -> str:
        if self.weight is None:
            return "float32"
        return f"w{self.weight}" if self.activation is None else f"w{self.weight}a{self.activation}"


@dataclass(frozen=True, kw_only=True)
class QuantScheme:
    """Bit-widths, granularity and range estimators of a quantized network.

    Placement is fixed: the weight and the input activation of every convolution and linear layer. Activations are
    quantized per tensor, asymmetric, unsigned; asymmetric weights are unsigned too, symmetric weights are signed and
    use the narrow range -(2^(b-1)-1) .. 2^(b-1)-1.

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
    """Quantize the weight with the batch norm folded into it, as deployed; False exists for comparison."""
    reestimate: bool = True
    """Estimate the batch-norm statistics once more, through the quantized network, before folding."""
    variance_floor: float = 0.0
    """Before folding, norm variances below this fraction of their layer's median are raised to it; 0 leaves them.

    A channel that is dead on the calibration images has variance 0 and thus a gain of gamma / sqrt(eps) (316 gamma for
    eps 1e-5). Per-channel weights do not mind. Per-tensor weights do: one such channel takes the whole grid.
    """
    overrides: tuple[tuple[str, LayerBits], ...] = ()
    """(module name or fnmatch pattern, bits); the last one that matches a layer wins."""
    steps: tuple[str, ...] = ()
    """Names of STEPS that are carried out besides; kept in the order of the pipeline, in whatever order they come."""

    def __post_init__(self) -> None:
        self.bits.check(str(self.bits))
        for pattern, bits in self.overrides:
            if not pattern or set("+=") & set(pattern):
                raise SchemeError(f"override pattern {pattern!r}: expected a module name or a pattern like 'blocks.*'")
            bits.check(f"{pattern}={bits}")
        if not 0 <= self.variance_floor <= 1:
            raise SchemeError(f"variance_floor must be a fraction from 0 to 1, got {self.variance_floor}")
        object.__setattr__(self, "steps", _in_order(self.steps))
        _check_word("weight granularity", self.weight_granularity, GRANULARITIES)
        _check_word("weight range estimator", self.weight_range, ESTIMATORS)
        _check_word("activation range estimator", self.activation_range, ESTIMATORS)

    @classmethod
    def parse(cls, text: "str | QuantScheme", *, protocol: str = "deploy", **changes: Any) -> "QuantScheme":
        """Reads `w4a8`, or `w4a4+stem=w8a8+head.*=float32` with overrides; a QuantScheme passes through unchanged.

        Args:
            text: a word, or the path of a scheme file (`.yaml` or `.yml`, see `ghnq.quant.scheme_file`), which says
                its protocol itself.
            protocol: `deploy` or `paper` (PROTOCOLS): fills every field that is not a bit-width.
            changes: fields that differ from the protocol, for example `fold=False`.

        Raises:
            SchemeError: the text, the protocol or a changed value is unknown, or the file is not a scheme.
        """
        if isinstance(text, QuantScheme):
            return replace(text, **changes) if changes else text
        if is_scheme_file(text):
            from ghnq.quant.scheme_file import load_scheme

            return cls.parse(load_scheme(text), **changes)
        _check_word("protocol", protocol, PROTOCOLS)
        head, *rest = text.strip().split("+")
        bits = LayerBits.parse(head)
        fields = PROTOCOLS[protocol] | changes
        scheme = cls(weight_bits=bits.weight, activation_bits=bits.activation, **fields)
        return scheme.override(_parse_override(part, text) for part in rest) if rest else scheme

    def override(self, layers: Mapping[str, str] | Iterable[tuple[str, str]]) -> "QuantScheme":
        """Returns the scheme with other bits for the layers whose module name matches; later patterns win.

        Raises:
            SchemeError: a value is not a bit-width word.
        """
        pairs = layers.items() if isinstance(layers, Mapping) else layers
        added = tuple((pattern, LayerBits.parse(word)) for pattern, word in pairs)
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
        """Raises SchemeError for an override that matches none of these layers."""
        names = list(layers)
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(name, pattern) for name in names):
                shown, more = ", ".join(names[:SHOWN]), len(names) - SHOWN
                raise SchemeError(
                    f"override {pattern!r} matches no layer{nearest(pattern, names)}: "
                    f"layers are {shown or 'none'}" + (f" and {more} more" if more > 0 else "")
                )

    @property
    def is_float(self) -> bool:
        """True where nothing is quantized."""
        return self.weight_bits is None and all(bits.weight is None for _, bits in self.overrides)

    @property
    def folding_commutes(self) -> bool:
        """True where quantizing and scaling output channels may change places (symmetric, per channel)."""
        return self.weight_symmetric and self.weight_granularity == "channel"

    @property
    def carried_out(self) -> "QuantScheme":
        """The scheme with the range estimators that its steps ask for."""
        asked = {"search_weights": "weight_range", "search_activations": "activation_range"}
        changes: dict[str, Any] = {field: "mse" for step, field in asked.items() if step in self.steps}
        return replace(self, **changes) if changes else self

    @property
    def protocol(self) -> str:
        """Name of the protocol whose fields these are, or `custom`."""
        for name, fields in PROTOCOLS.items():
            if all(getattr(self, field) == value for field, value in fields.items()):
                return name
        return "custom"

    def __str__(self) -> str:
        return "+".join([str(self.bits), *(f"{pattern}={bits}" for pattern, bits in self.overrides)])


PROTOCOLS: dict[str, dict[str, Any]] = {
    "deploy": {
        "weight_granularity": "channel",
        "weight_symmetric": True,
        "weight_range": "minmax",
        "activation_range": "minmax",
        "fold": True,
        "reestimate": True,
    },
    # The published setting: plain post-training quantization, nothing repaired after it.
    "paper": {
        "weight_granularity": "tensor",
        "weight_symmetric": False,
        "weight_range": "minmax",
        "activation_range": "minmax",
        "fold": True,
        "reestimate": False,
    },
}


def is_scheme_file(text: str) -> bool:
    """True where the text names a scheme file rather than being a scheme's word."""
    return text.lower().endswith((".yaml", ".yml"))


def _in_order(steps: Iterable[str]) -> tuple[str, ...]:
    given = [steps] if isinstance(steps, str) else list(steps)
    for step in given:
        _check_word("post-training step", step, STEPS)
        if given.count(step) > 1:
            raise SchemeError(f"post-training step {step!r} is named more than once")
    return tuple(step for step in STEPS if step in given)


def _parse_override(part: str, text: str) -> tuple[str, str]:
    pattern, equals, word = part.partition("=")
    if not equals:
        raise SchemeError(f"scheme {text!r}: expected '+NAME=BITS' after the first word, got '+{part}'")
    return pattern, word


def _check_word(what: str, word: str, allowed: Iterable[str]) -> None:
    words = list(allowed)
    if word not in words:
        raise SchemeError(f"unknown {what} {word!r}: allowed are {', '.join(words)}{nearest(str(word), words)}")
