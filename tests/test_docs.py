"""Documents are correct: the example runs, links resolve, options exist, generated pages are up to date."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

import ghnq
from ghnq.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
)
# Pages that the build of the site makes (docs/site_hooks.py); it checks links to them.
GENERATED = (
    "demo.ipynb",
    "guides/examples.md",
    "reference/commands.md",
    "develop/contributing.md",
    "develop/changelog.md",
    "develop/stored_results.md",
)
# What a fenced block may be: run by the tests (docs/conftest.py), their output, or a file.
LANGUAGES = {"python", "sh", "text", "yaml", "toml"}


def test_the_readme_example_runs(repo_root: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (repo_root / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], capture_output=True, text=True, cwd=repo_root / "docs"
    )
    assert done.returncode == 0, done.stderr
    measured = re.fullmatch(r"(\d+\.\d) % of the test digits.*\n", done.stdout)
    assert measured is not None, done.stdout
    # Far above guessing (10 %); the figure itself belongs to the evaluation.
    assert float(measured[1]) > 50


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(repo_root: Path, page: str) -> None:
    file = repo_root / page
    links = re.findall(r"\]\(([^)#\s]+)\)", file.read_text())
    missing = [
        link
        for link in links
        if "://" not in link and not (file.parent / link).exists() and not link.endswith(GENERATED)
    ]
    assert missing == []


def all_commands() -> dict[str, Any]:
    """Returns each command by its words, such as `spaces show`."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, subcommand in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = subcommand
    return found


def test_the_reference_has_every_command_with_every_option(repo_root: Path) -> None:
    page = runpy.run_path(str(repo_root / "docs" / "make_commands.py"))["page"]()
    sections = dict(re.findall(r"## `ghnq ([\w ]+)`\n(.*?)(?=\n## |\Z)", page, re.DOTALL))
    assert sections.keys() == all_commands().keys()
    for name, command in all_commands().items():
        documented = set(re.findall(r"`(--?[a-z0-9-]+)`", sections[name]))
        assert documented == {o for p in command.params if p.param_type_name == "option" for o in p.opts}, name


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_language_that_is_tested(repo_root: Path, page: str) -> None:
    openings = re.findall(r"^```(.*)$", (repo_root / page).read_text(), re.MULTILINE)[::2]
    assert [words for words in openings if words not in LANGUAGES] == []


def test_the_python_reference_has_every_public_name(repo_root: Path) -> None:
    page = (repo_root / "docs" / "reference" / "python.md").read_text()
    names = re.findall(r"^::: ghnq\.([\w.]+)$", page, re.MULTILINE)
    packages = {name for name in ghnq.__all__ if isinstance(getattr(ghnq, name), types.ModuleType)}
    assert {*ghnq.__all__} - {"__version__"} == {name for name in names if "." not in name} | packages
    assert [name for name in names if not _exists(name)] == []


def _exists(name: str) -> bool:
    value: object = ghnq
    for part in name.split("."):
        if isinstance(value, types.ModuleType) and not hasattr(value, part):
            return importlib.util.find_spec(f"{value.__name__}.{part}") is not None
        value = getattr(value, part)
    return True


def test_the_recipe_page_is_made_from_the_schema(repo_root: Path) -> None:
    made = runpy.run_path(str(repo_root / "docs" / "make_recipes.py"))["page"]()
    assert (repo_root / "docs" / "reference" / "recipes.md").read_text() == made, "run: python docs/make_recipes.py"


@pytest.mark.parametrize("name", ["run", "oldest_versions"])
def test_ci_scripts_are_executable(repo_root: Path, name: str) -> None:
    script = repo_root / ".ci" / name
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_readme_opens_with_the_two_commands_that_ci_runs(repo_root: Path) -> None:
    readme, ci = (repo_root / "README.md").read_text(), (repo_root / ".ci" / "run").read_text()
    commands = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)[:2]
    assert commands[0].strip().endswith(".venv/bin/ghnq demo --out out/demo")
    assert commands[1].strip().endswith(".venv/bin/pytest")
    assert "\nghnq demo --out " in ci
    assert "\npytest\n" in ci


def test_the_package_map_is_complete(repo_root: Path) -> None:
    """Every package and top-level module is in CONTRIBUTING.md, and nothing else."""
    package = repo_root / "src" / "ghnq"
    listed = set(re.findall(r"^\| `([\w/.]+)` \|", (repo_root / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    packages = {f"{file.parent.relative_to(package)}/" for file in package.rglob("__init__.py")} - {"./"}
    modules = {file.name for file in package.glob("*.py")} - {"_version.py"}
    parents = {"training/"}  # listed by their subpackages
    assert listed == (packages | modules | {"checkpoints/"}) - parents


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(repo_root: Path, page: str) -> None:
    named = re.findall(r"`((?:src|tests|docs|recipes|benchmarks|\.ci)/[\w./-]+)`", (repo_root / page).read_text())
    assert [name for name in named if "NAME" not in name and not (repo_root / name).exists()] == []
