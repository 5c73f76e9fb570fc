"""Words become candidates; what cannot be used is listed with its reason, and mistakes in the command are told."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from torch import nn

from ghnq import spaces
from ghnq.errors import GhnqError, GraphError, SpaceError
from ghnq.models import load_model
from ghnq.search.candidate_words import read_candidates
from ghnq.spaces.spec_file import read_spec_file, write_spec_file

SOURCE = """
import itertools
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, width, 3), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))

def build():
    return Net(6)

LIST = [Net(3), Net, build, 7]
ZOO = {"small": Net(2), "a:b[c]": lambda: Net(9), 3: build}

def endless():
    for width in itertools.count(1):
        yield lambda width=width: Net(width)

def three():
    yield from (Net(1), Net(2))
    raise RuntimeError("my own mistake")

def as_list():
    return [Net(1), Net(2)]

def broken():
    raise RuntimeError("my own mistake")

def huge():
    return nn.Linear(1 << 22, 1 << 22)

LIVE = (Net(width) for width in (5, 6))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file with networks in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path


def width_of(module: nn.Module) -> int:
    return int(next(module.parameters()).shape[0])


@pytest.mark.parametrize(
    ("word", "widths"),
    [
        ("nets.py:Net", {"nets.py:Net": 4}),
        ("nets.py:build", {"nets.py:build": 6}),
        ("nets.py:LIST", {"nets.py:LIST[0]": 3, "nets.py:LIST[1]": 4, "nets.py:LIST[2]": 6}),
        ("nets.py:LIST[2]", {"nets.py:LIST[2]": 6}),
        ("nets.py:ZOO", {"nets.py:ZOO[small]": 2, "nets.py:ZOO[a:b[c]]": 9, "nets.py:ZOO[3]": 6}),
        ("nets.py:as_list", {"nets.py:as_list[0]": 1, "nets.py:as_list[1]": 2}),
        ("nets.py:three", {"nets.py:three[0]": 1, "nets.py:three[1]": 2}),
        ("nets.py:LIVE", {"nets.py:LIVE[0]": 5, "nets.py:LIVE[1]": 6}),
    ],
)
def test_what_a_name_in_a_file_is(nets: Path, word: str, widths: dict[str, int]) -> None:
    found = read_candidates([word])
    assert {each.name: width_of(each.build((1, 8, 8), 10)) for each in found} == widths
    for name, width in widths.items():
        # The name is a model for every other command.
        assert width_of(load_model(name)) == width


def test_items_that_are_no_networks_are_listed(nets: Path) -> None:
    assert [(each.name, each.reason.split(";")[0]) for each in read_candidates(["nets.py:LIST"]).failures] == [
        ("nets.py:LIST[3]", "is of type int")
    ]
    assert [(each.name, each.reason) for each in read_candidates(["nets.py:three"]).failures] == [
        ("nets.py:three[2]", "RuntimeError: my own mistake")
    ]
    assert [(each.name, each.reason) for each in read_candidates(["nets.py:broken"]).failures] == [
        ("nets.py:broken", "RuntimeError: my own mistake")
    ]


def test_a_generator_that_never_ends_needs_a_number(nets: Path) -> None:
    with pytest.raises(GhnqError, match=r"more than 10,000 candidates.*--n"):
        read_candidates(["nets.py:endless"])
    found = read_candidates(["nets.py:endless"], n=3)
    assert {each.name: width_of(each.build((1, 8, 8), 10)) for each in found} == {
        f"nets.py:endless[{number}]": number + 1 for number in range(3)
    }
    assert width_of(load_model("nets.py:endless[41]")) == 42
    for key in ("x", "-1", "007"):
        with pytest.raises(GraphError, match="no item"):
            load_model(f"nets.py:endless[{key}]")


def test_a_network_larger_than_memory_is_refused_before_it_is_made(nets: Path) -> None:
    (candidate,) = read_candidates(["nets.py:huge"])
    with pytest.raises(GraphError, match=r"needs about [\d,.]+ GB of memory \(17,592,190,238,720 parameters"):
        candidate.build((1, 8, 8), 10)


