"""Fills the result tables of the site from the `summary.json` of evaluations, so that no figure is typed by hand.

python docs/make_tables.py

A table stands between `<!-- TABLE FOLDER [FOLDER ...] -->` and `<!-- END -->`; one whose folders are not there is left
as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ghnq.evaluation import described, machines_of, markdown_table
from ghnq.files import write_text

ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"(<!-- TABLE ([^>]+) -->\n).*?(<!-- END -->)", re.DOTALL)


def filled(match: re.Match[str]) -> str:
    """The table of the folders that the marker names, with what its figures depend on."""
    files = [ROOT / folder / "summary.json" for folder in match[2].split()]
    if not all(file.is_file() for file in files):
        return match[0]
    summaries: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files]
    about = summaries[0]
    rows = [row for summary in summaries for row in summary["rows"]]
    footing = (
        f"{about['test_images']:,} test images, {about['calibration_images']} calibration images, protocol "
        f"`{about['protocol']}`, checkpoint `{about['checkpoint_hash'][:12]}`, "
        f"{described(machines_of(summaries))}, torch {about['versions']['torch']}."
    )
    return f"{match[1]}{markdown_table(rows)}\n{footing}\n{match[3]}"


if __name__ == "__main__":
    page = ROOT / "docs" / "results" / "index.md"
    write_text(page, TABLE.sub(filled, page.read_text()))
