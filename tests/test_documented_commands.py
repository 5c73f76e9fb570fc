"""Every command of every page can be called: also those that no test runs, because they need days or a cluster.

Commands of `ghnq` are parsed by the command table, programs of benchmarks/ and examples/ by their own tables. Nothing
is executed.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from ghnq.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")))
REDIRECTION = re.compile(r"\d?>.*")


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each command of a shell script, without redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set(";&|()"):
                if command:
                    yield command
                command = []
            elif not REDIRECTION.fullmatch(word):
                command.append(word)


def blocks(page: str) -> Iterator[list[str]]:
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        yield from commands(block)


def words_of_ghnq(command: Sequence[str]) -> Sequence[str] | None:
    """Returns what follows `ghnq`, `.venv/bin/ghnq` or `-m ghnq`; None where a command does not call it."""
    for position, word in enumerate(command):
        called = position == 0 or command[position - 1] == "-m" or command[0] in ("srun", "torchrun")
        if called and Path(word).name == "ghnq":
            return command[position + 1 :]
    return None


def parse(words: Sequence[str]) -> None:
    """Parses a call of `ghnq`; raises click's error about a wrong one."""
    command, name, rest = typer.main.get_command(app), "ghnq", list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_pages_are_parsed(page: str) -> None:
    for command in blocks(page):
        words = words_of_ghnq(command)
        if words is not None:
            parse(words)


class Parsed(Exception):
    """The arguments of a program were parsed."""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs of benchmarks/ may import each other, and end after their arguments are parsed."""
    before = set(sys.modules)
    original = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *args: Any) -> None:
        original(self, *args)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(ROOT / "benchmarks")):
            del sys.modules[name]


def call(program: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses the arguments of a program by its own table."""
    main, text = runpy.run_path(str(ROOT / program))["main"], (ROOT / program).read_text()
    if "typer.run(main)" in text:
        table = typer.Typer(add_completion=False)
        table.command()(main)
        typer.main.get_command(table).make_context(program, list(words))
    elif "argparse" in text:
        monkeypatch.setattr(sys, "argv", [program, *words])
        with pytest.raises(Parsed):
            main()
    else:  # sys.argv by position
        assert not [word for word in words if word.startswith("-")]


def called_programs() -> list[tuple[str, tuple[str, ...]]]:
    """Returns the programs that pages call in blocks and between backticks, with their arguments."""
    found = set()
    for page in PAGES:
        between = re.findall(r"`(python (?:benchmarks|examples)/[^`]*)`", (ROOT / page).read_text())
        for command in [*blocks(page), *(words for text in between for words in commands(text))]:
            if len(command) > 1 and command[0] == "python" and command[1].startswith(("benchmarks/", "examples/")):
                found.add((command[1], tuple(command[2:])))
    return sorted(found)


@pytest.mark.parametrize(("program", "words"), called_programs(), ids=lambda value: value if "/" in value else "")
def test_programs_of_pages_are_there_and_take_these_arguments(
    program: str, words: tuple[str, ...], programs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(program, words, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_extras_of_pages_exist(page: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"pip install[^`\n]*?'(?:\.|ghnq)\[([\w,]+)\]'", (ROOT / page).read_text())
    assert {extra for extras_of in named for extra in extras_of.split(",")} <= extras.keys()


def test_commands_are_found_in_all_their_forms() -> None:
    script = (
        "pip install -e . && .venv/bin/ghnq demo --out a  # the page\n"
        "torchrun --nproc-per-node 2 -m ghnq train r.yaml \\\n  --out b\n"
        "srun --nodes 1 ray start --block &\n"
        "ghnq score m.py:Net 2>&1 | tee log; ls ghnq\n"
    )
    found = [words_of_ghnq(command) for command in commands(script)]
    assert [words for words in found if words is not None] == [
        ["demo", "--out", "a"],
        ["train", "r.yaml", "--out", "b"],
        ["score", "m.py:Net"],
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("evaluat digits", "no command 'evaluat'"),
        ("evaluate", "issing parameter: checkpoint"),
        ("evaluate digits --limits 3", "--limits"),
        ("evaluate digits --limit three", "integer"),
        ("spaces shows convnets", "no command 'shows'"),
    ],
)
def test_wrong_commands_are_found(call: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        parse(call.split())


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("benchmarks/rank_speed.py", "--data x --candidate 3", "--candidate"),
        ("benchmarks/rank_speed.py", "--data x --candidates many", "integer"),
        ("benchmarks/rank_speed.py", "", "issing parameter: data"),
        ("benchmarks/parity.py", "digits --network one", "2"),  # argparse ends with that code
        ("benchmarks/absent.py", "", "absent"),
    ],
)
def test_wrong_arguments_of_programs_are_found(
    program: str, words: str, message: str, programs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((SystemExit, Exception), match=message):
        call(program, words.split(), monkeypatch)
