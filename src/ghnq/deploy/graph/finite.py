"""Whether a network gives numbers: NaN and infinity agree with nothing, and mean nothing on a device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, fx

from ghnq.errors import ExportError, NotFiniteError


@torch.no_grad()
def check_simulation(simulation: fx.GraphModule, batches: Iterable[Tensor], scheme: str) -> None:
    """Runs a simulation on images [B, C, H, W]; raises NotFiniteError where any logit is NaN or infinite."""
    for images in batches:
        bad = _bad_images(simulation(images))
        if bad:
            raise NotFiniteError(
                f"under scheme {scheme} the network gives NaN or infinite logits for {bad} of {len(images)} "
                f"calibration images, first in {_first_bad(simulation, images)}: look there for a constant that is "
                "not finite, or for values that overflow float32"
            )


def check_logits(path: Path, who: str, logits: Tensor) -> None:
    """Raises ExportError where logits [B, K] that `who` computed from a file are NaN or infinite."""
    bad = _bad_images(logits)
    if bad:
        raise ExportError(
            f"'{path}': {who} gives NaN or infinite logits for {bad} of {len(logits)} images, so there is nothing to "
            "compare: mend the network and export it again"
        )


def _bad_images(logits: Tensor) -> int:
    return int((~logits.isfinite()).flatten(1).any(1).sum())


def _first_bad(simulation: fx.GraphModule, images: Tensor) -> str:
    """The function that first gives NaN or infinity, and where it stands."""
    places: list[str] = []

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if "where" in n.meta and isinstance(result, Tensor) and not bool(result.isfinite().all()):
                places.append(n.meta["where"])
            return result

    Watching(simulation).run(images)
    return places[0]
