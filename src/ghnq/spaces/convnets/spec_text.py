"""A spec as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from ghnq.spaces.convnets.specs import Block, Cells, Genotype, Spec


def layout(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yields the lines (label, text) that describe a spec, from the image to the logits."""
    norm = "batch norm" if spec.norm else "no norm"
    yield (
        "stem",
        f"conv {spec.stem.kernel}x{spec.stem.kernel}, {spec.stem.channels} channels, stride {spec.stem.stride}, {norm}",
    )
    if isinstance(spec.body, Cells):
        yield from _cells(spec.body)
    else:
        for number, stage in enumerate(spec.body.stages):
            downsample = {"none": "", "stride": "stride 2: "}.get(stage.downsample, f"{stage.downsample} 2x2, ")
            yield f"stage {number}", downsample + ", ".join(_block(block) for block in stage.blocks)
    yield "head", f"average, linear to {spec.hidden}, classes" if spec.hidden else "average, linear to classes"


def _block(block: Block) -> str:
    kernel = getattr(block, "kernel", 3)
    join = getattr(block, "join", "none")
    suffix = "" if join == "none" else f" ({join} with its input)"
    return f"{block.kind} {kernel}x{kernel} to {block.channels}{suffix}"


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
