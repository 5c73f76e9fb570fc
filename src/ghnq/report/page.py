"""Documents -> one HTML page that needs no network.

The page has its data as deflated JSON in base64: no text of the data can be taken for HTML, and 50,000 rows fit.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ghnq._version import __version__
from ghnq.errors import GhnqError
from ghnq.files import write_text
from ghnq.progress import ProgressCallback
from ghnq.report.architectures import MOST_DRAWN, MOST_TRACED, with_architectures
from ghnq.report.document import Document

LARGEST_PAGE = 8_000_000
"""Bytes."""
SCRIPTS = (
    "elements",
    "statistics",
    "rows",
    "figure",
    "accuracy",
    "costs",
    "curves",
    "layers",
    "ranking",
    "search",
    "details",
    "main",
)
"""Parts of the program of the page, in the order in which they are run."""


def write_page(
    documents: Sequence[Document],
    path: Path,
    *,
    title: str = "",
    command: str = "",
    notes: Sequence[str] = (),
    progress: ProgressCallback | None = None,
) -> None:
    """Writes the page, whole or not at all.

    Args:
        title: In the head of the page; by default the names of the results.
        command: What makes the page.
        notes: What was left out.
        progress: Called with the number of architectures traced.

    Raises:
        GhnqError: The page would be larger than a browser opens with ease.
    """
    title = title or _title(documents)
    found = with_architectures(documents, progress)
    content = {
        "title": title,
        "command": command,
        "version": __version__,
        "notes": list(notes),
        "limits": {"drawn": MOST_DRAWN, "traced": MOST_TRACED},
        "documents": [document.to_json() for document in found.documents],
        "drawings": found.drawings,
    }
    page = render(title, content)
    size = len(page.encode())
    if size > LARGEST_PAGE:
        raise GhnqError(
            f"the page would have {size / 1e6:.1f} MB, and {LARGEST_PAGE / 1e6:.0f} MB is the most that opens with "
            "ease; name fewer folders"
        )
    write_text(path, page)


def render(title: str, content: dict[str, Any]) -> str:
    """Returns the page."""
    parts = {
        "title": escape(title),
        "style": _part("style.css"),
        "plotly": _script((files("ghnq.report") / "plotly" / "plotly-basic.min.js").read_text(encoding="utf-8")),
        "program": _script("\n".join(_part(f"{name}.js") for name in SCRIPTS)),
        "data": base64.b64encode(zlib.compress(json.dumps(content, allow_nan=False).encode(), 9)).decode(),
    }
    # Split once: what is inserted may contain the name of another part.
    pieces = re.split(r"\{\{(\w+)\}\}", _part("template.html"))
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _title(documents: Sequence[Document]) -> str:
    names = [document.name for document in documents]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _part(name: str) -> str:
    return (files("ghnq.report") / "page_parts" / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Returns a program in the form in which it can stand in a page: no text in it ends the script."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
