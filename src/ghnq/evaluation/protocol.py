"""The evaluation protocol: architectures never trained on, predicted, calibrated, quantized, counted.

For every architecture of a split and every scheme: parameters are predicted; batch-norm statistics are estimated from
calibration images of the training split; the network is folded and quantized (`ghnq.quant`); accuracy is counted on the
test images, or on a fixed, class-balanced subset of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ghnq import spaces
from ghnq.data import ImageDataset
from ghnq.errors import SchemeError
from ghnq.evaluation.architecture_selection import architectures
from ghnq.evaluation.engine import Engine, engine_of
from ghnq.evaluation.evaluator import Evaluator
from ghnq.evaluation.ledger import Ledger
from ghnq.evaluation.named_schemes import DEFAULT_SCHEMES, describe_schemes, name_schemes
from ghnq.evaluation.provenance import machine, versions, weights_hash
from ghnq.evaluation.results import Results
from ghnq.evaluation.rows import Row
from ghnq.hypernet import GHN
from ghnq.memory import keep_freed_memory
from ghnq.prediction import CALIBRATION_IMAGES, check_dataset, space_of, warn_about_other_images
from ghnq.prediction.inference import BATCH_SIZE
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme
from ghnq.recorded_names import checkpoint_name

Task = tuple[str, int, tuple[str, ...]]
"""Split, index, and the names of the schemes that are not measured yet."""


def evaluate(
    ghn: GHN,
    dataset: ImageDataset,
    *,
    checkpoint: str,
    splits: Sequence[str] = ("test",),
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    limit: int | None = None,
    images: int | None = None,
    protocol: str | None = None,
    steps: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> Results:
    """Measures the predicted networks of splits and returns one row per architecture and scheme.

    Args:
        checkpoint: The name of the hypernetwork in the results; of a path, the folder's name.
        splits: Whole splits, or single members, SPLIT/INDEX.
        schemes: Text such as `w4a8`, or paths of scheme files, whose name in the results is NAME@HASH.
        limit: How many architectures of each whole split, from the first; None is all.
        images: How many test images (`dataset.test.first`); None is all.
        protocol: Of schemes given as text; None is `deploy`. A scheme file has its own, and must not contradict it.
        steps: Post-training steps of schemes given as text; as for `protocol`.
        out: A folder for `results.parquet` and `summary.json`. Rows are written there as they are made, so that an
            interrupted evaluation resumes when it is called again, and splits, schemes or architectures can be added.
        seed: Selects the calibration images.
        workers: The number of processes; None is one for each core. The numbers do not depend on it.
        cluster: The address of a Ray cluster on which networks are measured (`ghnq.evaluation.ray_cluster`).
        progress: Called with the number of architectures measured, first with those found in `out`.

    Raises:
        SpaceError: A split or an index does not exist.
        SchemeError: A scheme, protocol or step does not exist, or does not fit an architecture.
        DataError: The images do not fit the hypernetwork, or are too few.
        GhnqError: `out` holds another evaluation, or the cluster cannot be used.
    """
    keep_freed_memory()
    engine = engine_of(cluster, workers)
    named = name_schemes(schemes, protocol, tuple(steps))
    members = architectures(splits, limit, space_of(ghn))
    check_dataset(ghn, dataset)
    warn_about_other_images(ghn, dataset)
    evaluator = _evaluator(ghn, dataset, images, protocol or "deploy", seed, named)
    fingerprint = _fingerprint(evaluator, seed, steps)
    about = {"checkpoint": checkpoint_name(checkpoint), "data": dataset.name, **fingerprint, "torch_threads": 1}
    about |= describe_schemes(named)
    if read_options := dataset.read_options.record():
        about["read_options"] = read_options
    folder = None if out is None else Path(out)
    with Ledger(folder, fingerprint, machine()) as ledger:
        _measure_missing(evaluator, members, tuple(named), ledger, engine, progress)
        keys = [(split, index, name) for split, index in members for name in named]
        about["machines"] = ledger.machines(keys)
        results = Results.from_rows([ledger[key] for key in keys], about)
        if folder is not None:
            results.save(folder)
    return results


def _measure_missing(
    evaluator: Evaluator,
    members: list[tuple[str, int]],
    names: tuple[str, ...],
    ledger: Ledger,
    engine: Engine,
    progress: ProgressCallback | None,
) -> None:
    """Measures all rows that the ledger does not have, and adds them."""
    tasks = list(_missing(members, names, ledger))
    done, total = len(members) - len(tasks), len(members)
    report = progress or (lambda done, total: None)
    report(done, total)
    with closing(engine.run(partial(_measure, evaluator), tasks)) as finished:
        for rows in finished:
            ledger.add(rows)
            done += 1
            report(done, total)


def _missing(members: list[tuple[str, int]], names: tuple[str, ...], ledger: Ledger) -> Iterator[Task]:
    for split, index in members:
        missing = tuple(name for name in names if (split, index, name) not in ledger)
        if missing:
            yield split, index, missing


def _measure(evaluator: Evaluator, task: Task) -> list[Row]:
    split, index, schemes = task
    try:
        return evaluator.measure(split, index, schemes)
    except SchemeError as error:  # For example an override, which may match layers of some architectures only.
        raise SchemeError(f"{space_of(evaluator.ghn).name}/{split}/{index}: {error}") from error


def _evaluator(
    ghn: GHN, dataset: ImageDataset, images: int | None, protocol: str, seed: int, named: Mapping[str, QuantScheme]
) -> Evaluator:
    if any(parameter.device.type != "cpu" for parameter in ghn.parameters()):
        ghn = copy.deepcopy(ghn).cpu()
    return Evaluator(
        ghn=ghn,
        dataset=dataset,
        images=dataset.test if images is None else dataset.test.first(images),
        calibration=dataset.calibration(min(CALIBRATION_IMAGES, len(dataset.train)), seed),
        protocol=protocol,
        named=named,
    )


def _fingerprint(evaluator: Evaluator, seed: int, steps: Sequence[str]) -> dict[str, Any]:
    """Returns everything that a row depends on besides its architecture and scheme; part of the summary."""
    space = space_of(evaluator.ghn).name
    return {
        "checkpoint_hash": weights_hash(evaluator.ghn),
        "hypernetwork": evaluator.ghn.config.model_dump(mode="json"),
        "data_hash": evaluator.dataset.content_hash,
        "image_shape": list(evaluator.dataset.input_shape),
        "protocol": evaluator.protocol,
        # Absent without steps, so that evaluations of versions that had no steps can be resumed.
        **({"steps": list(steps)} if steps else {}),
        "test_images": len(evaluator.images),
        "calibration_images": len(evaluator.calibration),
        "seed": seed,
        # Absent for the default space, so that evaluations of versions that had no other can be resumed.
        **({} if space == spaces.DEFAULT else {"space": space}),
        "batch": BATCH_SIZE,
        "versions": versions(),
    }
