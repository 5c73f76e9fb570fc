"""What every process of a run does in a step: its share of the batch, then the same update of the network.

Dimensions: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ghnq.data import ImageDataset
from ghnq.errors import TrainingError
from ghnq.finetune.job import Settings
from ghnq.finetune.teacher import Teacher
from ghnq.memory import keep_freed_memory
from ghnq.network_outputs import choose_output, named_tensors
from ghnq.quant import TrainableNetwork
from ghnq.runs.distributed.worker_group import WorkerGroup

Snapshot = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of all processes.

    Attributes:
        loss: Mean over the batch.
        accuracy: On the batch, percent.
        gradient_norm: Before clipping.
        finite: Whether loss and gradient are finite; if not, nothing was updated.
        last: Whether the first process makes no further step.
    """

    loss: float
    accuracy: float
    gradient_norm: float
    finite: bool
    last: bool


class Learner:
    """The network, its optimizer and the images, in one process.

    Args:
        network: The trainable network; it is moved to the device of the group.
        dataset: The training images.
        settings: How it is trained.
        teacher: A trained network to imitate, if there is one.
        group: The processes.

    Raises:
        TrainingError: No parameter can be trained, or there are fewer images than processes need.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        dataset: ImageDataset,
        settings: Settings,
        teacher: Teacher | None,
        group: WorkerGroup,
    ) -> None:
        keep_freed_memory()
        self.settings, self.group, self.teacher = settings, group, teacher
        self.dataset = replace(dataset, train=dataset.train.to(group.device))
        # Convolutions on a processor are faster in this memory format.
        self.network = network.to(group.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = [p for p in network.parameters() if p.requires_grad and p.is_floating_point()]
        if not self.parameters:
            raise TrainingError("the network has no parameter that requires a gradient, so there is nothing to train")
        if settings.batch_size < 2 * group.world_size:
            raise TrainingError(
                f"--batch-size {settings.batch_size} is less than 2 images for each of {group.world_size} processes"
            )
        self.optimizer = _sgd(self.parameters, settings)

    def step(self, number: int, lr: float, *, last: bool = False) -> StepReport:
        """Makes one step; images and augmentation are functions of its number.

        Args:
            lr: The learning rate; that of the first process counts.
            last: Whether this is the last step; what the first process says counts.
        """
        images, targets = self._batch(number)
        logits = self._logits(images)
        loss = self._loss(logits, images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        correct = (logits.detach().argmax(1) == targets).float().mean()
        figures = self._exchange(torch.stack([loss.detach(), correct]), lr, last)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip))
        finite = bool(torch.isfinite(figures[0])) and norm < float("inf")
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = float(figures[2])
            self.optimizer.step()
        return StepReport(float(figures[0]), 100 * float(figures[1]), norm, finite, bool(figures[3]))

    def snapshot(self) -> Snapshot:
        """Returns copies of all tensors that training changes, by name."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.network.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            if moments.get("momentum_buffer") is not None:
                tensors[f"momentum.{number}"] = moments["momentum_buffer"]
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Restores a snapshot; a network without momentum yet has none afterwards.

        Raises:
            RuntimeError: It is of another network.
        """
        prefix = "network."
        weights = {name.removeprefix(prefix): t for name, t in snapshot.items() if name.startswith(prefix)}
        self.network.network.load_state_dict(weights)
        prefix = "momentum."
        momenta = {
            int(name.removeprefix(prefix)): {"momentum_buffer": tensor.clone()}
            for name, tensor in snapshot.items()
            if name.startswith(prefix)
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": momenta})

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Returns this process's part of the batch, [B, C, H, W] and [B]; together the parts do not depend on them."""
        images, targets = self.dataset.train_batch(number, self.settings.batch_size, self.settings.seed)
        mine = slice(self.group.rank, None, self.group.world_size)
        return images[mine].contiguous(memory_format=torch.channels_last), targets[mine]

    def _logits(self, images: Tensor) -> Tensor:
        """Returns the logits [B, K]; some networks return further results in train mode only."""
        result = self.network(images)
        if isinstance(result, Tensor):
            return result
        tensors = named_tensors(result)
        return tensors[choose_output(tensors, len(images), num_classes=self.dataset.num_classes)]

    def _loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        hard = F.cross_entropy(logits, targets, label_smoothing=self.settings.label_smoothing)
        if self.teacher is None:
            return hard
        share = self.settings.teacher_share
        return (1 - share) * hard + share * self.teacher.loss(logits, images, self.settings.teacher_temperature)

    def _exchange(self, figures: Tensor, lr: float, last: bool) -> Tensor:
        """Averages gradients and figures over all processes; returns the figures, then rate and end of the first."""
        order = torch.tensor([lr, float(last)], dtype=torch.float64)
        if self.group.world_size == 1:
            return torch.cat([figures.double().cpu(), order])
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        tail = torch.cat([figures / self.group.world_size, order.to(figures) * self.group.is_first])
        flat = torch.cat([*(g.reshape(-1) / self.group.world_size for g in gradients), tail])
        self.group.sum(flat)
        parts = torch.split(flat[: -len(tail)], [g.numel() for g in gradients])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return flat[-len(tail) :].double().cpu()


def _sgd(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.SGD:
    """Returns SGD without weight decay on vectors: biases, and scale and shift of norms."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=0.1, momentum=settings.momentum, nesterov=True
    )
