"""The log of a training run as curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ghnq.report.document import Curve
from ghnq.runs.metrics_log import LOG

_NO_CURVES = ("step", "skipped", "val/nonfinite", "rollback")


def read_curves(folder: Path) -> tuple[list[Curve], list[str]]:
    """Returns the curves of `log.jsonl`, in the order of their first lines, and notes about what was left out."""
    curves: dict[str, Curve] = {}
    damaged, changes = 0, 0
    for line in (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            step = float(entry["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
            continue
        changes += "override" in entry
        for name, value in entry.items():
            if name in _NO_CURVES or isinstance(value, bool) or not isinstance(value, int | float | None):
                continue
            curve = curves.setdefault(name, Curve(name=name, steps=[], values=[]))
            curve.steps.append(step)
            curve.values.append(value if value is not None and math.isfinite(value) else None)
    notes = [f"{damaged} lines of {LOG} are cut off or damaged and are left out"] if damaged else []
    notes += [f"The recipe was changed {changes} times during the run"] if changes else []
    return list(curves.values()), notes
