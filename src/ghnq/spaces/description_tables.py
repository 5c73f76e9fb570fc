"""A description of a space as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from ghnq.spaces.description import MEASURES, Description, SplitDescription

_SUFFIXES = ((1e6, "M"), (1e3, "k"))
_ONCE_PER_NETWORK = ("input", "glob_avg")


def table(description: Description) -> Table:
    """Returns a table with one row per split: members, shares of families, median [5 %, 95 %] of each measure."""
    height, width = description.input_shape[1:]
    title = f"{description.space}, {height}x{width} images: median [5 %, 95 %]"
    result = Table(title=title, title_justify="left", pad_edge=False)
    families = description.families[1:]  # the share of the first is what the others leave
    for name in ("split", "members", *families):
        result.add_column(name, justify="left" if name == "split" else "right")
    for label in MEASURES.values():
        result.add_column(label.split(" (")[0], justify="right")
    for split in description.splits:
        shares = [f"{100 * split.families.get(family, 0) / split.samples:.0f} %" for family in families]
        result.add_row(split.split, f"{split.size:,}", *shares, *(_interval(split, name) for name in MEASURES))
    return result


def ops_table(description: Description) -> Table:
    """Returns a table with one row per op: the mean number of its nodes in a member's graph, in each split."""
    result = Table(title="nodes per network, mean", title_justify="left", pad_edge=False)
    result.add_column("op")
    for split in description.splits:
        result.add_column(split.split, justify="right")
    for op in graph_ops(description):
        result.add_row(op, *(f"{split.ops.get(op, 0):.1f}" for split in description.splits))
    return result


def graph_ops(description: Description) -> list[str]:
    """Returns the ops that occur, the most frequent first, without those that occur once in every network."""
    ops = {op for split in description.splits for op in split.ops} - set(_ONCE_PER_NETWORK)
    return sorted(ops, key=lambda op: -max(split.ops.get(op, 0.0) for split in description.splits))


def _interval(split: SplitDescription, measure: str) -> str:
    low, middle, high = (split.quantile(measure, level) for level in (0.05, 0.5, 0.95))
    return f"{short_number(middle)} [{short_number(low)}, {short_number(high)}]"


def short_number(number: float) -> str:
    """Returns a number in three digits: 12, 3.46k, 26.7M."""
    for unit, suffix in _SUFFIXES:
        if number >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"
