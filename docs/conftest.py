"""The code of the site is tested: each block of Python or shell commands on a page runs, in the order of the page.

A block of `text` says what the `python` or `sh` block before it prints on stdout. `...` stands for anything. Numbers of
100 and more may differ by a twentieth, those with a decimal point by 2, times by any amount: pages are read on other
processors than they were written on. All else is exact. A block of `yaml` is read as a scheme file, `toml` as TOML.

A page runs in an empty folder in which `benchmarks`, `examples` and `recipes` are those of the checkout, and
`uoft-cs/cifar10` is a folder of its images, where the checkout has one beside it. Comments above a block:

- `<!-- slow -->`: belongs to the slow tests, with the text block after it;
- `<!-- skip: next "why" -->`: does not run;
- `<!-- skip: next if(not cifar10, reason="...") -->`: runs only where the images are.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
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

from ghnq.quant.scheme_file import load_scheme

ROOT = Path(__file__).resolve().parent.parent
CIFAR10 = ROOT.parent / "shared" / "data"
PRELUDE = 'set -euo pipefail; ghnq() { "$PYTHON" -m ghnq "$@"; }; python() { "$PYTHON" "$@"; }\n'
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
TIME = re.compile(r"\s*(?:s|ms|min|minutes|seconds|milliseconds)\b")


def set_up(namespace: dict[str, Any]) -> None:
    """Makes the folder of a page."""
    namespace["_folder"] = folder = tempfile.TemporaryDirectory(prefix="ghnq-docs-")
    for name in ("benchmarks", "examples", "recipes"):
        if (ROOT / name).is_dir():
            (Path(folder.name) / name).symlink_to(ROOT / name)
    sys.path.insert(0, folder.name)
    namespace["cifar10"] = CIFAR10.is_dir()
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


def run_python(example: Example) -> None:
    printed = io.StringIO()
    with contextlib.chdir(example.namespace["_folder"].name), contextlib.redirect_stdout(printed):
        PythonEvaluator()(example)
    example.namespace["_printed"] = printed.getvalue()


def run_shell(example: Example) -> str | None:
    done = subprocess.run(
        ["bash", "-c", PRELUDE + example.parsed],
        cwd=example.namespace["_folder"].name,
        env=os.environ | {"PYTHON": sys.executable, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    example.namespace["_printed"] = done.stdout
    return f"exit code {done.returncode}\n{done.stdout}{done.stderr}" if done.returncode else None


def compare(example: Example) -> str | None:
    printed = example.namespace.get("_printed", "nothing has run before this block")
    if same_output(example.parsed, printed):
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


def in_slow_set(document: Document, start: int) -> bool:
    return document.text[:start].rstrip().endswith("<!-- slow -->")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the blocks under `<!-- slow -->`, and the output that belongs to them."""
    slow = False
    for item in items:
        if isinstance(item, SybilItem):
            example = item.example
            is_output = example.region.evaluator is compare
            slow = slow if is_output else in_slow_set(example.document, example.start)
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
