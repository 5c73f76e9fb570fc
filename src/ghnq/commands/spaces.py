"""`ghnq spaces`: what a space holds, and one member of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from ghnq.commands.options import check_output
from ghnq.commands.terminal import Terminal
from ghnq.errors import SpaceError, nearest
from ghnq.spaces import SPACES, convnets, resolve
from ghnq.spaces.convnets.specs import Block, Cells, Genotype, Spec


def describe(space: str, *, out: Path, as_json: bool) -> None:
    """Prints how the members of each split are distributed, and writes the figure of it to `out` (`.html`)."""
    if space not in SPACES:
        raise SpaceError(f"There is no space '{space}'{nearest(space, SPACES)}. Spaces are {', '.join(SPACES)}.")
    check_output(out, (".html",), "the figure is written as")
    with Terminal(as_json=as_json) as terminal:
        with terminal.progress.status("Drawing members of each split") as status:
            description = convnets.describe(
                progress=lambda split, done, total: status.update(f"Drawing members of {split}: {done:,} of {total:,}")
            )
            convnets.figure(description, out)
        document = {**description.to_dict(), "out": str(out)}
        terminal.finish(
            document, convnets.table(description), "", convnets.ops_table(description), f"figure: [cyan]{out}[/]"
        )


def show(member: str, *, as_json: bool) -> None:
    """Shows the architecture called `member` (`convnets/test/17`): its blocks, its size, and its graph's ops."""
    with Terminal(as_json=as_json) as terminal:
        spec = resolve(member)
        cost = convnets.cost(spec)
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column()
        table.add_row("name", member)
        table.add_row("hash", spec.structure_hash[:16])
        table.add_row("parameters", f"{cost.parameters:,}")
        table.add_row("multiply-adds", f"{cost.multiply_adds:,} (3x32x32 images)")
        table.add_row("depth", f"{cost.depth} weighted layers")
        table.add_row("graph", f"{cost.nodes} nodes: " + ", ".join(f"{n} {op}" for op, n in cost.ops.most_common()))
        for label, text in _layout(spec):
            table.add_row(label, text)
        terminal.finish({"name": member, **convnets.summary(spec)}, table)


def _layout(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yields the lines (label, text) that tell a spec from the image to the logits."""
    norm = "batch norm" if spec.norm else "no norm"
    yield (
        "stem",
        f"conv {spec.stem.kernel}x{spec.stem.kernel}, {spec.stem.channels} channels, stride {spec.stem.stride}, {norm}",
    )
    if isinstance(spec.body, Cells):
        yield from _cells(spec.body)
    else:
        for number, stage in enumerate(spec.body.stages):
            by = {"none": "", "stride": "stride 2: "}.get(stage.downsample, f"{stage.downsample} 2x2, ")
            yield f"stage {number}", by + ", ".join(_block(block) for block in stage.blocks)
    yield "head", f"average, linear to {spec.hidden}, classes" if spec.hidden else "average, linear to classes"


def _block(block: Block) -> str:
    kernel = getattr(block, "kernel", 3)
    join = getattr(block, "join", "none")
    return f"{block.kind} {kernel}x{kernel} to {block.channels}" + (
        "" if join == "none" else f" ({join} with its input)"
    )


def _cells(body: Cells) -> Iterator[tuple[str, str]]:
    first, second = body.reductions
    channels = ", ".join(map(str, body.channels))
    yield "cells", f"{body.count}, reductions at {first} and {second}, nodes of {channels} channels"
    yield "normal", _genotype(body.normal)
    yield "reduction", _genotype(body.reduction)


def _genotype(genotype: Genotype) -> str:
    nodes = [
        f"{state} = " + " + ".join(f"{edge.op}({edge.source})" for edge in edges)
        for state, edges in enumerate(genotype.nodes, start=2)
    ]
    return ", ".join(nodes) + f"; concat {', '.join(map(str, genotype.concat))}"
