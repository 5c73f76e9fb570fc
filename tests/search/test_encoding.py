"""Every combination of decisions is an architecture of the space's language, and bounds agree with drawn members."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghnq.errors import SpaceError
from ghnq.search.encoding.convnets import DECISIONS, decode
from ghnq.search.encoding.convnets_bounds import outside
from ghnq.search.encoding.decisions import Choice, Decision, Value
from ghnq.spaces import convnets
from ghnq.spaces.convnets.spec_cost import cost
from ghnq.spaces.convnets.specs import Cells, Spec, Stages


def value_of(decision: Decision) -> st.SearchStrategy[Value]:
    if isinstance(decision, Choice):
        return st.sampled_from(decision.options)
    return st.integers(0, (decision.high - decision.low) // decision.step).map(
        lambda k: decision.low + k * decision.step
    )


VALUES = st.fixed_dictionaries({name: value_of(decision) for name, decision in DECISIONS.items()})


@given(VALUES)
def test_all_values_make_an_architecture(values: dict[str, Value]) -> None:
    spec = decode(values)
    assert Spec.from_json(spec.to_json()) == spec
    assert spec.family == values["family"]
    assert (spec.stem.channels, spec.stem.kernel) == (values["stem.channels"], values["stem.kernel"])
    if isinstance(spec.body, Stages):
        assert spec.body.num_blocks == sum(values[f"stages.{stage}.blocks"] for stage in range(4))  # type: ignore[misc]
    else:
        assert spec.body.count == values["cells.count"]
    module = convnets.build(spec, device="meta")
    assert sum(p.numel() for p in module.parameters()) == cost(spec).parameters


@given(VALUES, VALUES)
def test_decisions_of_the_other_family_change_nothing(values: dict[str, Value], other: dict[str, Value]) -> None:
    unused = "cells." if values["family"] == "stages" else "stages."
    mixed = {name: (other if name.startswith(unused) else values)[name] for name in DECISIONS}
    assert decode(mixed) == decode(values)


@given(VALUES)
def test_a_concatenation_is_followed_by_a_projection(values: dict[str, Value]) -> None:
    body = decode(values | {"family": "cells"}).body
    assert isinstance(body, Cells)
    assert body.preprocess or len(body.normal.concat) == len(body.reduction.concat) == 1


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("index", range(40))
def test_drawn_members_are_within_all_bounds(split: str, index: int) -> None:
    assert set(outside(convnets.spec(split, index)).values()) == {0.0}


def test_what_exceeds_a_bound_is_told_by_how_much() -> None:
    small = convnets.spec("val", 0)
    wide = convnets.spec("wide", 0)
    assert outside(wide)["width"] == (cost(wide).width - 256) / 256
    assert outside(wide)["multiply-adds"] == max(0.0, (cost(wide).multiply_adds - 20e6) / 20e6)
    large = small.model_copy(update={"hidden": 4096, "stem": small.stem.model_copy(update={"channels": 4096})})
    assert outside(large)["parameters"] == (cost(large).parameters - 1_000_000) / 1e6 > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.kernel": 4}, "'stem.kernel' is one of 3, 5, 7, not 4"),
        ({"stem.kernel": "3"}, "not '3'"),
        ({"stem.channels": 10}, "an integer from 8 to 40 in steps of 4, not 10"),
        ({"cells.count": True}, "not True"),
        ({"stem.chanels": 8}, "no decision 'stem.chanels'"),
    ],
)
def test_values_that_are_not_allowed(change: dict[str, object], message: str) -> None:
    values = {name: d.options[0] if isinstance(d, Choice) else d.low for name, d in DECISIONS.items()}
    with pytest.raises(SpaceError, match=message):
        decode(values | change)  # type: ignore[arg-type]
    del values["hidden"]
    with pytest.raises(SpaceError, match="'hidden' has no value"):
        decode(values)
