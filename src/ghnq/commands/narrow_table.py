"""Tables on a terminal that is narrower than their words and numbers: without frames, or one block for each row."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from rich import box
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000  # columns


def fitted(part: RenderableType, console: Console) -> Iterator[RenderableType]:
    """Yields what is printed in place of a part of the output: mostly itself.

    A table with headings in which a word or number would be cut at the width of the console loses its frame; where
    that is not enough, it becomes lines `heading: cell`, in one block for each row. Only in columns with
    `overflow="fold"` (names of layers, schemes) may words go on in the next line.
    """
    if not isinstance(part, Table) or not part.show_header or _fits(part, console):
        yield part
    elif _fits(slim := _without_frame(part), console):
        yield slim
    else:
        yield from _blocks(part, console)


def _without_frame(table: Table) -> Table:
    slim = copy(table)
    slim.box, slim.show_edge = box.SIMPLE_HEAD, False
    slim.padding, slim.pad_edge = (0, 1, 0, 0), False
    return slim


def _fits(table: Table, console: Console) -> bool:
    lines = _render(table, console, console.width)
    if any(Segment.get_line_length(line) > console.width for line in lines):
        return False
    # A word that does not fit ends in an ellipsis; those that are there at any width belong to the cells.
    return _ellipses(lines) == _ellipses(_render(table, console, _UNLIMITED))


def _render(table: Table, console: Console, width: int) -> list[list[Segment]]:
    return list(Segment.split_lines(console.render(table, console.options.update(width=width))))


def _ellipses(lines: list[list[Segment]]) -> int:
    return sum(segment.text.count("…") for line in lines for segment in line)


def _blocks(table: Table, console: Console) -> Iterator[Text]:
    def text(part: RenderableType, style: str = "") -> Text:
        return part if isinstance(part, Text) else console.render_str(str(part), style=style)

    if table.title:
        yield text(table.title, "table.title")
    headings = [text(str(column.header).replace("\n", " "), "bold") for column in table.columns]
    group: RenderableType = ""
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        # The first cell stands once for all rows of a group; a block has it always.
        group = first if text(first) else group
        yield Text()
        for heading, cell in zip(headings, (group, *others), strict=True):
            if text(cell):
                yield Text.assemble(heading, ": ", text(cell)) if heading else text(cell)
    yield Text()
    if table.caption:
        yield text(table.caption, "table.caption")
