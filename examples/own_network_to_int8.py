"""A network of one's own: predicted parameters, 8-bit integers, an ONNX file, and the proof that both compute the same.

    python examples/own_network_to_int8.py [--out net.onnx]

Nothing is downloaded. `build` is the place for a network of yours: any `nn.Module` with static control flow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

import ghnq


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """A depthwise-separable convolution that halves the image."""
    return [
        nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    ]  # fmt: skip


def build() -> nn.Module:
    stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *block(16, 32), *block(32, 64), *head)


def main(out: Path) -> None:
    ghn = ghnq.GHN.from_pretrained("digits")
    digits = ghnq.load_dataset("digits", image_size=16)
    network = ghnq.initialize(build(), ghn, input_shape=digits.input_shape)

    for row in ghnq.score(network, digits, schemes=["float32", "w8a8", "w4a8"], on="test"):
        print(f"{row.scheme:8} {row.accuracy:.1f} % of {row.images} test images, without training")

    ghnq.export_onnx(network, "w8a8", calibration=digits.calibration(512, seed=0), out=out)
    parity = ghnq.deploy.verify(out, digits)
    print(f"{out}: {out.stat().st_size:,} bytes; ONNX Runtime agrees with the simulation on {parity.agreement:.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("net.onnx"))
    main(parser.parse_args().out)
