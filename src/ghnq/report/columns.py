"""Rows of a page as columns, which are shorter as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def columns_of(rows: Sequence[object], kind: type) -> dict[str, list[Any]]:
    """Returns the values of all rows by field of their dataclass; empty lists where there are no rows."""
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(kind)}
