"""Specs: exact JSON, stable hashes, and no spec that means nothing."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ghnq.errors import SpaceError
from ghnq.spaces import convnets
from ghnq.spaces.convnets.specs import (
    BasicBlock,
    BottleneckBlock,
    Cells,
    ConvBlock,
    Edge,
    Genotype,
    SeparableBlock,
    Spec,
    Stage,
    Stages,
    Stem,
)

NODE = (Edge(op="conv_3x3", source=0), Edge(op="max_pool_3x3", source=1))
CELL = Genotype(nodes=(NODE,), concat=(2,))
SKIPPING = Genotype(nodes=((Edge(op="conv_1x1", source=0), Edge(op="skip", source=1)),), concat=(2,))


def stages(*blocks, downsample="none", stem=16):
    return Spec(
        norm="bn",
        stem=Stem(channels=stem, kernel=3, stride=2),
        body=Stages(stages=(Stage(downsample=downsample, blocks=blocks),)),
        hidden=None,
    )


def cells(normal=CELL, reduction=CELL, stride=1):
    body = Cells(count=3, channels=(8, 16, 32), preprocess=True, normal=normal, reduction=reduction)
    return Spec(norm=None, stem=Stem(channels=8, kernel=5, stride=stride), body=body, hidden=32)


@settings(max_examples=40)
@given(split=st.sampled_from(["train", "val", "test", "bnfree"]), index=st.integers(0, 99))
def test_json_comes_back_exactly(split, index):
    spec = convnets.spec(split, index)
    again = Spec.from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert again.structure_hash == spec.structure_hash
    assert hash(again) == hash(spec)
    # Neither the order of keys nor white space makes another architecture.
    loose = json.dumps(dict(reversed(json.loads(spec.to_json()).items())), indent=2)
    assert Spec.from_json(loose).structure_hash == spec.structure_hash


@pytest.mark.parametrize("split", ["deep", "wide", "dense"])
def test_shifted_json_comes_back_exactly(split):
    spec = convnets.spec(split, 1)
    assert Spec.from_json(spec.to_json()) == spec


def test_hash_is_sha256_of_the_canonical_json():
    # Written out by hand: this hash is part of what the splits are.
    text = (
        '{"body":{"family":"stages","stages":[{"blocks":[{"channels":32,"kind":"basic"}],"downsample":"stride"}]},'
        '"hidden":null,"norm":"bn","stem":{"channels":16,"kernel":3,"stride":2}}'
    )
    spec = stages(BasicBlock(channels=32), downsample="stride")
    assert spec.to_json() == text
    assert spec.structure_hash == "170ebab71fcab61882bb4a8346c0a64cbd6c75320404a30010d3b243c790e023"


def test_the_order_of_a_sum_does_not_matter():
    assert Genotype(nodes=(NODE[::-1],), concat=(2,)) == CELL


def test_specs_are_frozen_and_travel_between_processes():
    spec = stages(BasicBlock(channels=32))
    with pytest.raises(ValidationError, match="frozen"):
        spec.hidden = 3
    assert spec.structure_hash
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(norm="ln"), "norm"),
        (lambda d: d.update(size=3), "size"),
        (lambda d: d.pop("stem"), "stem"),
        (lambda d: d["stem"].update(stride=3), "stem.stride"),
        (lambda d: d["stem"].update(channels="16"), "stem.channels"),
        (lambda d: d["stem"].update(channels=0), "stem.channels"),
        (lambda d: d["stem"].update(channels=16.5), "stem.channels"),
        (lambda d: d["body"].update(family="trees"), "body"),
        (lambda d: d["body"].update(stages=[]), "stages"),
        (lambda d: d["body"]["stages"][0].update(blocks=[]), "blocks"),
        (lambda d: d["body"]["stages"][0]["blocks"][0].update(kind="dense"), "dense"),
        (lambda d: d["body"]["stages"][0]["blocks"][0].update(kernel=3), "kernel"),
    ],
)
def test_wrong_json_names_the_field(change, said):
    document = json.loads(stages(BasicBlock(channels=32)).to_json())
    change(document)
    with pytest.raises(SpaceError, match=said):
        Spec.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", b"\xff\xfe", '{"norm": "bn"'])
def test_no_spec_at_all(text):
    with pytest.raises(SpaceError, match="not a ConvNets spec"):
        Spec.from_json(text)


def test_a_wrong_operation_gets_the_list():
    text = cells().to_json().replace("conv_3x3", "conv_9x9")
    with pytest.raises(SpaceError, match="conv_1x7_7x1"):
        Spec.from_json(text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stages(ConvBlock(channels=24, kernel=3, join="sum")), "cannot add 16 input channels to its 24"),
        (lambda: stages(ConvBlock(channels=16, kernel=3, join="sum"), downsample="stride"), "stride 2"),
        (lambda: stages(SeparableBlock(channels=8, kernel=3, join="concat"), downsample="stride"), "stride 2"),
        (lambda: stages(BottleneckBlock(channels=18, kernel=3, reduction=4)), "divide"),
        (lambda: cells(reduction=SKIPPING), "conv_1x1"),
    ],
)
def test_blocks_that_do_not_fit(make, said):
    with pytest.raises(ValidationError, match=said):
        make()


def test_more_than_three_downsamplings():
    four = Stages(stages=(Stage(downsample="max_pool", blocks=(BasicBlock(channels=8),)),) * 3)
    with pytest.raises(ValidationError, match="at most 3"):
        Spec(norm="bn", stem=Stem(channels=8, kernel=3, stride=2), body=four, hidden=None)
    assert cells(stride=2).body.downsamplings == 2


def edges(*pairs):
    return tuple(Edge(op=op, source=source) for op, source in pairs)


@pytest.mark.parametrize(
    ("nodes", "concat", "said"),
    [
        ([edges(("conv_1x1", 0))], (2,), "state 1"),
        ([edges(("conv_1x1", 1)), edges(("conv_1x1", 1))], (3,), "state 2"),
        ([edges(("conv_1x1", 2), ("conv_1x1", 1))], (2,), "before"),
        ([edges(("conv_1x1", 1), ("conv_3x3", 1))], (2,), "twice"),
        ([edges(("skip", 1))], (2,), "computes nothing new"),
        ([edges(("skip", 0), ("skip", 1))], (2,), "computes nothing new"),
        ([edges(("conv_1x1", 1)), edges(("skip", 2))], (3,), "computes nothing new"),
        ([edges(("conv_1x1", 1))], (1, 2), "increasing node numbers"),
        ([edges(("conv_1x1", 1))], (2, 2), "increasing node numbers"),
        ([edges(("conv_1x1", 1))], (3,), "increasing node numbers"),
        ([edges(("conv_1x1", 1)), edges(("conv_1x1", 1))], (3, 2), "increasing node numbers"),
        ([()], (2,), "nodes"),
        ([], (2,), "nodes"),
        ([edges(("conv_1x1", 1))], (), "concat"),
        ([edges(("conv_1x1", 0), ("conv_1x1", 1), ("skip", 1))], (2,), "nodes"),
    ],
)
def test_unused_states_and_invalid_cells(nodes, concat, said):
    with pytest.raises(ValidationError, match=said):
        Genotype(nodes=tuple(nodes), concat=concat)
