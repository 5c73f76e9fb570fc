"""The splits are pure, disjoint, duplicate-free, and of the sizes they promise."""

import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from ghnq.errors import SpaceError
from ghnq.spaces import convnets, resolve
from ghnq.spaces.convnets.random_draws import Categorical, RandomStream
from ghnq.spaces.convnets.specs import Stages, join_kind
from ghnq.spaces.convnets.splits import split_of_hash

EVALUATION = [split for split in convnets.SPLITS if split != "train"]
# Members drawn once for all tests here. Changing the distribution changes these: then the published splits change too.
KNOWN = {
    "convnets/train/17": "68aa51f5b4a3026d",
    "convnets/val/17": "039cc7093364994f",
    "convnets/test/17": "3181b6d4c46b4c06",
    "convnets/deep/17": "03e531051f6ed284",
    "convnets/wide/17": "21683d112e1487a5",
    "convnets/dense/17": "efa44faafd406fc1",
    "convnets/bnfree/17": "ed78d023a4b1f7f6",
}


@pytest.fixture(scope="module")
def train():
    return [convnets.spec("train", index) for index in range(1000)]


@pytest.fixture(scope="module")
def shifted():
    return {
        split: [convnets.spec(split, index) for index in range(12)] for split in ("deep", "wide", "dense", "bnfree")
    }


def test_sizes():
    assert convnets.SPLITS == {
        "train": 250_000, "val": 500, "test": 500, "deep": 100, "wide": 100, "dense": 100, "bnfree": 100,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "start"), KNOWN.items())
def test_members_are_the_published_ones(name, start):
    assert resolve(name)[1].structure_hash[:16] == start


