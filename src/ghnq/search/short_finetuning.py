"""Accuracy after a short training through quantization, from predicted or random weights, as `ghnq finetune` trains.

A budget in seconds is counted in work, not by the clock: STEP_SECONDS and MULTIPLY_ADDS_PER_SECOND say how much work a
second is. So the accuracy does not depend on how fast or how busy the machine is, and a ranking that was interrupted,
or that several machines share, is the same as one that was not.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ghnq.errors import NotFiniteError
from ghnq.finetune import Settings
from ghnq.finetune.build import trainable_network
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.finetune.learner import Learner
from ghnq.finetune.rate import FALLBACK, rate_of_predicted
from ghnq.finetune.schedule import one_cycle
from ghnq.finetune.statistics import estimate_statistics
from ghnq.prediction import count_correct
from ghnq.quant import prepare
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.search.subject import Subject

BATCH_SIZE = 64
STEP_SECONDS = 0.02
MULTIPLY_ADDS_PER_SECOND = 1.2e10
"""A step takes STEP_SECONDS, and the multiply-adds of three forward passes of the batch at this rate."""
STATISTICS_IMAGES = 1024
"""Training images that the statistics of norms are estimated on at the end."""
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


def trained_accuracy(subject: Subject) -> float | None:
    """Returns the same from He's random weights; the seed is that of the ranking.

    Raises:
        SchemeError: The scheme cannot be applied to the network.
    """
    random = replace(subject.network, weights=KaimingWeights(subject.bench.seed))
    return finetuned_accuracy(replace(subject, network=random))


def finetuned(subject: Subject) -> nn.Module | None:
    """Returns the network trained within the budget, in float; None where its loss stays NaN or infinite."""
    training = subject.bench.training
    settings = Settings(batch_size=min(BATCH_SIZE, len(training.train)), seed=subject.bench.seed)
    trainable = trainable_network(subject.network, subject.scheme, settings.start)
    learner = Learner(trainable, training, settings, None, WorkerGroup())
    steps = steps_of(subject.budget.seconds, subject.sizes.multiply_adds)
    predicted = subject.network.weights.standardise
    rate, halvings = rate_of_predicted(steps, settings.batch_size) if predicted else FALLBACK, 0
    for step in range(steps):
        report = learner.step(step, rate * one_cycle(step / steps))
        if not report.finite:  # nothing was updated
            rate, halvings = rate / 2, halvings + 1
            if halvings > MAX_HALVINGS:
                return None
    estimate_statistics(learner, steps, STATISTICS_IMAGES)
    result: nn.Module = trainable.float_network()
    return result
