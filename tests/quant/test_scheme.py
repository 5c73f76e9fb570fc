"""The notation of schemes, protocols, and messages."""

from __future__ import annotations

import doctest
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.errors import SchemeError
from ghnq.quant import LayerBits, affine, bit_widths
from ghnq.quant import scheme as scheme_module
from ghnq.quant.scheme import PROTOCOLS, QuantScheme

WIDTHS = st.integers(2, 16)
WORDS = st.one_of(st.just("float32"), st.builds("w{}".format, WIDTHS), st.builds("w{}a{}".format, WIDTHS, WIDTHS))
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[a-z0-9_*?]{1,8}){0,3}", fullmatch=True)


@pytest.mark.parametrize("module", [scheme_module, bit_widths, affine])
def test_the_examples_in_the_docstrings_hold(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("text", "weight", "activation"),
    [("float32", None, None), ("w8a8", 8, 8), ("w4a8", 4, 8), ("w4", 4, None), ("w2a2", 2, 2), ("w16a16", 16, 16)],
)
def test_reads_bit_widths(text: str, weight: int | None, activation: int | None) -> None:
    scheme = QuantScheme.parse(text)
    assert (scheme.weight_bits, scheme.activation_bits) == (weight, activation)
    assert scheme.is_float == (text == "float32")
    assert str(scheme) == text


@settings(max_examples=100)
@given(WORDS, st.lists(st.tuples(NAMES, WORDS), max_size=4), st.sampled_from(sorted(PROTOCOLS)))
def test_parsing_the_text_of_a_scheme_gives_the_scheme(
    word: str, overrides: list[tuple[str, str]], protocol: str
) -> None:
    scheme = QuantScheme.parse(word, protocol=protocol).override(overrides)
    again = QuantScheme.parse(str(scheme), protocol=protocol)
    assert again == scheme
    assert hash(again) == hash(scheme)
    assert scheme.protocol == protocol


def test_protocols() -> None:
    deploy, paper = QuantScheme.parse("w4a8"), QuantScheme.parse("w4a8", protocol="paper")
    assert (deploy.weight_granularity, deploy.weight_symmetric, deploy.folding_commutes) == ("channel", True, True)
    assert (paper.weight_granularity, paper.weight_symmetric, paper.folding_commutes) == ("tensor", False, False)
    assert deploy.fold
    assert paper.fold
    assert {scheme.weight_range for scheme in (deploy, paper)} == {"minmax"}
    assert QuantScheme.parse("w4a8", fold=False).protocol == "custom"
    assert QuantScheme.parse("w4a8", protocol="paper", weight_range="mse").weight_range == "mse"


def test_parse_accepts_a_scheme_and_changes() -> None:
    scheme = QuantScheme.parse("w4a8", protocol="paper")
    assert QuantScheme.parse(scheme) is scheme
    assert QuantScheme.parse(scheme, reestimate=True).weight_granularity == "tensor"
    with pytest.raises(FrozenInstanceError):
        scheme.weight_bits = 2


def test_the_last_matching_override_wins() -> None:
    scheme = QuantScheme.parse("w2a2").override({"*": "w4a4", "stem": "w8a8"}).override({"blocks.?.conv": "float32"})
    assert scheme.bits_for("stem") == LayerBits(8, 8)
    assert scheme.bits_for("blocks.3.conv") == LayerBits(None, None)
    assert scheme.bits_for("blocks.3.fc") == LayerBits(4, 4)
    assert not QuantScheme.parse("float32").override({"stem": "w8"}).is_float
    assert QuantScheme.parse("float32").override({"stem": "float32"}).is_float


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("w4a8x", ["'w4a8x'", "float32", "did you mean 'w4a8'"]),
        ("", ["''", "float32"]),
        ("int8", ["'int8'", "w8a8"]),
        ("float23", ["did you mean 'float32'"]),
        ("w1a8", ["1 weight bits", "2 to 16", "nearest is 2"]),
        ("w8a17", ["17 activation bits", "nearest is 16"]),
        ("a8", ["'a8'", "weights only"]),
        ("w08", ["8"]),
        ("W8A8", ["'W8A8'"]),
        ("w4a4+stem", ["+NAME=BITS", "'+stem'"]),
        ("w4a4+stem=w99", ["99 weight bits"]),
        ("w4a4+=w8", ["override pattern ''"]),
    ],
)
def test_invalid_notation_is_refused(text: str, parts: list[str]) -> None:
    if text == "w08":
        assert QuantScheme.parse(text) == QuantScheme.parse("w8")
        return
    with pytest.raises(SchemeError) as caught:
        QuantScheme.parse(text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"protocol": "deply"}, ["protocol 'deply'", "deploy, paper", "did you mean 'deploy'"]),
        ({"weight_range": "min-max"}, ["weight range estimator", "did you mean 'minmax'"]),
        ({"activation_range": "entropy"}, ["activation range estimator", "minmax, percentile, mse"]),
        ({"weight_granularity": "chanel"}, ["granularity", "did you mean 'channel'"]),
    ],
)
def test_invalid_choices_are_refused(changes: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(SchemeError) as caught:
        QuantScheme.parse("w4a8", **changes)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("floor", [-0.1, 1.5, float("nan")])
def test_a_variance_floor_is_a_fraction(floor: float) -> None:
    with pytest.raises(SchemeError, match="fraction from 0 to 1"):
        QuantScheme.parse("w8a8", variance_floor=floor)


def test_activations_alone_are_refused() -> None:
    with pytest.raises(SchemeError, match="activations but not weights"):
        QuantScheme(weight_bits=None, activation_bits=8)
