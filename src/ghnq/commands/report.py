"""`ghnq report`: result folders as one page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ghnq.commands.options import check_output
from ghnq.commands.progress_display import measuring
from ghnq.commands.terminal import Terminal
from ghnq.report import read_results, write_page
from ghnq.runs.command_record import record_command

PAGE = "report.html"


def report(folders: Sequence[Path], *, out: Path, as_json: bool) -> None:
    """Writes the page of the results in `folders` to `out`."""
    check_output(out, (".html",), "the page is written as")
    with Terminal(as_json=as_json) as terminal:
        documents, left_out = read_results(folders)
        for reason in left_out:
            terminal.warn(f"left out: {reason}")
        with measuring(terminal.progress) as progress:
            write_page(documents, out, command=this_command(), notes=left_out, progress=progress)
        results = [
            {
                "name": document.name,
                "kind": document.kind,
                "folder": document.folder,
                "rows": len(document.accuracies.rows) if document.accuracies else 0,
                "notes": document.notes,
            }
            for document in documents
        ]
        terminal.finish(
            {"results": results, "out": str(out), "bytes": out.stat().st_size, "warnings": terminal.warnings},
            *(f"{document.name}: {document.kind}, {document.folder}" for document in documents),
            f"page: [cyan]{out}[/] ({out.stat().st_size / 1e6:.1f} MB)",
        )


def this_command() -> str:
    """Returns the command that is running, as one types it."""
    return shlex.join(["ghnq", *sys.argv[1:]])


def write_folder_page(folder: Path, terminal: Terminal) -> Path:
    """Records the command that is running in its result folder, writes the folder's page, and returns the page."""
    record_command(folder, sys.argv)
    documents, _ = read_results([folder])
    with measuring(terminal.progress, "architectures for the page") as progress:
        write_page(documents, folder / PAGE, command=this_command(), progress=progress)
    return folder / PAGE
