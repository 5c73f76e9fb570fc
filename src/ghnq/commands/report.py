"""`ghnq report`: result folders as one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ghnq.commands.options import check_output
from ghnq.commands.progress_display import measuring
from ghnq.commands.terminal import Terminal
from ghnq.files import one_writer
from ghnq.recorded_names import command_text, path_name
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
            notes = [_without_folders(reason, folders) for reason in left_out]
            write_page(documents, out, command=this_command(), notes=notes, progress=progress)
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


def _without_folders(text: str, folders: Sequence[Path]) -> str:
    """Returns a sentence for the page, in which the folders have the names that pages show."""
    for folder in sorted(folders, key=lambda each: len(str(each)), reverse=True):
        text = text.replace(str(folder), path_name(folder))
    return text


def this_command() -> str:
    """Returns the command that is running, as one types it, for pages: without folders outside of the present one."""
    return command_text(["ghnq", *sys.argv[1:]])


def kept_document(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a command's document as its file has it: without what repeats paths as they were typed."""
    return {key: value for key, value in document.items() if key not in ("out", "warnings")}


def write_folder_page(folder: Path, terminal: Terminal) -> Path:
    """Records the command that is running in its result folder, writes the folder's page, and returns the page."""
    with one_writer(folder):
        record_command(folder, sys.argv)
        documents, _ = read_results([folder])
        with measuring(terminal.progress, "architectures for the page") as progress:
            write_page(documents, folder / PAGE, command=this_command(), progress=progress)
    return folder / PAGE
