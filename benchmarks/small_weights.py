"""Why a network can be better with 4-bit weights than in float: MobileNetV2 without its smallest weights.

    python benchmarks/small_weights.py CHECKPOINT --data ../shared/data [--images 500] [--calibration 256]

Rounding to 4 bits sets the weights below half a step, a fourteenth of the largest of their filter, to zero. Here only
that is done, in float, in some layers of MobileNetV2 (benchmarks/named.py) with predicted weights; then the network is
calibrated as always. Projections are the 1x1 convolutions that narrow; of each the program also prints how many
weights of a filter remain, and the sum of the others beside the sum of those.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from ghnq.data import ImageDataset
from ghnq.evaluation import count_correct
from ghnq.hypernet import GHN, initialize
from ghnq.prediction import dataset_for
from ghnq.quant import QuantScheme, prepare
from named import mobilenet_v2

WIDEST_IN_TRAIN = 256  # channels, in training of the checkpoints this was written for


def small(weight: Tensor) -> Tensor:
    """Returns which weights [O, ...] 4 bits with a scale per filter round to zero."""
    rows = weight.flatten(1)
    return (rows.abs() < rows.abs().amax(1, keepdim=True) / 14).view_as(weight)


def without_small_weights(network: nn.Module, names: Collection[str]) -> nn.Module:
    """Returns a copy whose named layers have zeros for their small weights."""
    copied = copy.deepcopy(network)
    for name in names:
        weight = copied.get_submodule(name).get_parameter("weight").data
        weight[small(weight)] = 0
    return copied


def accuracy(
    network: nn.Module, dataset: ImageDataset, images: int, calibration: int, scheme: str = "float32"
) -> float:
    """Returns the accuracy in percent of a network that is calibrated first."""
    quantized = prepare(network, dataset.calibration(calibration, 0)).quantize(QuantScheme.parse(scheme))
    return 100 * count_correct(quantized, dataset, dataset.test.first(images)).correct / images


def main(
    checkpoint: str,
    data: Annotated[str | None, typer.Option()] = None,
    images: Annotated[int, typer.Option(help="Test images.")] = 500,
    calibration: Annotated[int, typer.Option(help="Calibration images.")] = 256,
) -> None:
    """Prints what the projections look like, then the accuracies."""
    torch.set_num_threads(1)
    ghn = GHN.from_pretrained(checkpoint)
    dataset = dataset_for(ghn, data)
    network = initialize(mobilenet_v2(), ghn, dataset.input_shape)
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    convolutions = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    projections = [n for n, c in convolutions.items() if c.kernel_size == (1, 1) and c.out_channels < c.in_channels]
    wide = [name for name in projections if convolutions[name].in_channels > WIDEST_IN_TRAIN]
    for name in projections:
        weight = convolutions[name].weight.detach().flatten(1)
        zeroed = small(weight)
        sums = [float((weight * part).sum(1).abs().mean()) for part in (zeroed, ~zeroed)]
        kept = float((~zeroed).sum(1).float().mean())
        print(
            f"{name}: {weight.shape[1]} inputs, {kept:.1f} remain, sum of the others {sums[0] / sums[1]:.2f} of theirs"
        )
    print(f"float32 {accuracy(network, dataset, images, calibration):.1f}")
    print(f"w4a8 {accuracy(network, dataset, images, calibration, 'w4a8'):.1f}")
    narrow = set(projections) - set(wide)
    rows = {"all layers": set(layers), "projections": set(projections), "narrow ones": narrow, "wide ones": set(wide)}
    for label, names in rows.items():
        altered = accuracy(without_small_weights(network, names), dataset, images, calibration)
        print(f"float32 without the small weights of {label} {altered:.1f}")


if __name__ == "__main__":
    typer.run(main)
