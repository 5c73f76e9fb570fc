"""The results as tables, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from ghnq.evaluation.results import Results, SummaryRow

HEADINGS = ("networks", "mean", "max", "min", "drop from float32")


def summary_table(results: Results) -> Table:
    """Returns one line per split and scheme: mean ± standard error, max, min, drop from float32, in percent."""
    rows = results.summary_rows()
    images = rows[0]["images"] if rows else 0
    about = results.about
    table = Table(
        title=f"{about['checkpoint']} on {about['data']}, {results.setting}",
        caption=f"accuracy in percent on {images:,} test images, mean ± standard error over architectures"
        + _remark(results),
        header_style="bold",
    )
    table.add_column("split")
    table.add_column("scheme", overflow="fold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for number, row in enumerate(rows):
        last_of_split = number + 1 == len(rows) or rows[number + 1]["split"] != row["split"]
        first_of_split = number == 0 or rows[number - 1]["split"] != row["split"]
        table.add_row(row["split"] if first_of_split else "", *_cells(row), end_section=last_of_split)
    return table


def markdown_table(rows: Iterable[SummaryRow]) -> str:
    """Returns the lines of `summary_table` in Markdown, every cell filled."""
    cells = [("split", "scheme", *HEADINGS), ("---",) * (2 + len(HEADINGS))]
    cells += [(row["split"], *_cells(row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _cells(row: SummaryRow) -> list[str]:
    error = "" if row["sem"] is None else f" ± {row['sem']:.2f}"
    drop = "" if row["drop_from_float32"] is None or row["scheme"] == "float32" else f"{row['drop_from_float32']:z.2f}"
    return [
        row["scheme"],
        f"{row['architectures']:,}",
        f"{row['mean']:.2f}{error}",
        f"{row['max']:.2f}",
        f"{row['min']:.2f}",
        drop,
    ]


def _remark(results: Results) -> str:
    if not results.nonfinite:
        return ""
    return f"\n{results.nonfinite:,} images have a NaN or infinite logit and count as wrong"
