"""What `mkdocs build` makes before it renders: the pages that come from the code and from files outside docs/."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

REPOSITORY = "https://github.com/ghnq/ghnq/blob/main/"


@event_priority(100)  # Before the plugin that renders notebooks.
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    # Here, because mkdocs restores the path after it has read this file.
    sys.path[:0] = [str(DOCS), str(ROOT / "src")]
    import make_commands

    pages = {
        "reference/commands.md": make_commands.page(),
        "develop/contributing.md": from_root("CONTRIBUTING.md"),
        "develop/changelog.md": from_root("CHANGELOG.md"),
        "develop/stored_results.md": from_root("results/README.md"),
        "guides/examples.md": examples(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    files.append(File("demo.ipynb", str(ROOT / "examples"), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Names of files of the repository become links to it."""
    return re.sub(
        r"(?<![\[`])`((?:src|tests|recipes|benchmarks|results|examples|\.ci)/[\w./-]+\.\w+)`(?!\])",
        rf"[`\1`]({REPOSITORY}\1)",
        markdown,
    )


def examples() -> str:
    """Returns a page with the programs of examples/."""
    parts = ["# Examples\n\nPrograms to start from, each below 60 lines, and [a notebook](../demo.ipynb).\n"]
    for program in sorted((ROOT / "examples").glob("*.py")):
        code = program.read_text(encoding="utf-8").rstrip()
        title = program.stem.replace("_", " ").capitalize()
        parts.append(f"\n## {title}\n\n`examples/{program.name}`\n\n```python\n{code}\n```\n")
    return "".join(parts)


def from_root(name: str) -> str:
    """Returns a file outside docs/ with its relative links as seen from docs/develop/."""
    folder = (ROOT / name).parent

    def moved(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            link = f"../{path.relative_to(DOCS)}"
        elif path == ROOT / "CHANGELOG.md":
            link = "changelog.md"
        else:
            link = REPOSITORY + str(path.relative_to(ROOT))
        return f"]({link}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?!\w+:)([^)#][^)]*)\)", moved, (ROOT / name).read_text(encoding="utf-8"))
