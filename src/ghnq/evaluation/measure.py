"""One architecture under every scheme: build, predict, calibrate, quantize, count right answers.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images
from ghnq.errors import NotFiniteError
from ghnq.evaluation.inputs import space_of
from ghnq.graph.ir import ArchGraph
from ghnq.graph.tracing.trace import trace
from ghnq.hypernet import GHN, with_parameters
from ghnq.quant import Prepared, QuantScheme, prepare

# Images in one forward pass. A fixed number: another one may change the last bits of the logits.
BATCH = 250


class Row(TypedDict):
    """One architecture under one scheme; `nonfinite` of its images had a NaN or infinite logit and count as wrong."""

    split: str
    index: int
    structure_hash: str
    scheme: str
    protocol: str
    correct: int
    images: int
    nonfinite: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Count:
    """How many of the images were classified right, and how many gave a logit that is not finite."""

    correct: int
    nonfinite: int


@dataclass(frozen=True)
class Bench:
    """What all architectures share: the hypernetwork, the test images, the calibration images, the protocol.

    calibration: float32 [B, C, H, W], normalised training images.
    named: schemes that go by other names than their words.
    """

    ghn: GHN
    dataset: ImageDataset
    images: Images
    calibration: Tensor
    protocol: str
    named: Mapping[str, QuantScheme] = field(default_factory=dict)

    def measure(self, split: str, index: int, schemes: tuple[str, ...]) -> list[Row]:
        """Returns one row per scheme, in the order of `schemes`; the same numbers in any process and any company."""
        space = space_of(self.ghn)
        spec = space.spec(split, index)
        channels = self.dataset.input_shape[0]
        skeleton = space.build(spec, in_channels=channels, num_classes=self.dataset.num_classes, device="meta")
        graph = trace(skeleton, self.dataset.input_shape)
        parsed = [QuantScheme.parse(self.named.get(name, name), protocol=self.protocol) for name in schemes]
        return [
            Row(
                split=split,
                index=index,
                structure_hash=spec.structure_hash,
                scheme=scheme,
                protocol=quantized.protocol,
                correct=count.correct,
                images=len(self.images),
                nonfinite=count.nonfinite,
                parameters=graph.num_parameters,
                multiply_adds=graph.multiply_adds,
            )
            for scheme, quantized, count in zip(
                schemes, parsed, self._count_under(skeleton, graph, parsed), strict=True
            )
        ]

    def _count_under(self, skeleton: nn.Module, graph: ArchGraph, schemes: list[QuantScheme]) -> Iterator[Count]:
        """One count per scheme; a hypernetwork that is told the precision predicts anew for each."""
        prepared: Prepared | None = None
        for scheme in schemes:
            try:
                if prepared is None or self.ghn.config.condition:
                    prepared = self._prepare(skeleton, graph, scheme)
                network = prepared.quantize(scheme)
            except NotFiniteError:
                # The hypernetwork gave numbers that are none, or calibration images overflow.
                yield Count(correct=0, nonfinite=len(self.images))
            else:
                yield count_correct(network, self.dataset, self.images)

    def _prepare(self, skeleton: nn.Module, graph: ArchGraph, scheme: QuantScheme) -> Prepared:
        with torch.no_grad():
            network = with_parameters(skeleton, self.ghn.predict(graph, scheme, channels_last=True)).eval()
        return prepare(network, self.calibration, standardise=True)


@torch.inference_mode()
def count_correct(network: nn.Module, dataset: ImageDataset, images: Images) -> Count:
    """Classifies `images` with a network in eval mode that gives logits [B, K].

    An image with a NaN or infinite logit counts as wrong. Of equal largest logits the first class is taken.
    """
    correct = nonfinite = 0
    for start in range(0, len(images), BATCH):
        logits = network(dataset.normalise(images.pixels[start : start + BATCH]))
        finite = logits.isfinite().all(1)
        right = (logits.argmax(1) == images.labels[start : start + BATCH]) & finite
        correct += int(right.sum())
        nonfinite += int((~finite).sum())
    return Count(correct, nonfinite)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Runs torch on one thread inside the block: sums are taken in the same order however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
