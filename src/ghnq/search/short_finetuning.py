"""Accuracy after a short training through quantization from the predicted weights, as `ghnq finetune` trains.

A budget in seconds is counted in work, not by the clock: STEP_SECONDS and MULTIPLY_ADDS_PER_SECOND say how much work a
second is. So the accuracy does not depend on how fast or how busy the machine is, and a ranking that was interrupted,
or that several machines share, is the same as one that was not.
"""

from __future__ import annotations

from torch import nn

from ghnq.errors import NotFiniteError
from ghnq.finetune import Settings
from ghnq.finetune.build import trainable_network
from ghnq.finetune.learner import Learner
from ghnq.finetune.rate import FALLBACK
from ghnq.finetune.schedule import one_cycle
from ghnq.prediction import count_correct
from ghnq.quant import prepare
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.search.subject import Subject

BATCH_SIZE = 64
STEP_SECONDS = 0.02
MULTIPLY_ADDS_PER_SECOND = 1.2e10
"""A step takes STEP_SECONDS, and the multiply-adds of three forward passes of the batch at this rate."""
MAX_HALVINGS = 3


def steps_of(seconds: float, multiply_adds: int) -> int:
    """Returns how many steps a budget has for a network of so many multiply-adds for one image, at least one."""
    step = STEP_SECONDS + 3 * BATCH_SIZE * multiply_adds / MULTIPLY_ADDS_PER_SECOND
    return max(1, int(seconds / step))


def finetuned_accuracy(subject: Subject) -> float | None:
    """Returns the accuracy on held-out images at the scheme after training, percent; None where training diverges.

    Raises:
        SchemeError: The scheme cannot be applied to the network.
    """
    trained = finetuned(subject)
    if trained is None:
        return None
    try:
        prepared = prepare(
            trained,
            subject.network.calibration,
            standardise=False,
            keep_statistics=True,
            trained_through=str(subject.scheme),
        )
        count = count_correct(prepared.quantize(subject.scheme), subject.network.dataset, subject.images)
    except NotFiniteError:
        return None
    return 100 * count.correct / len(subject.images)


def finetuned(subject: Subject) -> nn.Module | None:
    """Returns the network trained within the budget, in float; None where its loss stays NaN or infinite."""
    settings = Settings(
        batch_size=min(BATCH_SIZE, len(subject.bench.training.train)), lr=FALLBACK, seed=subject.bench.seed
    )
    trainable = trainable_network(subject.network, subject.scheme, "identity")
    learner = Learner(trainable, subject.bench.training, settings, None, WorkerGroup())
    steps = steps_of(subject.budget.seconds, subject.sizes.multiply_adds)
    rate, halvings = FALLBACK, 0
    for step in range(steps):
        report = learner.step(step, rate * one_cycle(step / steps))
        if not report.finite:  # nothing was updated
            rate, halvings = rate / 2, halvings + 1
            if halvings > MAX_HALVINGS:
                return None
    result: nn.Module = trainable.float_network()
    return result
