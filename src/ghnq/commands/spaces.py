"""`ghnq spaces`: the distribution of the architectures of a space, and one of its members."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ghnq import spaces
from ghnq.commands.options import check_output
from ghnq.commands.progress_display import measuring
from ghnq.commands.terminal import Terminal
from ghnq.optional_imports import import_optional
from ghnq.spaces.description import describe as measure
from ghnq.spaces.description import summarize
from ghnq.spaces.description_figure import write_figure
from ghnq.spaces.description_tables import ops_table, table


def describe(name: str, *, out: Path | None, as_json: bool) -> None:
    """Prints how the members of each split are distributed, and writes a figure of it to `out` (`.html`)."""
    space = spaces.get(name)
    out = Path("out") / f"{name}.html" if out is None else out
    check_output(out, (".html",), "the figure is written as")
    import_optional("plotly.subplots")  # before the members are measured, which takes minutes
    with Terminal(as_json=as_json) as terminal:
        with measuring(terminal.progress) as progress:
            description = measure(space, progress=progress)
        write_figure(description, out)
        document = {**description.to_dict(), "out": str(out)}
        terminal.finish(document, table(description), "", ops_table(description), f"figure: [cyan]{out}[/]")


def show(member: str, *, as_json: bool) -> None:
    """Shows the architecture named `member` (`convnets/test/17`): its blocks, its size, and its graph's ops."""
    with Terminal(as_json=as_json) as terminal:
        space, spec = spaces.resolve(member)
        cost = space.cost(spec)
        rows = Table(box=None, show_header=False, pad_edge=False)
        rows.add_column(style="bold")
        rows.add_column()
        rows.add_row("name", member)
        rows.add_row("hash", spec.structure_hash[:16])
        rows.add_row("parameters", f"{cost.parameters:,}")
        rows.add_row("multiply-adds", f"{cost.multiply_adds:,} (3x32x32 images)")
        rows.add_row("depth", f"{cost.depth} weighted layers")
        rows.add_row("graph", f"{cost.nodes} nodes: " + ", ".join(f"{n} {op}" for op, n in cost.ops.most_common()))
        for label, text in space.layout(spec):
            rows.add_row(label, text)
        terminal.finish({"name": member, "space": space.name, **summarize(space, spec)}, rows)
