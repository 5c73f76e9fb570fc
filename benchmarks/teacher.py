"""Soft labels for the study: a ResNet trained directly for some minutes, and what it answers to training images.

    python benchmarks/teacher.py --data ../shared/data --minutes 15 --out runs/teacher.safetensors

The images that a run of the same seed holds out for validation are not trained on. Answers are the mean over an image
and its mirror image. On a GPU, if there is one (`--network resnet18` reaches 90 % in two minutes), in bfloat16; else
with one thread. A recipe takes the file as `soft_labels`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from torch import Tensor, nn

from ghnq.data import ImageDataset, Images, load
from ghnq.training.networks.soft_labels import save_soft_labels
from ghnq.training.run.validation import split_validation
from named import resnet18, resnet20

NETWORKS = {"resnet18": resnet18, "resnet20": resnet20}


def fit(network: nn.Module, dataset: ImageDataset, minutes: float, batch: int = 128, peak: float = 0.2) -> int:
    """Trains with Nesterov SGD, the rate rising over a tenth of the time and then falling to zero; returns steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    network.train()
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(done / 0.1, (1 - done) / 0.9)
        images, labels = dataset.train_batch(step, batch, 0)
        with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
            loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
    return step


@torch.no_grad()
def answers(network: nn.Module, dataset: ImageDataset, images: Images, temperature: float = 1.0) -> Tensor:
    """Class probabilities [B, classes]."""
    network.eval()
    parts = []
    for chunk in images.pixels.split(500):
        x = dataset.normalise(chunk)
        views = (x, x.flip(-1)) if dataset.flip else (x,)
        parts.append(sum(network(view).div(temperature).softmax(1) for view in views) / len(views))
    return torch.cat(parts)


def main(
    data: Annotated[str, typer.Option(help="Directory or hub id of CIFAR-10.")],
    minutes: Annotated[float, typer.Option()] = 15.0,
    held: Annotated[int, typer.Option(help="Images that the recipe holds out.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the recipe.")] = 0,
    network: Annotated[str, typer.Option(help=", ".join(NETWORKS))] = "resnet20",
    batch: Annotated[int, typer.Option()] = 128,
    temperature: Annotated[float, typer.Option(help="Of the answers, by which logits are divided.")] = 1.0,
    out: Annotated[Path, typer.Option()] = Path("runs/teacher.safetensors"),
) -> None:
    """Prints the teacher's accuracy on test images."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = load(data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = NETWORKS[network]().to(device, memory_format=torch.channels_last)
    kept = split_validation(dataset, held, seed)[0]
    steps = fit(teacher, replace(kept, train=kept.train.to(device)), minutes, batch)
    test = dataset.test.first(2000).to(device)
    correct = (answers(teacher, dataset, test).argmax(1) == test.labels).float().mean()
    save_soft_labels(answers(teacher, dataset, dataset.train.to(device), temperature).cpu(), dataset, out)
    Console().print(
        f"{network}: {steps} steps of {batch} images in {minutes:g} minutes, {100 * correct:.1f} % of 2,000 test "
        f"images; {out}"
    )


if __name__ == "__main__":
    typer.run(main)
