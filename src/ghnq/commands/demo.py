"""`ghnq demo`: an evaluation on real digits."""

from __future__ import annotations

import time
from pathlib import Path

from ghnq.commands.options import check_folder
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.evaluation import summary_table
from ghnq.evaluation.demo import demo as run_demo


def demo(*, out: Path, as_json: bool) -> None:
    """Measures unseen architectures with predicted parameters, prints the table, and writes everything to `out`."""
    check_folder(out)
    start = time.monotonic()
    with Terminal(as_json=as_json) as terminal:
        with measuring(terminal.progress) as progress:
            result = run_demo(out, progress=progress)
        page = write_folder_page(out, terminal)
        rows = result.results.summary_rows()
        terminal.finish(
            result.results.document(),
            summary_table(result.results),
            f"{rows[0]['architectures']} architectures that the hypernetwork has never seen; none of them was trained. "
            f"Took {time.monotonic() - start:.0f} s.",
            f"page:         [cyan]{page}[/]",
            f"architecture: [cyan]{result.drawing}[/]",
        )
