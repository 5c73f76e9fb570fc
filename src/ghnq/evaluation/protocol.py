"""The evaluation protocol: architectures never trained on, predicted, calibrated, quantized, counted.

For every architecture of a split and every scheme: parameters are predicted; batch-norm statistics are estimated from
calibration images of the training split; the network is folded and quantized (`ghnq.quant`); accuracy is counted on the
test images, or on a fixed, class-balanced subset of them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ghnq import spaces
from ghnq.data import ImageDataset
from ghnq.errors import GhnqError, SchemeError, SpaceError, nearest
from ghnq.evaluation.evaluator import Evaluator
from ghnq.evaluation.ledger import Ledger
from ghnq.evaluation.provenance import machine, versions, weights_hash
from ghnq.evaluation.results import Results
from ghnq.evaluation.rows import Row
from ghnq.evaluation.workers import run_tasks, usable_workers
from ghnq.hypernet import GHN
from ghnq.memory import keep_freed_memory
from ghnq.prediction import CALIBRATION_IMAGES, check_dataset, space_of
from ghnq.prediction.inference import BATCH_SIZE
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme, dump_scheme, is_scheme_file, read_scheme
from ghnq.spaces import Space, Spec
from ghnq.torch_threads import one_torch_thread

DEFAULT_SCHEMES = ("float32", "w8a8", "w4a8", "w4a4")

Task = tuple[str, int, tuple[str, ...]]


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
    progress: ProgressCallback | None = None,
) -> Results:
    """Measures the predicted networks of splits and returns one row per architecture and scheme.

    checkpoint: how the results name the hypernetwork. splits: whole ones, or single members, SPLIT/INDEX.
    limit: only the first so many architectures of each whole split.
    images: only so many test images (`dataset.test.first`). seed: which calibration images.
    schemes: words, or paths of scheme files, which the results call NAME@HASH.
    protocol, steps: of the words; None is deploy. A file says both itself, and is refused where it says other.
    out: a folder for `results.parquet` and `summary.json`; rows are kept there as they are made, so an interrupted
        evaluation that is called again goes on, and more splits, schemes or architectures can be added later.
    workers: processes, by default one for each core; the numbers do not depend on it.
    progress: called with (architectures done, architectures in all), first with those found in `out`.

    Raises SpaceError (split, index), SchemeError (scheme, protocol), DataError (images that do not fit the
    hypernetwork, or too few), GhnqError (`out` holds another evaluation).
    """
    keep_freed_memory()
    named = _named_schemes(schemes, protocol, tuple(steps))
    names = tuple(named)
    members = architectures(splits, limit, space_of(ghn))
    check_dataset(ghn, dataset)
    evaluator = replace(_evaluator(ghn, dataset, images, protocol or "deploy", seed), named=named)
    fingerprint = _fingerprint(evaluator, seed, steps)
    about = {"checkpoint": checkpoint, "data": dataset.name, **fingerprint, "torch_threads": 1}
    about |= _settings(named)
    if from_files := {name: scheme for name, scheme in named.items() if name != str(scheme)}:
        about["scheme_files"] = {name: dump_scheme(scheme) for name, scheme in from_files.items()}
    folder = None if out is None else Path(out)
    with Ledger(folder, fingerprint, machine()) as ledger:
        tasks = _missing(members, names, ledger)
        count = usable_workers(workers, len(tasks))
        done, total = len(members) - len(tasks), len(members)
        report = progress or (lambda done, total: None)
        report(done, total)
        with one_torch_thread(), closing(run_tasks(partial(_measure, evaluator), tasks, count)) as finished:
            for rows in finished:
                ledger.add(rows)
                done += 1
                report(done, total)
        keys = [(split, index, name) for split, index in members for name in names]
        about["machines"] = ledger.machines(keys)
        results = Results.from_rows([ledger[key] for key in keys], about)
        if folder is not None:
            results.save(folder)
    return results


def _measure(evaluator: Evaluator, task: Task) -> list[Row]:
    split, index, schemes = task
    try:
        return evaluator.measure(split, index, schemes)
    except SchemeError as error:  # an override fits some architectures, and not others
        raise SchemeError(f"{space_of(evaluator.ghn).name}/{split}/{index}: {error}") from error


def _named_schemes(schemes: Sequence[str], protocol: str | None, steps: tuple[str, ...]) -> dict[str, QuantScheme]:
    """The schemes by the names that the results call them, each once; raises SchemeError.

    A word is its own name. A file is named after itself and what it holds, so that rows under an older content of the
    same file are never taken for rows under this one.
    """
    if not schemes:
        raise GhnqError(f"No scheme to evaluate; give some of {', '.join(DEFAULT_SCHEMES)}.")
    named = {}
    for text in schemes:
        scheme = read_scheme(text, protocol=protocol, steps=steps or None)
        if is_scheme_file(text):
            named[f"{Path(text).stem}@{hashlib.sha256(dump_scheme(scheme).encode()).hexdigest()[:8]}"] = scheme
        else:
            named[str(scheme)] = scheme
    return named


def _settings(named: dict[str, QuantScheme]) -> dict[str, Any]:
    """Protocol and steps, as the schemes that quantize have them; where these differ, also those of each."""
    deciding = {name: scheme for name, scheme in named.items() if not scheme.is_float} or named
    each = {name: " + ".join((scheme.protocol, *scheme.steps)) for name, scheme in deciding.items()}
    steps = {scheme.steps for scheme in deciding.values()}
    shared = steps.pop() if len(steps) == 1 else ()
    return {
        "protocol": ", ".join(dict.fromkeys(scheme.protocol for scheme in deciding.values())),
        **({"steps": list(shared)} if shared else {}),
        **({"settings": each} if len(set(each.values())) > 1 else {}),
    }


def architectures(
    splits: Sequence[str], limit: int | None = None, space: Space[Spec] | None = None
) -> list[tuple[str, int]]:
    """(split, index) of the first `limit` members of whole splits, and of members written SPLIT/INDEX, each once.

    space: where they come from; None is the default space.

    Raises SpaceError for a split or an index that does not exist, and for all of `train`.
    """
    space = spaces.get(spaces.DEFAULT) if space is None else space
    sizes = space.splits
    if not splits:
        raise SpaceError(f"No split to evaluate; give some of {', '.join(sizes)}.")
    if limit is not None and limit < 1:
        raise SpaceError(f"A limit of {limit} leaves no architecture; give at least 1.")
    found: list[tuple[str, int]] = []
    for word in splits:
        split, slash, index = word.partition("/")
        if split not in sizes:
            raise SpaceError(
                f"There is no split '{split}'{nearest(split, sizes)}. Splits are "
                f"{', '.join(sizes)}; one architecture is SPLIT/INDEX, for example test/17."
            )
        if slash:
            spaces.resolve(f"{space.name}/{word}")  # refuses an index that does not exist
            found.append((split, int(index)))
            continue
        if split == "train" and limit is None:
            raise SpaceError(f"The split 'train' has {sizes['train']:,} architectures; give a limit.")
        size = sizes[split]
        found += [(split, number) for number in range(min(size, limit or size))]
    return list(dict.fromkeys(found))


def _evaluator(ghn: GHN, dataset: ImageDataset, images: int | None, protocol: str, seed: int) -> Evaluator:
    if any(parameter.device.type != "cpu" for parameter in ghn.parameters()):
        ghn = copy.deepcopy(ghn).cpu()
    return Evaluator(
        ghn=ghn,
        dataset=dataset,
        images=dataset.test if images is None else dataset.test.first(images),
        calibration=dataset.calibration(min(CALIBRATION_IMAGES, len(dataset.train)), seed),
        protocol=protocol,
    )


def _fingerprint(evaluator: Evaluator, seed: int, steps: Sequence[str]) -> dict[str, Any]:
    """Everything a row hangs on besides its architecture and scheme; part of the summary."""
    return {
        "checkpoint_hash": weights_hash(evaluator.ghn),
        "hypernetwork": evaluator.ghn.config.model_dump(mode="json"),
        "data_hash": evaluator.dataset.content_hash,
        "image_shape": list(evaluator.dataset.input_shape),
        "protocol": evaluator.protocol,
        # Absent where there are none, so that evaluations from before there were steps can go on.
        **({"steps": list(steps)} if steps else {}),
        "test_images": len(evaluator.images),
        "calibration_images": len(evaluator.calibration),
        "seed": seed,
        # Absent for the default space, so that evaluations from before there were others can go on.
        **({} if space_of(evaluator.ghn).name == spaces.DEFAULT else {"space": space_of(evaluator.ghn).name}),
        "batch": BATCH_SIZE,
        "versions": versions(),
    }


def _missing(members: list[tuple[str, int]], names: tuple[str, ...], ledger: Ledger) -> list[Task]:
    tasks = []
    for split, index in members:
        wanted = tuple(name for name in names if (split, index, name) not in ledger)
        if wanted:
            tasks.append((split, index, wanted))
    return tasks
