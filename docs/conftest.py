"""The code of the site is tested: each block of Python or shell commands on a page runs, in the order of the page.

A block of `text` says what the `python` or `sh` block before it prints on stdout. `...` stands for anything. Numbers of
100 and more may differ by a twentieth, those with a decimal point by 2, times by any amount: pages are read on other
processors than they were written on. All else is exact. A block of `yaml` is read as a scheme file, `toml` as TOML.

A page runs in an empty folder in which `benchmarks`, `examples` and `recipes` are those of the checkout, `results` is a
copy, and `uoft-cs/cifar10` is a folder of its images, where the checkout has one beside it. A comment directly above a
block says how it runs:

- `<!-- slow -->`: it belongs to the slow tests, with the text block after it;
- `<!-- shortened: ... -->`: so it does, and each line of the comment, such as `--images 2000 => --images 50`, replaces
  what is left of the arrow by what is right of it, before the block runs. All that is left of an arrow must occur in
  the block. In a block of `text`, `...` may take the place of what depends on the processor;
- `<!-- skip: next if(not cifar10, reason="...") -->`, above one of these: it runs only where the images are; with
  `not compiler`, only where there is a C++ compiler;
- `<!-- skip: next "why" -->`: it does not run. `tests/test_documented_commands.py` still reads its commands.

An `<!-- invisible-code-block: python` makes the files that a reader of the page would have.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from sybil.region import Lexeme

from ghnq.quant.scheme_file import load_scheme

ROOT = Path(__file__).resolve().parent.parent
CIFAR10 = ROOT.parent / "shared" / "data"
PRELUDE = """set -euo pipefail
ghnq() { "$PYTHON" -m ghnq "$@"; }
python() { "$PYTHON" "$@"; }
torchrun() { "$PYTHON" -m torch.distributed.run "$@"; }
ray() { "$PYTHON" -m ray.scripts.scripts "$@"; }
"""
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
TIME = re.compile(r"\s*(?:s|ms|min|minutes|seconds|milliseconds)\b")


def set_up(namespace: dict[str, Any]) -> None:
    """Makes the folder of a page."""
    namespace["_folder"] = folder = tempfile.TemporaryDirectory(prefix="ghnq-docs-")
    for name in ("benchmarks", "examples", "recipes"):
        if (ROOT / name).is_dir():
            (Path(folder.name) / name).symlink_to(ROOT / name)
    if (ROOT / "results").is_dir():  # pages write there
        shutil.copytree(ROOT / "results", Path(folder.name) / "results")
    sys.path.insert(0, folder.name)
    namespace["cifar10"] = CIFAR10.is_dir()
    namespace["compiler"] = shutil.which(os.environ.get("CXX", "g++")) is not None  # torch.compile's
    if CIFAR10.is_dir():
        (Path(folder.name) / "uoft-cs").mkdir()
        (Path(folder.name) / "uoft-cs" / "cifar10").symlink_to(CIFAR10)


def tear_down(namespace: dict[str, Any]) -> None:
    """Removes the folder, and the modules that were imported from it."""
    folder = namespace["_folder"]
    sys.path.remove(folder.name)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(folder.name):
            del sys.modules[name]
    folder.cleanup()


def comment_above(document: Document, start: int) -> str:
    """Returns what the comment says that ends where a block starts; an empty string where there is none."""
    before = document.text[:start].rstrip()
    return before[before.rindex("<!--") + 4 : -3].strip() if before.endswith("-->") else ""


def shortened(code: str, comment: str) -> str:
    """Returns the code of a block as the comment above it wants it run.

    Raises:
        ValueError: A line of the comment has no arrow, or replaces what does not occur in the block.
    """
    title, *lines = comment.splitlines() or [""]
    if title != "shortened:":
        return code
    replacements = {left.strip(): right.strip() for left, right in (line.split("=>") for line in lines)}
    # All at once, longer ones first, so that none changes what another one has put in.
    pattern = "|".join(re.escape(left) for left in sorted(replacements, key=len, reverse=True))
    if missing := replacements.keys() - set(re.findall(pattern, code)):
        raise ValueError(f"the comment above the block replaces what is not in it: {sorted(missing)}")
    return re.sub(pattern, lambda match: replacements[match[0]], code)


def code_of(example: Example) -> Lexeme:
    """Returns the code that runs for a block."""
    parsed = example.parsed
    code = shortened(parsed, comment_above(example.document, example.start))
    return Lexeme(code, parsed.offset, parsed.line_offset)


def run_python(example: Example) -> None:
    example.parsed = code_of(example)
    printed = io.StringIO()
    with contextlib.chdir(example.namespace["_folder"].name), contextlib.redirect_stdout(printed):
        PythonEvaluator()(example)
    example.namespace["_printed"] = printed.getvalue()


def run_shell(example: Example) -> str | None:
    """Runs a block, and ends what it has left running in the background, such as a cluster of Ray."""
    folder = example.namespace["_folder"].name
    own = {"PYTHON": sys.executable, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "GHNQ_PAGE": folder}
    ray = {"RAY_TMPDIR": folder, "RAY_AUTH_TOKEN": "0" * 64}  # else Ray would write a token into the user's home
    # Not pipes: a process in the background would hold them open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = ["bash", "-c", PRELUDE + code_of(example)]
        try:
            code = subprocess.run(command, cwd=folder, env=os.environ | own | ray, stdout=out, stderr=err).returncode
        finally:
            end_processes(f"GHNQ_PAGE={folder}")
        out.seek(0)
        err.seek(0)
        example.namespace["_printed"] = printed = out.read()
        return f"exit code {code}\n{printed}{err.read()}" if code else None


def end_processes(variable: str) -> None:
    """Kills the processes with a variable in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def compare(example: Example) -> str | None:
    printed = example.namespace.get("_printed", "nothing has run before this block")
    if same_output(code_of(example), printed):
        return None
    return f"the page says\n\n{example.parsed}\nprinted is\n\n{printed}"


