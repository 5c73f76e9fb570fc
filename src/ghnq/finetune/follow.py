"""What all processes of a run but the first one do: the same steps, with the learning rate of the first one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ghnq.errors import TrainingError
from ghnq.finetune.build import trainable_network
from ghnq.finetune.job import Job
from ghnq.finetune.learner import Learner
from ghnq.finetune.rate import find_rate, measure_step
from ghnq.finetune.teacher import Teacher
from ghnq.prediction import Network
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme
from ghnq.runs.distributed.worker_group import WorkerGroup

SAVE_EVERY = 100
"""Steps between states, to which a run returns when its loss is not finite."""
MAX_ROLLBACKS = 2
NOT_FINITE_AT_FIRST = (
    "the loss or its gradient is not finite before the first update, so no learning rate helps: in train mode the "
    "network returns NaN or infinite logits for these images; start from other weights (--init), or mend it"
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What happens before the first step.

    Attributes:
        step: Number of the first step.
        finished: Whether there is none.
        find_rate: Whether a range test is made.
        measure: Whether steps are measured.
    """

    step: int = 0
    finished: bool = False
    find_rate: bool = False
    measure: bool = False


def share(learner: Learner, orders: Orders) -> Orders:
    """Sends the weights, and the orders, of the first process to all; every process calls this.

    Returns:
        The orders of the first process.
    """
    group = learner.group
    if group.world_size == 1:
        return orders
    own = group.is_first
    header = torch.tensor([orders.step, orders.finished, orders.find_rate, orders.measure], device=group.device)
    step, finished, rate, measure = group.sum(header.float() * own).tolist()
    for tensor in [*learner.network.parameters(), *learner.network.buffers()]:
        with torch.no_grad():
            tensor.copy_(group.sum(tensor.detach().float() * own))
    _share_momentum(learner)
    return Orders(int(step), bool(finished), bool(rate), bool(measure))


def _share_momentum(learner: Learner) -> None:
    """Sends the momentum of a resumed run, which the first process alone has read."""
    group, state = learner.group, learner.optimizer.state
    own = [state.get(p, {}).get("momentum_buffer") for p in learner.parameters]
    known = group.sum(torch.tensor([float(m is not None) for m in own], device=group.device) * group.is_first)
    for parameter, momentum, present in zip(learner.parameters, own, known.tolist(), strict=True):
        if present:
            mine = torch.zeros_like(parameter) if momentum is None else momentum
            state[parameter]["momentum_buffer"] = group.sum(mine.detach() * group.is_first)


def follow(network: Network, job: Job, scheme: QuantScheme, teacher: nn.Module | None, group: WorkerGroup) -> None:
    """Trains with the first process of the group until it says that a step was the last one.

    Raises:
        TrainingError: The loss stays non-finite, or another process has ended.
    """
    settings = job.settings
    trainable = trainable_network(network, scheme, settings.start)
    imitated = None if teacher is None else Teacher(teacher, group.device)
    learner = Learner(trainable, hold_out(network.dataset)[0], settings, imitated, group)
    orders = share(learner, Orders())
    if orders.find_rate:
        find_rate(learner, max_seconds=None)
    if orders.measure:
        measure_step(learner)
    step, last, rollbacks = orders.step, orders.finished, 0
    saved, saved_at = learner.snapshot(), step
    while not last:
        report = learner.step(step, 0.0)
        if report.finite:
            step, last = step + 1, report.last
            if step % SAVE_EVERY == 0:
                saved, saved_at = learner.snapshot(), step
            continue
        if step == 0:
            raise TrainingError(NOT_FINITE_AT_FIRST)
        rollbacks += 1
        if rollbacks > MAX_ROLLBACKS:
            raise TrainingError("the loss was not finite for the third time")
        learner.restore(saved)
        step = saved_at
