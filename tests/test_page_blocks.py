"""What the tests of the site's code accept as the output that a page claims (docs/conftest.py)."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="runs the blocks of the site; it comes with the extra `test`")


@pytest.fixture(scope="module")
def same(repo_root: Path) -> Callable[[str, str], bool]:
    function: Callable[[str, str], bool] = runpy.run_path(str(repo_root / "docs" / "conftest.py"))["same_output"]
    return function


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("91.1 % right\n", "91.1 % right\n"),
        ("  a   b\nc\n", "a b\n\nc"),
        ("91.1 % right", "89.2 % right"),  # within 2 points
        ("27,135 parameters", "27,700 parameters"),  # within a twentieth
        ("took 130 s", "took 7 s"),
        ("in 0.1 min, then 3.5 seconds", "in 12.9 min, then 0.1 seconds"),
        ("first\n...\nlast", "first\nwhatever 12\nlast"),
        ("drop -2.50", "drop -1.00"),
        ("┏━━━━┓\n│ x  │", "┏━━━━━━━━┓\n│ x      │"),
        ("a.b (c) [d]* +", "a.b (c) [d]* +"),
        ("w4a8 and sha 4fe9b9580807", "w4a8 and sha 4fe9b9580807"),
    ],
)
def test_accepted(same: Callable[[str, str], bool], page: str, printed: str) -> None:
    assert same(page, printed)


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        ("91.1 % right", "88.9 % right"),
        ("27,135 parameters", "30,000 parameters"),
        ("10 nodes", "11 nodes"),  # small counts are exact
        ("10 nodes", "10 nodes, 3 edges"),
        ("nothing else", "nothing else\nTraceback"),
        ("w4a8", "w8a8"),
        ("sha 4fe9b9580807", "sha 4fe9b9580808"),
        ("took 130 s", "took long"),
        ("first\n...\nlast", "first\nlast one"),
        ("accuracy 91.1", "accuracy nan"),
        ("", "something"),
    ],
)
def test_refused(same: Callable[[str, str], bool], page: str, printed: str) -> None:
    assert not same(page, printed)


@pytest.fixture(scope="module")
def shortened(repo_root: Path) -> Callable[[str, str], str]:
    function: Callable[[str, str], str] = runpy.run_path(str(repo_root / "docs" / "conftest.py"))["shortened"]
    return function


def test_a_block_is_shortened_by_the_comment_above_it(shortened: Callable[[str, str], str]) -> None:
    code = "ghnq a --n 100 --n 1000\nghnq b CHECKPOINT --json\n"
    comment = "shortened:\n--n 1000 => --n 1\n--n 100 => --n 1000\nCHECKPOINT=>digits\n--json =>"
    assert shortened(code, comment) == "ghnq a --n 1000 --n 1\nghnq b digits \n"
    assert shortened(code, "slow") == shortened(code, "") == code


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("--n 100 => --n 1\n--m 3 => --m 1", "is not in it: .'--m 3'"),
        ("--N 100 => --n 1", "is not in it"),
        ("--n 100", "unpack"),
    ],
)
def test_a_comment_that_replaces_nothing_fails(shortened: Callable[[str, str], str], lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shortened("ghnq a --n 100", f"shortened:\n{lines}")