def test_members_are_sampled_without_repetition_and_nested() -> None:
    few, many = (list(read_candidates(["convnets/train"], n=n, seed=3).usable) for n in (5, 9))
    assert many[:5] == few
    assert len(set(many)) == 9
    assert list(read_candidates(["convnets/train"], n=5, seed=4).usable) != few
    candidate = read_candidates(["convnets/test/7"]).usable["convnets/test/7"]
    assert candidate.spec == spaces.get("convnets").spec("test", 7)
    assert all(each.is_meta for each in candidate.build((1, 16, 16), 10).parameters())


def test_a_split_with_too_many_members_needs_a_number() -> None:
    with pytest.raises(SpaceError, match=r"250,000 members.*--n"):
        read_candidates(["convnets/train"])


def test_specs_are_read_from_files_and_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = spaces.get("convnets")
    write_spec_file(Path("specs/b.json"), "convnets", space.spec("test", 2))
    Path("specs/a.json").write_text(space.spec("test", 1).to_json())
    Path("specs/c.json").write_text('{"space": "convnets", "spec": {"norm": "bn"}}')
    Path("specs/d.json").write_text("[1, 2")
    found = read_candidates(["specs"])
    assert [each.name for each in found] == ["specs/a.json", "specs/b.json"]
    assert [each.spec for each in found] == [space.spec("test", 1), space.spec("test", 2)]
    assert [each.name for each in found.failures] == ["specs/c.json", "specs/d.json"]
    assert all(each.name in each.reason for each in found.failures)
    assert read_spec_file(Path("specs/b.json"))[1] == space.spec("test", 2)
    with pytest.raises(SpaceError, match=r"no file 'specs/bb.json' \(did you mean 'b.json'\?\)"):
        read_candidates(["specs/bb.json"])
    module = load_model("specs/b.json", input_shape=(1, 8, 8), num_classes=7)
    assert [tuple(each.shape) for each in module.parameters()] == [
        tuple(each.shape) for each in space.build(space.spec("test", 2), in_channels=1, num_classes=7).parameters()
    ]


def test_a_text_file_mixes_words(nets: Path) -> None:
    Path("list.txt").write_text("# mine\nconvnets/test/4\n\nnets.py:LIST  # all\nnets.py:Nett\nlist.txt\n")
    found = read_candidates(["list.txt", "convnets/test/5"])
    assert list(found.usable) == [
        "convnets/test/4", "nets.py:LIST[0]", "nets.py:LIST[1]", "nets.py:LIST[2]", "convnets/test/5"
    ]  # fmt: skip
    assert [each.name for each in found.failures] == ["nets.py:LIST[3]", "nets.py:Nett", "list.txt"]
    assert "did you mean 'Net'?" in found.failures[1].reason


@pytest.mark.parametrize("word", ["nets.py:LIST", "nets.py:ZOO", "nets.py:three", "convnets/test/7"])
def test_candidates_can_be_sent_to_another_process(nets: Path, word: str) -> None:
    for candidate in read_candidates([word]):
        again = pickle.loads(pickle.dumps(candidate))  # noqa: S301
        assert (again.name, again.spec) == (candidate.name, candidate.spec)
        assert width_of(again.build((1, 8, 8), 10)) == width_of(candidate.build((1, 8, 8), 10))


@pytest.mark.parametrize("words", [["nets.py:Net", "nets.py:Net"], ["nets.py:LIST", "nets.py:LIST[0]"]])
def test_two_candidates_of_one_name_are_refused(nets: Path, words: list[str]) -> None:
    with pytest.raises(GhnqError, match=r"two candidates have the name 'nets.py:(Net|LIST\[0\])'"):
        read_candidates(words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("convnet/train", "did you mean 'convnets'"),
        ("convnets/trian", "did you mean 'train'"),
        ("nets.py", "write nets.py:NAME"),
        ("nets.pi", "did you mean 'nets.py'"),
        ("nothing", "names no candidates"),
        ("nets.py:LIST[9]", r"no item \[9\]"),
        ("nets.py:ZOO[smal]", "did you mean 'small'"),
    ],
)
def test_a_word_that_names_nothing_is_a_mistake(nets: Path, word: str, said: str) -> None:
    with pytest.raises(GhnqError, match=said):
        read_candidates([word], n=2)
