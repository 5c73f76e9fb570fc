"""`ghnq score`: the accuracy of the user's networks under schemes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ghnq._version import __version__
from ghnq.analysis.score import ScoreRow, choose_images, row_keys, score_networks, score_table
from ghnq.analysis.score_ledger import ScoreLedger
from ghnq.commands.load_network import build_network
from ghnq.commands.options import check_folder, check_protocol, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import ChosenWeights, choose_weights
from ghnq.data import Images
from ghnq.errors import CheckpointError, DataError, GhnqError, GraphError
from ghnq.evaluation.named_schemes import describe_schemes, name_schemes
from ghnq.evaluation.provenance import machine, versions
from ghnq.files import atomic_path, write_text
from ghnq.prediction import Network
from ghnq.prediction.held_out import hold_out
from ghnq.quant import QuantScheme
from ghnq.recorded_names import model_names
from ghnq.report.graph_file import write_graphs

TABLE_FILE, SUMMARY_FILE = "results.parquet", "summary.json"


def score(
    models: Sequence[str],
    *,
    checkpoint: str | None,
    weights: Path | None,
    data: str | None,
    head: str | None,
    schemes: str,
    images: int | None,
    on: str,
    protocol: str | None,
    steps: str | None,
    out: Path | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Measures each of `models` under every scheme; `out` gets the rows as they are made, a table, and a page."""
    check_protocol(protocol)
    named = name_schemes(parse_list(schemes, "--schemes"), protocol, parse_steps(steps))
    names = model_names(models)
    for name, model in zip(names, models, strict=True):
        if names.count(name) > 1:
            raise GhnqError(f"'{model}' is named more than once.")
    if out is not None:
        check_folder(out)
    with Terminal(as_json=as_json) as terminal:
        chosen = choose_weights(checkpoint, weights, data, head, output)
        classified = choose_images(chosen.dataset, on, images)
        # No image is both for calibration and measured.
        train = hold_out(chosen.dataset)[0].train if on == "val" else chosen.dataset.train
        networks = {name: _build(model, chosen, train, output) for name, model in zip(names, models, strict=True)}
        fingerprint = _fingerprint(chosen, on, len(classified), len(networks[names[0]].calibration), protocol, steps)
        fingerprint |= {} if output is None else {"output": output}
        with ScoreLedger(out, fingerprint, machine()) as ledger:
            rows = _measure(networks, classified, named, ledger, terminal, out)
            document = {
                **chosen.document,
                **chosen.dataset.record(),
                "on": on,
                "images": len(classified),
                **describe_schemes(named),
                "rows": [row.document() for row in rows],
            }
            lines = []
            if out is not None:
                machines = ledger.machines(row_keys(networks, named))
                _write(out, rows, document | {"machines": machines, "ghnq_version": __version__})
                write_graphs(out, {name: network.graph for name, network in networks.items()})
                lines = [f"table and summary: [cyan]{out}[/]", f"page: [cyan]{write_folder_page(out, terminal)}[/]"]
        kind = "test images" if on == "test" else "training images that are held out"
        calibrated = len(networks[names[0]].calibration)
        table = score_table(
            rows,
            f"{chosen.dataset.name}, {chosen.title}",
            f"accuracy in percent on {len(classified):,} {kind}; {calibrated} training images for calibration",
        )
        terminal.finish(document | {"warnings": terminal.warnings}, table, *lines)


def _measure(
    networks: Mapping[str, Network],
    images: Images,
    schemes: Mapping[str, QuantScheme],
    ledger: ScoreLedger,
    terminal: Terminal,
    out: Path | None,
) -> list[ScoreRow]:
    """Measures what the ledger does not have; on Ctrl-C it says what is kept."""
    if len(ledger) and any(key in ledger for key in row_keys(networks, schemes)):
        terminal.progress.print(f"rows in '{out}' are kept; the others are measured", soft_wrap=True, highlight=False)
    try:
        with measuring(terminal.progress, "rows") as progress:
            return score_networks(networks, images, schemes, progress, ledger)
    except KeyboardInterrupt:
        kept = "nothing is kept without --out" if out is None else (
            f"{len(ledger)} rows are kept in '{out}'; the same command goes on with the others")  # fmt: skip
        terminal.progress.print(f"Interrupted; {kept}.", soft_wrap=True, highlight=False)
        raise


def _fingerprint(
    chosen: ChosenWeights, on: str, images: int, calibration: int, protocol: str | None, steps: str | None
) -> dict[str, object]:
    """Returns everything that a row depends on besides its network and scheme."""
    return {
        "command": "score",
        f"{chosen.option}_sha256": chosen.sha256,
        "head": "given" if chosen.head is None else "solved",
        "data_sha256": chosen.dataset.content_hash,
        "image_shape": list(chosen.dataset.input_shape),
        "on": on,
        "images": images,
        "calibration_images": calibration,
        "protocol": protocol or "deploy",
        "steps": steps or "",
        "versions": versions(),
    }


def _build(model: str, chosen: ChosenWeights, train: Images, output: str | None) -> Network:
    """Builds a network that is calibrated on some of these images; errors name the model."""
    try:
        return build_network(model, chosen, images=train, output=output)
    except (CheckpointError, GraphError, DataError) as error:
        raise type(error)(f"{model}: {error}") from error.__cause__


def _write(folder: Path, rows: Sequence[ScoreRow], summary: dict[str, object]) -> None:
    with atomic_path(folder / TABLE_FILE) as temporary:
        pq.write_table(pa.Table.from_pylist([row.document() for row in rows]), temporary)
    write_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2, allow_nan=False) + "\n")
