"""What a page has inside."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any


def content_of(page: Path) -> dict[str, Any]:
    """Returns the data of a page."""
    (packed,) = re.findall(r'<script id="data" type="text/plain">(.*?)</script>', page.read_text(encoding="utf-8"))
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return content


def rows_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of accuracies of one result of a page."""
    columns = document["accuracies"]["columns"]
    texts = {name: column for name, column in columns.items() if isinstance(column, dict)}
    numbers = {name: column for name, column in columns.items() if isinstance(column, list)}
    return [
        {name: column["levels"][column["codes"][i]] for name, column in texts.items()}
        | {name: column[i] for name, column in numbers.items()}
        for i in range(len(columns["accuracy"]))
    ]
