"""The accuracy of networks under schemes: one row for each network and scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table
from torch import nn

from ghnq.analysis.score_ledger import KeptRow, Key, ScoreLedger, code_hash
from ghnq.data import ImageDataset, Images
from ghnq.data.images import check_dataset_type
from ghnq.errors import DataError, GhnqError, GraphError, SchemeError, nearest
from ghnq.hypernet import GHN
from ghnq.hypernet.model import check_ghn
from ghnq.prediction import CALIBRATION_IMAGES, CALIBRATION_SEED, Network, PredictedWeights, StoredWeights, WeightSource
from ghnq.prediction.held_out import hold_out
from ghnq.progress import ProgressCallback
from ghnq.quant import QuantScheme
from ghnq.quant.standardisation import has_predicted_weights
from ghnq.torch_threads import one_torch_thread

Split = Literal["val", "test"]
SPLITS: tuple[Split, ...] = ("val", "test")
DEFAULT_SCHEMES = ("float32", "w8a8", "w4a8", "w4a4")


@dataclass(frozen=True)
class ScoreRow:
    """One network under one scheme.

    Attributes:
        model: The name of the network.
        scheme, protocol: What it was quantized to.
        accuracy: Percent.
        drop_from_float32: Percentage points; None where float32 was not measured.
        correct, images: Counts of images.
        nonfinite: Images with a NaN or infinite logit, which are not correct.
        parameters, multiply_adds: The size of the network.
    """

    model: str
    scheme: str
    protocol: str
    accuracy: float
    drop_from_float32: float | None
    correct: int
    images: int
    nonfinite: int
    parameters: int
    multiply_adds: int

    def document(self) -> dict[str, Any]:
        """Returns the row for JSON."""
        return asdict(self)


def score(
    module: nn.Module,
    dataset: ImageDataset,
    *,
    ghn: GHN | None = None,
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    images: int | None = None,
    on: Split = "val",
    name: str = "network",
    output: str | None = None,
) -> list[ScoreRow]:
    """Measures the accuracy of one network under schemes, as `ghnq score` does.

    Args:
        module: The network; it is not changed.
        dataset: The images; norms and ranges are calibrated on its training split, without the images measured on.
        ghn: Predicts the parameters; None takes those of the module. It keeps the statistics of its norms, unless
            `ghnq.initialize` made it: then they are estimated, as they are with `ghn`.
        schemes: Text such as `w4a8`, or paths of scheme files.
        images: How many images; None is all.
        on: `val`, training images that are held out (`ghnq.prediction.held_out`), or `test`.
        name: The name of the network in the rows.
        output: Which of several tensors that the module returns is the logits (`ghnq.network_outputs`).

    Raises:
        DataError: The images do not fit, or too few were given.
        SchemeError: A scheme does not exist or does not fit the network.
        GhnqError: An argument is of another type.
    """
    check_dataset_type(dataset, "score()")
    if ghn is not None:
        check_ghn(ghn, "score()")
    # What `ghnq.initialize` returns has the statistics of a new module, which are no statistics of images.
    predicted = {"calibrated": "false", "standardise": "true"} if has_predicted_weights(module) else {}
    weights: WeightSource = StoredWeights.of(module, module, predicted) if ghn is None else PredictedWeights(ghn)
    train = hold_out(dataset)[0].train if on == "val" else dataset.train
    calibration = train.balanced(min(CALIBRATION_IMAGES, len(train)), CALIBRATION_SEED)
    network = Network(module, weights, dataset, dataset.normalise(calibration.pixels), output)
    named = {str(scheme): scheme for scheme in map(QuantScheme.parse, schemes)}
    return score_networks({name: network}, choose_images(dataset, on, images), named)


def choose_images(dataset: ImageDataset, on: str, count: int | None) -> Images:
    """Returns the held-out training images or the test images, or a fixed subset, balanced over classes.

    Raises:
        GhnqError: There is no such split.
        DataError: There are no held-out images, or fewer than `count`.
    """
    if on not in SPLITS:
        raise GhnqError(f"There are no images '{on}'{nearest(on, SPLITS)}; --on takes {' or '.join(SPLITS)}.")
    images: Images | None = dataset.test if on == "test" else hold_out(dataset)[1]
    if images is None:
        raise DataError(
            f"'{dataset.name}' has {len(dataset.train)} training images, too few to hold some out; measure on the test "
            "images (--on test)"
        )
    return images if count is None else images.first(count)


def score_networks(
    networks: Mapping[str, Network],
    images: Images,
    schemes: Mapping[str, QuantScheme],
    progress: ProgressCallback | None = None,
    ledger: ScoreLedger | None = None,
) -> list[ScoreRow]:
    """Returns one row for each network and scheme, in this order.

    Args:
        networks: By the names that they have in the rows.
        images: What is classified.
        schemes: By the names that they have in the rows.
        progress: Called with the number of rows that are finished, first with those found in the ledger.
        ledger: Gets every row as it is made; rows that it has are not made again. None keeps them in memory.

    Raises:
        GraphError, SchemeError: A network cannot be traced, or a scheme does not fit it; the message names the network.
    """
    report = progress or (lambda done, total: None)
    kept = ScoreLedger(None, {}, {}) if ledger is None else ledger
    keys = row_keys(networks, schemes)
    missing = [key for key in keys if key not in kept]
    with one_torch_thread():
        for number, (model, digest, scheme) in enumerate(missing):
            report(len(keys) - len(missing) + number, len(keys))
            try:
                row = _measure(model, digest, networks[model], scheme, schemes[scheme], images)
            except (GraphError, SchemeError, DataError) as error:
                raise type(error)(f"{model}: {error}") from error
            kept.add([row])
    report(len(keys), len(keys))
    in_float = {key[0]: _accuracy(kept[key]) for key in keys if key[2] == "float32"}
    return [_row(kept[key], in_float.get(key[0])) for key in keys]


def row_keys(networks: Mapping[str, Network], schemes: Mapping[str, QuantScheme]) -> list[Key]:
    """Returns the keys of the rows of `score_networks` in a ledger, in order."""
    hashes = {model: code_hash(network) for model, network in networks.items()}
    return [(model, digest, scheme) for model, digest in hashes.items() for scheme in schemes]


def score_table(rows: Sequence[ScoreRow], title: str, caption: str) -> Table:
    """Returns one line for each network and scheme, in percent."""
    table = Table(title=title, caption=caption, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("scheme", overflow="fold")
    for heading in ("accuracy", "drop from float32", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for number, row in enumerate(rows):
        first = number == 0 or rows[number - 1].model != row.model
        last = number + 1 == len(rows) or rows[number + 1].model != row.model
        size = [f"{row.parameters:,}", f"{row.multiply_adds:,}"] if first else ["", ""]
        table.add_row(
            escape(row.model) if first else "", row.scheme, f"{row.accuracy:.2f}", _drop(row), *size, end_section=last
        )
    return table


def _measure(
    model: str, digest: str, network: Network, scheme_name: str, scheme: QuantScheme, images: Images
) -> KeptRow:
    count = network.count_correct(scheme, images)
    return KeptRow(
        model=model,
        network=digest,
        scheme=scheme_name,
        protocol=scheme.protocol,
        correct=count.correct,
        images=len(images),
        nonfinite=count.nonfinite,
        parameters=network.graph.num_parameters,
        multiply_adds=network.graph.multiply_adds,
    )


def _accuracy(row: KeptRow) -> float:
    return 100 * row["correct"] / row["images"]


def _row(row: KeptRow, in_float: float | None) -> ScoreRow:
    return ScoreRow(
        model=row["model"],
        scheme=row["scheme"],
        protocol=row["protocol"],
        accuracy=_accuracy(row),
        drop_from_float32=None if in_float is None else in_float - _accuracy(row),
        correct=row["correct"],
        images=row["images"],
        nonfinite=row["nonfinite"],
        parameters=row["parameters"],
        multiply_adds=row["multiply_adds"],
    )


def _drop(row: ScoreRow) -> str:
    shown = row.drop_from_float32 is not None and row.scheme != "float32"
    return f"{row.drop_from_float32:z.2f}" if shown else ""