def read_scheme(example: Example) -> None:
    file = Path(example.namespace["_folder"].name, "scheme.yaml")
    file.write_text(example.parsed)
    load_scheme(file)


def read_toml(example: Example) -> None:
    tomllib.loads(example.parsed)


def same_output(expected: str, printed: str) -> bool:
    """Returns whether `printed` is `expected`, up to white space, ellipses, and the tolerance for numbers."""
    pattern, figures, position = "", [], 0
    for match in NUMBER.finditer(expected):
        pattern += literal(expected[position : match.start()])
        position = match.end()
        value = float(match[0].replace(",", ""))
        if TIME.match(expected, position):
            pattern += NUMBER.pattern
        elif "." in match[0] or abs(value) >= 100:
            pattern += f"({NUMBER.pattern})"
            figures.append(value)
        else:
            pattern += re.escape(match[0])
    found = re.fullmatch(r"\s*" + pattern + literal(expected[position:]) + r"\s*", printed, re.DOTALL)
    return found is not None and all(
        abs(float(text.replace(",", "")) - value) <= (0.05 * abs(value) if abs(value) >= 100 else 2)
        for text, value in zip(found.groups(), figures, strict=True)
    )


def literal(text: str) -> str:
    """Returns the pattern of text without numbers; lines of a table may be as long as they like."""
    words = (re.escape(word).replace(r"\.\.\.", ".*?") for word in re.sub(r"[─━]{2,}", "──", text).split())
    lead, trail = (r"\s*" if part[:1].isspace() else "" for part in (text, text[::-1]))
    return lead + r"\s+".join(words).replace("──", "[─━]+") + (trail if text.strip() else "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the blocks under `<!-- slow -->` and `<!-- shortened: ... -->`, and the output that belongs to them."""
    slow = False
    for item in items:
        if isinstance(item, SybilItem):
            example = item.example
            is_output = example.region.evaluator is compare
            comment = comment_above(example.document, example.start)
            slow = slow if is_output else comment == "slow" or comment.startswith("shortened:")
            if slow:
                item.add_marker(pytest.mark.slow)


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("sh", run_shell),
        CodeBlockParser("text", compare),
        CodeBlockParser("yaml", read_scheme),
        CodeBlockParser("toml", read_toml),
        SkipParser(),
    ],
    patterns=["*.md"],
    setup=set_up,
    teardown=tear_down,
).pytest()
