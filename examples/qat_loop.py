"""Quantization-aware training in a loop of one's own, from predicted weights, and the deployed network at the end.

    python examples/qat_loop.py [--scheme w4a4] [--epochs 10]

`ghnq finetune` is the same as a command, with held-out images, a choice of the rate, and resuming.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ghnq
from ghnq.spaces import convnets


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return 100 * (network.eval()(images).argmax(1) == labels).float().mean().item()


def main(scheme: str, epochs: int) -> None:
    digits = ghnq.load_dataset("digits", image_size=16)
    images, labels = digits.normalise(digits.train.pixels), digits.train.labels
    test, test_labels = digits.normalise(digits.test.pixels), digits.test.labels
    calibration = digits.calibration(512, seed=0)

    module = convnets.build(convnets.spec("test", 17), in_channels=1)
    predicted = ghnq.initialize(module, ghnq.GHN.from_pretrained("digits"), input_shape=digits.input_shape)
    before = ghnq.quantize(predicted, scheme, calibration=calibration)
    print(f"predicted: {accuracy(before, test, test_labels):.1f} % at {scheme}")

    network = ghnq.quantize(predicted, scheme, calibration=calibration, trainable=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(images) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    torch.manual_seed(0)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(128)[: len(images) // 128]:
            loss = F.cross_entropy(network(images[batch]), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    print(f"trained:   {accuracy(network.deploy(), test, test_labels):.1f} % at {scheme}, as it is deployed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheme", default="w4a4")
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
