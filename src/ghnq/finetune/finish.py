"""The end of a run: the trained weights are written and measured."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

from torch import nn

from ghnq._version import __version__
from ghnq.errors import GhnqWarning
from ghnq.finetune.job import Job
from ghnq.finetune.measure import accuracies
from ghnq.finetune.result import Result
from ghnq.finetune.state import Progress
from ghnq.finetune.transfer import TransferredWeights
from ghnq.prediction import Network, StoredWeights
from ghnq.prediction.held_out import hold_out
from ghnq.prediction.stored_weights import WEIGHTS, about_images
from ghnq.quant import QuantScheme
from ghnq.runs.write_errors import report_write_errors

_FLOAT32 = QuantScheme.parse("float32")


def schemes_of(scheme: QuantScheme) -> list[QuantScheme]:
    """Returns what a run is measured at: float32, and the scheme if it is another one."""
    return [_FLOAT32] if scheme.is_float else [_FLOAT32, scheme]


def write_result(
    network: Network, job: Job, scheme: QuantScheme, trained: nn.Module, progress: Progress, out: Path
) -> Result:
    """Writes the weights and the result of a run into its directory.

    Args:
        network: The network with its initial weights.
        trained: The trained copy of its module, in float.
    """
    dataset = network.dataset
    weights = StoredWeights.of(trained, network.module, _metadata(network, job, scheme))
    with report_write_errors(out):
        weights.save(out / WEIGHTS)
    after = replace(network, weights=weights)
    train_set, held_out = hold_out(dataset)
    result = Result(
        model=job.model,
        origin=job.origin,
        origin_sha256=job.origin_sha256,
        data=dataset.record(),
        scheme=str(scheme),
        steps=progress.step,
        epochs=progress.step * job.settings.batch_size / len(train_set.train),
        seconds=progress.seconds,
        lr=progress.peak,
        rollbacks=progress.rollbacks,
        test_images=len(dataset.test),
        before=progress.before,
        after=accuracies(after, dataset.test, schemes_of(scheme)),
        val_images=0 if held_out is None else len(held_out),
        val=None if held_out is None else accuracies(after, held_out, [scheme])[str(scheme)],
        weights=out / WEIGHTS,
        data_sha256=dataset.content_hash,
    )
    with report_write_errors(out):
        result.write(out)
    _warn_if_worse(result)
    return result


def _warn_if_worse(result: Result) -> None:
    """Warns where the accuracy at the scheme fell by more than twice its standard error."""
    before, after = result.before[result.scheme], result.after[result.scheme]
    error = math.sqrt((before * (100 - before) + after * (100 - after)) / result.test_images)
    if before - after > 2 * error:
        warnings.warn(
            f"{result.steps} steps have made the network worse at {result.scheme}: {after:.1f} % of "
            f"{result.test_images:,} test images, {before:.1f} % before. Train for longer (--epochs, --max-minutes), "
            f"or at a lower rate than --lr {result.lr:.2g}",
            GhnqWarning,
            stacklevel=4,
        )


def _metadata(network: Network, job: Job, scheme: QuantScheme) -> dict[str, str]:
    """Returns what the weights file says about itself."""
    dataset, (name, value) = network.dataset, job.origin
    head = {"head": network.weights.description} if isinstance(network.weights, TransferredWeights) else {}
    return {
        "format": "pt",
        "ghnq_version": __version__,
        "model": job.model,
        name: value,
        **({} if job.origin_sha256 is None else {f"{name}_sha256": job.origin_sha256}),
        "scheme": str(scheme),
        "trained_through": str(scheme),
        **about_images(dataset),
        "input_shape": ",".join(map(str, dataset.input_shape)),
        "num_classes": str(dataset.num_classes),
        "standardise": "false",
    } | head