def test_another_process_with_another_hash_seed_draws_the_same():
    names = [f"convnets/{split}/{index}" for split in convnets.SPLITS for index in (0, 7)]
    code = (
        "import sys\nfrom ghnq.spaces import resolve\nfor name in sys.argv[1:]: print(resolve(name)[1].structure_hash)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [resolve(name)[1].structure_hash for name in names]


def test_drawing_leaves_the_global_generators_alone():
    before = random.getstate(), np.random.get_state()[1:3]  # noqa: NPY002
    first = convnets.spec("test", 3)
    after = random.getstate(), np.random.get_state()[1:3]  # noqa: NPY002
    assert after[0] == before[0]
    assert after[1][1] == before[1][1]
    assert (after[1][0] == before[1][0]).all()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert convnets.spec("test", 3) == first


def test_every_hash_belongs_to_one_split():
    shares = Counter(split_of_hash(f"{number:064x}") for number in range(100))
    assert set(shares) == set(convnets.SPLITS)
    assert split_of_hash("ff") == split_of_hash(f"{255 % 100:x}")
    for split in convnets.SPLITS:
        assert split_of_hash(convnets.spec(split, 5).structure_hash) == split


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_evaluation_member_is_in_train_or_in_another_split():
    seen: dict[str, str] = {}
    for split in EVALUATION:
        for index in range(convnets.SPLITS[split]):
            structure = convnets.spec(split, index).structure_hash
            assert structure not in seen, f"{split}/{index} is also {seen[structure]}"
            seen[structure] = f"{split}/{index}"
    train = [convnets.spec("train", index).structure_hash for index in range(0, 250_000, 12)]
    assert len(train) > 20_000
    assert seen.keys().isdisjoint(train)
    assert len(set(train)) > 0.999 * len(train)


def test_train_members_have_the_promised_sizes(train):
    costs = [convnets.cost(spec) for spec in train]
    for found in costs:
        wide = found.width > 256
        assert 500_000 <= found.multiply_adds <= (50_000_000 if wide else 20_000_000)
        assert 5_000 <= found.parameters <= (8_000_000 if wide else 1_000_000)
        assert 32 <= found.width <= 1024
        assert 5 <= found.depth <= 36
    assert 50_000 < np.median([p.parameters for p in costs]) < 150_000
    assert 3_000_000 < np.median([p.multiply_adds for p in costs]) < 6_000_000
    assert 35 < np.median([p.nodes for p in costs]) < 80
    assert all(p.spatial_convs >= 4 for p in costs)


def test_train_is_varied(train):
    stages = [spec.body for spec in train if isinstance(spec.body, Stages)]
    cells = [spec.body for spec in train if not isinstance(spec.body, Stages)]
    assert min(len(stages), len(cells)) > 0.3 * len(train)
    blocks = [block for body in stages for stage in body.stages for block in stage.blocks]
    assert {block.kind for block in blocks} == {"conv", "separable", "inverted", "basic", "bottleneck"}
    assert {join_kind(block) for block in blocks} == {"none", "sum", "concat"}
    assert {(block.kind, block.kernel) for block in blocks if block.kind != "basic"} == {
        ("conv", 1), ("conv", 3), ("conv", 5), ("separable", 3), ("separable", 5), ("separable", 7), ("inverted", 3),
        ("inverted", 5), ("inverted", 7), ("bottleneck", 3), ("bottleneck", 5),
    }  # fmt: skip
    assert {stage.downsample for body in stages for stage in body.stages} == {"none", "stride", "max_pool", "avg_pool"}
    ops = {edge.op for body in cells for node in body.normal.nodes for edge in node}
    assert len(ops) == 12
    assert {body.preprocess for body in cells} == {True, False}
    assert {spec.stem.stride for spec in train} == {1, 2}
    assert {spec.stem.kernel for spec in train} == {3, 5, 7}
    assert 0.2 < np.mean([spec.hidden is not None for spec in train]) < 0.5
    channels = {spec.stem.channels for spec in train} | {block.channels for block in blocks}
    assert {12, 20, 24, 28, 40, 72} <= channels
    assert all(channel % 4 == 0 for channel in channels)


def test_a_share_of_train_is_as_wide_as_the_split_wide(train, shifted):
    wide = [spec for spec in train if convnets.cost(spec).width > 256]
    assert 0.08 < len(wide) / len(train) < 0.16
    assert {spec.family for spec in wide} == {"stages", "cells"}
    assert {spec.norm for spec in wide} == {"bn", None}
    widths = [convnets.cost(spec).width for spec in wide]
    assert min(widths) < 288 < np.median(widths) < 400
    assert max(widths) > np.median([convnets.cost(spec).width for spec in shifted["wide"]])


def test_wide_members_of_train_left_the_others_as_they_were():
    """Structure hashes from before `train` had wide members; 17 is one of those that became wide."""
    before = {16: "b41f034c7c661ebc", 19: "c40131fd3253dccb"}
    assert {index: convnets.spec("train", index).structure_hash[:16] for index in before} == before
    assert convnets.spec("train", 17).structure_hash[:16] != "24590ab96eb40a36"


def test_norms(train, shifted):
    assert {spec.norm for spec in train} == {"bn", None}
    assert 0.1 < np.mean([spec.norm is None for spec in train]) < 0.2
    assert {spec.norm for spec in shifted["bnfree"]} == {None}
    assert {spec.norm for split in ("deep", "wide", "dense") for spec in shifted[split]} == {"bn"}
    assert {convnets.spec(split, index).norm for split in ("val", "test") for index in range(10)} == {"bn"}


def _members(split, count):
    return [convnets.spec(split, index) for index in range(count)]


def _blocks(spec):
    return spec.body.num_blocks if isinstance(spec.body, Stages) else spec.body.count


def _concats(spec):
    return sum(join_kind(block) == "concat" for stage in spec.body.stages for block in stage.blocks)


def test_deep_and_dense_lie_beyond_train_and_wide_beyond_val_and_test(train, shifted):
    deepest = max(convnets.cost(spec).depth for spec in train)
    assert min(convnets.cost(spec).depth for spec in shifted["deep"]) > deepest
    widest = max(convnets.cost(spec).width for split in ("val", "test") for spec in _members(split, 60))
    assert widest <= 256 < min(convnets.cost(spec).width for spec in shifted["wide"])
    for family in ("stages", "cells"):
        blocks = max(_blocks(spec) for spec in train if spec.family == family)
        deep = [spec for spec in shifted["deep"] if spec.family == family]
        assert deep, "the sample has no deep network of this family"
        assert min(_blocks(spec) for spec in deep) > blocks
    dense = {family: [s for s in shifted["dense"] if s.family == family] for family in ("stages", "cells")}
    most = max(_concats(spec) for spec in train if spec.family == "stages")
    assert min(_concats(spec) for spec in dense["stages"]) > most
    nodes = max(len(spec.body.normal.nodes) for spec in train if spec.family == "cells")
    assert min(len(spec.body.normal.nodes) for spec in dense["cells"]) > nodes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("convnets/tset/17", "did you mean 'test'"),
        ("convnet/test/17", "did you mean 'convnets'"),
        ("convnets/test", "space/split/index"),
        ("convnets/test/17/1", "space/split/index"),
        ("convnets/test/x", "integer"),
        ("convnets/test/-1", "integer"),
        ("convnets/test/1.0", "integer"),
        ("convnets/test/\u0663", "integer"),
        ("convnets/test/500", "0 to 499"),
        ("", "space/split/index"),
    ],
)
def test_wrong_names(name, said):
    with pytest.raises(SpaceError, match=said):
        resolve(name)


@pytest.mark.parametrize("index", [-1, 500, 10**30, 1.0, "1", None, True, [1]])
def test_wrong_indices(index):
    with pytest.raises(SpaceError, match=r"convnets/test"):
        convnets.spec("test", index)


def test_numpy_integers_are_indices():
    assert convnets.spec("val", np.int64(3)) == convnets.spec("val", 3)


def test_random_numbers_have_the_right_frequencies():
    rng = RandomStream("fair")
    table = Categorical({"a": 1, "b": 2, "c": 1})
    drawn = Counter(rng.choice(table) for _ in range(20_000))
    assert abs(drawn["b"] / 20_000 - 0.5) < 0.02
    assert abs(drawn["a"] / 20_000 - 0.25) < 0.02
    integers = Counter(rng.integer(1, 6) for _ in range(20_000))
    assert sorted(integers) == [1, 2, 3, 4, 5, 6]
    assert max(integers.values()) < 1.1 * 20_000 / 6
    assert len({RandomStream("fair").uniform() for _ in range(3)}) == 1
    assert RandomStream("fair").uniform() != RandomStream("other").uniform()
