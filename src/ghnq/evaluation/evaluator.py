"""One architecture of a space, measured under every scheme: build, predict, calibrate, quantize, count.

Dimensions: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ghnq.data import ImageDataset, Images
from ghnq.evaluation.rows import Row
from ghnq.hypernet import GHN
from ghnq.prediction import Network, PredictedWeights, space_of
from ghnq.quant import QuantScheme


@dataclass(frozen=True)
class Evaluator:
    """Measures single architectures; what is the same for all of them.

    Attributes:
        ghn: The hypernetwork.
        dataset: The images that it predicts networks for.
        images: The images that are classified.
        calibration: float32 [B, C, H, W], normalised training images.
        protocol: How schemes given by name are quantized.
        named: Schemes whose name in the results is not their text.
    """

    ghn: GHN
    dataset: ImageDataset
    images: Images
    calibration: Tensor
    protocol: str
    named: Mapping[str, QuantScheme] = field(default_factory=dict)

    def measure(self, split: str, index: int, schemes: tuple[str, ...]) -> list[Row]:
        """Returns one row per scheme, in the order of `schemes`.

        The numbers depend neither on the process nor on which other schemes are measured in the same call.
        """
        space = space_of(self.ghn)
        spec = space.spec(split, index)
        channels = self.dataset.input_shape[0]
        module = space.build(spec, in_channels=channels, num_classes=self.dataset.num_classes, device="meta")
        weights = PredictedWeights(self.ghn, channels_last=True)
        network = Network(module, weights, self.dataset, self.calibration)
        rows = []
        for name in schemes:
            scheme = QuantScheme.parse(self.named.get(name, name), protocol=self.protocol)
            count = network.count_correct(scheme, self.images)
            row = Row(
                split=split,
                index=index,
                structure_hash=spec.structure_hash,
                scheme=name,
                protocol=scheme.protocol,
                correct=count.correct,
                images=len(self.images),
                nonfinite=count.nonfinite,
                parameters=network.graph.num_parameters,
                multiply_adds=network.graph.multiply_adds,
            )
            rows.append(row)
        return rows
