"""Images in folders, one for each class: a network for them without a gradient, and its accuracy at 32, 8 and 4 bits.

    python examples/transfer_to_own_folder.py FOLDER [--checkpoint cifar10] [--image-size 32]

FOLDER has `train/CLASS/*` and `test/CLASS/*`, or only `CLASS/*`, of which a fifth is then held out for the test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file

import ghnq
from ghnq.spaces import convnets


def main(folder: Path, checkpoint: str, image_size: int) -> None:
    splits = {path.name for path in folder.iterdir()}
    holdout = None if "test" in splits else 0.2
    dataset = ghnq.load_dataset(str(folder), image_size=image_size, holdout=holdout)
    print(f"{len(dataset.train)} training and {len(dataset.test)} test images of {dataset.num_classes} classes")

    ghn = ghnq.GHN.from_pretrained(checkpoint)
    spec = convnets.spec("test", 17)
    module = convnets.build(spec, in_channels=dataset.input_shape[0], num_classes=dataset.num_classes)
    network = ghnq.transfer(module, ghn, dataset)  # the body is predicted, the last layer solved in closed form

    for row in ghnq.score(network, dataset, schemes=["float32", "w8a8", "w4a8"], on="test"):
        print(f"{row.scheme:8} {row.accuracy:.1f} %")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, "transferred.safetensors")
    print("weights: transferred.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default="cifar10")
    parser.add_argument("--image-size", type=int, default=32)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.checkpoint, arguments.image_size)
