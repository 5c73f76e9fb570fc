"""Documents are correct: the example runs, links resolve, options exist, generated pages are up to date."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ghnq.cli import app

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/quantization.md",
    "docs/deployment.md",
    "docs/graph.md",
    "docs/hypernetwork.md",
    "docs/spaces.md",
    "docs/recipes.md",
    "docs/training.md",
    "docs/finetuning.md",
    "docs/images.md",
)


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
    missing = [link for link in links if "://" not in link and not (file.parent / link).exists()]
    assert missing == []


def test_the_readme_names_every_command_with_its_own_options(repo_root: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = (repo_root / "README.md").read_text().replace("\\|", "|")
    documented = {
        name: set(re.findall(r"--[a-z0-9-]+", rest)) for name, rest in re.findall(r"\| `ghnq (\w+)(.*?)`", text)
    }
    assert documented.keys() == commands.keys()
    for name, options in documented.items():
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert options <= known, name


def test_the_recipe_page_is_made_from_the_schema(repo_root: Path) -> None:
    made = runpy.run_path(str(repo_root / "docs" / "make_recipes.py"))["page"]()
    assert (repo_root / "docs" / "recipes.md").read_text() == made, "run: python docs/make_recipes.py"


@pytest.mark.parametrize("name", ["run", "oldest_torch"])
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
