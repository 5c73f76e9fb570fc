"""`ghnq score`: the accuracy of the user's networks under schemes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ghnq._version import __version__
from ghnq.analysis.score import ScoreRow, choose_images, score_networks, score_table
from ghnq.commands.load_network import build_network
from ghnq.commands.options import check_folder, check_protocol, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import ChosenWeights, choose_weights
from ghnq.data import Images
from ghnq.errors import CheckpointError, DataError, GhnqError, GraphError
from ghnq.evaluation.named_schemes import describe_schemes, name_schemes
from ghnq.evaluation.provenance import machine
from ghnq.files import atomic_path, write_text
from ghnq.prediction import Network
from ghnq.prediction.held_out import hold_out

TABLE_FILE, SUMMARY_FILE = "results.parquet", "summary.json"


def score(
    models: Sequence[str],
    *,
    checkpoint: str | None,
    weights: Path | None,
    data: str | None,
    schemes: str,
    images: int | None,
    on: str,
    protocol: str | None,
    steps: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measures each of `models` under every scheme; `out` gets the table as parquet, and a summary."""
    check_protocol(protocol)
    named = name_schemes(parse_list(schemes, "--schemes"), protocol, parse_steps(steps))
    for model in models:
        if models.count(model) > 1:
            raise GhnqError(f"'{model}' is named more than once.")
    if out is not None:
        check_folder(out)
    with Terminal(as_json=as_json) as terminal:
        chosen = choose_weights(checkpoint, weights, data)
        classified = choose_images(chosen.dataset, on, images)
        # No image is both for calibration and measured.
        train = hold_out(chosen.dataset)[0].train if on == "val" else chosen.dataset.train
        networks = {model: _build(model, chosen, train) for model in models}
        with measuring(terminal.progress, "networks") as progress:
            rows = score_networks(networks, classified, named, progress)
        document = {
            **chosen.document,
            "data": chosen.dataset.name,
            "data_sha256": chosen.dataset.content_hash,
            "on": on,
            "images": len(classified),
            **describe_schemes(named),
            "rows": [row.document() for row in rows],
        }
        lines = []
        if out is not None:
            _write(out, rows, document | {"machine": machine(), "ghnq_version": __version__})
            lines = [f"table and summary: [cyan]{out}[/]"]
        kind = "test images" if on == "test" else "training images that are held out"
        calibrated = len(networks[models[0]].calibration)
        table = score_table(
            rows,
            f"{chosen.dataset.name}, {chosen.title}",
            f"accuracy in percent on {len(classified):,} {kind}; {calibrated} training images for calibration",
        )
        terminal.finish(document | {"warnings": terminal.warnings}, table, *lines)


def _build(model: str, chosen: ChosenWeights, train: Images) -> Network:
    """Builds a network that is calibrated on some of these images; errors name the model."""
    try:
        return build_network(model, chosen, images=train)
    except (CheckpointError, GraphError, DataError) as error:
        raise type(error)(f"{model}: {error}") from error.__cause__


def _write(folder: Path, rows: Sequence[ScoreRow], summary: dict[str, object]) -> None:
    with atomic_path(folder / TABLE_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist([row.document() for row in rows]), temporary)
    write_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2, allow_nan=False) + "\n")
