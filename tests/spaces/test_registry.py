"""Spaces by name: registered, as entry points, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ghnq import spaces
from ghnq.errors import SpaceError
from ghnq.graph import trace
from ghnq.spaces import Cost, convnets
from ghnq.spaces.registry import ENTRY_POINTS
from tests.spaces.tiny_space import SPACE, TinySpace


@pytest.fixture(autouse=True)
def only_the_own_spaces() -> Iterator[None]:
    """Every test ends with the spaces of the package alone."""
    yield
    spaces.unregister("tiny")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a package whose only content is an entry point."""

    def install(name: str, value: str) -> None:
        folder = tmp_path / "tiny_package-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny_package\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_the_own_space_is_registered() -> None:
    assert spaces.names() == ("convnets",)
    assert spaces.get("convnets") is convnets.SPACE


def test_an_unknown_space_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpaceError, match=r"no space 'convnet' \(did you mean 'convnets'\?\); spaces are convnets"):
        spaces.get("convnet")


def test_a_registered_space_is_found_and_its_members_are_resolved() -> None:
    spaces.register(SPACE)
    spaces.register(SPACE)  # again, by another module that imports it
    assert spaces.names() == ("convnets", "tiny")
    assert spaces.resolve("tiny/test/1") == (SPACE, SPACE.spec("test", 1))
    with pytest.raises(SpaceError, match="no tiny/test/3"):
        spaces.resolve("tiny/test/3")


def test_an_entry_point_is_found(install: Callable[[str, str], None]) -> None:
    install("tiny", "tests.spaces.tiny_space:SPACE")
    assert spaces.names() == ("convnets", "tiny")
    assert spaces.get("tiny") is SPACE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tiny", "tests.spaces.no_such_module:SPACE", "cannot be imported from tests.spaces.no_such_module:SPACE"),
        ("tiny", "tests.spaces.tiny_space:NO_SPACE", "cannot be imported"),
        ("small", "tests.spaces.tiny_space:SPACE", "is a space with the name 'tiny'"),
    ],
)
def test_a_wrong_entry_point_is_refused(
    install: Callable[[str, str], None], name: str, value: str, message: str
) -> None:
    install(name, value)
    with pytest.raises(SpaceError, match=message):
        spaces.get(name)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "convnets"}, "already is a space 'convnets'"),
        ({"name": "a/b"}, "without '/'"),
        ({"name": ""}, "without '/'"),
        ({"splits": {"test": 3}}, "needs a split 'train'"),
        ({"splits": {"train": 3, "test": 0}}, "no empty split"),
    ],
)
def test_a_wrong_space_is_refused(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        spaces.register(type("Wrong", (TinySpace,), attributes)())


def test_the_cost_of_a_graph_is_the_analytic_one() -> None:
    for split in convnets.SPLITS:
        spec = convnets.spec(split, 3)
        analytic, traced = convnets.cost(spec), Cost.from_graph(trace(convnets.build(spec, device="meta")))
        for name in ("parameters", "multiply_adds", "depth", "ops", "nodes"):
            assert getattr(traced, name) == getattr(analytic, name), (split, name)
        assert traced.width >= analytic.width
