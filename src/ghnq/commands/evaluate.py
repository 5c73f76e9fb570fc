"""`ghnq evaluate`: the protocol for one checkpoint."""

from __future__ import annotations

from pathlib import Path

from ghnq.commands.options import check_folder, check_protocol, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.evaluation import architectures, summary_table
from ghnq.evaluation import evaluate as measure
from ghnq.hypernet import GHN
from ghnq.prediction import dataset_for, space_of
from ghnq.quant import read_scheme


def evaluate(
    checkpoint: str,
    *,
    data: str | None,
    splits: str,
    schemes: str,
    limit: int | None,
    images: int | None,
    protocol: str | None,
    steps: str | None,
    cluster: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measures the networks that `checkpoint` predicts and prints the table; `out` gets the table and a page."""
    # All options are checked before anything large is loaded.
    check_protocol(protocol)
    split_names, scheme_names = parse_list(splits, "--splits"), parse_list(schemes, "--schemes")
    step_names = parse_steps(steps)
    for name in scheme_names:
        read_scheme(name, protocol=protocol, steps=step_names or None)
    if out is not None:
        check_folder(out)
    with Terminal(as_json=as_json) as terminal:
        ghn = GHN.from_pretrained(checkpoint)
        architectures(split_names, limit, space_of(ghn))
        dataset = dataset_for(ghn, data)
        with measuring(terminal.progress) as progress:
            results = measure(
                ghn,
                dataset,
                checkpoint=checkpoint,
                splits=split_names,
                schemes=scheme_names,
                limit=limit,
                images=images,
                protocol=protocol,
                steps=step_names,
                out=out,
                cluster=cluster,
                progress=progress,
            )
        lines = []
        if out is not None:
            lines = [f"table and summary: [cyan]{out}[/]", f"page: [cyan]{write_folder_page(out, terminal)}[/]"]
        if results.nonfinite and as_json:
            terminal.progress.print(
                f"[yellow]warning:[/] {results.nonfinite:,} images have a NaN or infinite logit and count as wrong"
            )
        terminal.finish(results.document(), summary_table(results), *lines)
