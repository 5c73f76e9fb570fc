"""Checks that a network computes finite numbers: no comparison and no device can do anything with NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, fx

from ghnq.deploy.graph.rewriter import visit_tensors
from ghnq.errors import ExportError, NotFiniteError


@torch.no_grad()
def check_simulation(simulation: fx.GraphModule, batches: Iterable[Tensor], scheme: str) -> None:
    """Runs a simulation on batches of images [B, C, H, W] and checks its logits.

    Raises:
        NotFiniteError: A logit is NaN or infinite; the message names the function that computed it first.
    """
    for images in batches:
        bad = _count_bad_images(simulation(images))
        if bad:
            raise NotFiniteError(
                f"under scheme {scheme} the network gives NaN or infinite logits for {bad} of {len(images)} "
                f"calibration images, first in {_first_bad_place(simulation, images)}: look there for a constant that "
                "is not finite, or for values that overflow float32"
            )


def check_logits(path: Path, backend: str, logits: Tensor) -> None:
    """Checks the logits [B, K] that `backend` computed from a file.

    Raises:
        ExportError: A logit is NaN or infinite.
    """
    bad = _count_bad_images(logits)
    if bad:
        raise ExportError(
            f"'{path}': {backend} gives NaN or infinite logits for {bad} of {len(logits)} images, so there is nothing "
            "to compare: repair the network and export it again"
        )


def _count_bad_images(logits: Tensor) -> int:
    return int((~logits.isfinite()).flatten(1).any(1).sum())


def _first_bad_place(simulation: fx.GraphModule, images: Tensor) -> str:
    """Returns the first function that computes NaN or infinity, and its place in the user's code."""
    places: list[str] = []

    def visit(node: fx.Node, tensor: Tensor) -> None:
        if "where" in node.meta and not bool(tensor.isfinite().all()):
            places.append(node.meta["where"])

    visit_tensors(simulation, [images], visit)
    return places[0]
