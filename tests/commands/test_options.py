"""Values on the command line: what is read, and what is refused with which words."""

import inspect
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.models import OptionInfo

from ghnq.cli import app
from ghnq.cli import spaces as spaces_app
from ghnq.commands.options import check_folder, check_output, check_protocol, parse_list, parse_shape
from ghnq.commands.progress_display import measuring
from ghnq.errors import GhnqError, GraphError, SchemeError


@settings(max_examples=50)
@given(st.tuples(*[st.integers(1, 4096)] * 3), st.sampled_from([",", "x", ", "]))
def test_shape_is_read_back(shape: tuple[int, int, int], comma: str) -> None:
    assert parse_shape(comma.join(map(str, shape))) == shape


@pytest.mark.parametrize(
    "text", ["", "3", "3,32", "3,32,32,1", "3,32,-32", "3,0,32", "a,b,c", "3,32,", "3.0,32,32", "²,1,1"]
)
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(GraphError, match="three positive numbers"):
        parse_shape(text)


def test_words_keep_their_order() -> None:
    assert parse_list("test, deep,bnfree", "--splits") == ["test", "deep", "bnfree"]


@pytest.mark.parametrize("text", ["", ",", "test,", "test,,deep", "test,deep,test"])
def test_empty_and_repeated_words_are_refused(text: str) -> None:
    with pytest.raises(GhnqError, match="--splits"):
        parse_list(text, "--splits")


def test_a_typo_names_the_nearest() -> None:
    with pytest.raises(SchemeError, match="did you mean 'deploy'"):
        check_protocol("deplyo")
    check_protocol("paper")
    check_protocol(None)


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deeper" / "a.svg", (".svg",), "drawn as")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(GhnqError, match=r"'\.png'.*\.svg or \.html"):
        check_output(tmp_path / "a.png", (".svg", ".html"), "drawn as")
    with pytest.raises(GhnqError, match="is a folder"):
        check_output(tmp_path / "folder.svg", (".svg",), "drawn as")
    with pytest.raises(GhnqError, match="is a file"):
        check_output(tmp_path / "file" / "deeper" / "a.svg", (".svg",), "drawn as")
    with pytest.raises(GhnqError, match="is a file"):
        check_folder(tmp_path / "file")


def test_progress_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 5.0, 30.0, 40.0, 55.0, 90.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    stream = io.StringIO()
    with measuring(Console(file=stream), "networks") as report:
        for done in (2, 3, 4, 5, 6):
            report(done, 6)
    lines = stream.getvalue().splitlines()
    # Two were measured by an earlier call; lines come at 30 s and 55 s, none at the end, where the table follows.
    assert lines == [
        "measured 3 of 6 networks in 0.5 min, about 1.5 min left",
        "measured 5 of 6 networks in 0.9 min, about 0.3 min left",
    ]


def test_options_do_not_get_their_names_from_what_stands_for_their_values() -> None:
    """typer 0.27 does that where both are the same but for capitals, unless the name is given: --DATA."""
    found = 0
    for group in (app, spaces_app):
        for command in group.registered_commands:
            for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():  # type: ignore[arg-type]
                for option in getattr(parameter.annotation, "__metadata__", ()):
                    if isinstance(option, OptionInfo) and (option.metavar or "").lower() == name:
                        found += 1
                        # In Annotated, typer keeps the first name as the default until it builds the command.
                        assert f"--{name}" in (option.default, *option.param_decls), (command.callback, name)
    assert found > 10
