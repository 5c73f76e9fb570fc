"""Where the words go: results to stdout, everything else to stderr, and with `--json` one document alone on stdout."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from ghnq.errors import GhnqWarning, GraphError

# Columns where the output is no terminal (a file, a log): tables keep their words whole.
FILE_WIDTH = 140


class Terminal:
    """The two streams of one command, as a context manager.

    results: console on stdout, for people; silent with `as_json`.
    progress: console on stderr, for progress bars and notes.
    warnings: texts of the warnings of ghnq inside the `with` block, each printed to stderr as it comes.
    Inside the `with` block of `as_json`, whatever prints to stdout (a user's model file, a library) lands on stderr.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout
        self.warnings: list[str] = []
        self._stack = ExitStack()
        # Bound to the stream of this moment, so the redirection below does not reach it.
        self.results = Console(file=sys.stdout, quiet=as_json, width=_width(sys.stdout))
        self.progress = Console(stderr=True)

    def __enter__(self) -> Self:
        if self.as_json:
            self._stack.enter_context(redirect_stdout(sys.stderr))
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", GhnqWarning)
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if isinstance(message, GhnqWarning):
                self.warn(str(message))
            else:
                show_others(message, category, *place, **more)

        warnings.showwarning = show
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def warn(self, text: str) -> None:
        """Prints a warning to stderr, once, and remembers it."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.print(Text("warning: ", style="yellow").append(text, style="default"), soft_wrap=True)

    def finish(self, document: object, *pictures: RenderableType) -> None:
        """Prints the result: `document` as JSON, or `pictures` (tables, lines) for people."""
        if self.as_json:
            # JSON knows no NaN; a result that holds one is a fault to be seen here, not in the reader's parser.
            print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), file=self._stdout, flush=True)
            return
        for picture in pictures:
            # Lines stay whole, so that a path can be copied; tables fit themselves to the width.
            self.results.print(picture, soft_wrap=isinstance(picture, str), highlight=False)


def print_error(error: Exception) -> None:
    """Prints what was wrong to stderr, in whole lines; of a traceback only the user's own lines."""
    console = Console(stderr=True)
    if isinstance(error, GraphError) and error.__cause__ is not None:
        frames = [frame for frame in traceback.extract_tb(error.__cause__.__traceback__) if _is_users(frame.filename)]
        if frames:
            print("In your code:\n" + "".join(traceback.format_list(frames)), end="", file=sys.stderr)
    console.print(Text("Error: ", style="bold red").append(str(error), style="default"), soft_wrap=True)


def print_fault(fault: Exception) -> None:
    """Prints the traceback of an exception that nobody foresaw, from the command on; the frames before tell nothing."""
    trace = fault.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent != Path(__file__).parent:
        trace = trace.tb_next
    traceback.print_exception(fault.with_traceback(trace or fault.__traceback__))


def _is_users(file: str) -> bool:
    """Whether a line of code lies neither in an installed package, nor in Python itself, nor here."""
    path = Path(file)
    here, python = Path(__file__).parents[1], Path(os.__file__).parent
    return (
        path.is_file()
        and not any(path.is_relative_to(place) for place in (here, python))
        and (not {"site-packages", "dist-packages"} & {*path.parts} and path.name != "ghnq")
    )


def _width(stream: TextIO) -> int | None:
    """None lets rich ask the terminal."""
    return None if stream.isatty() or "COLUMNS" in os.environ else FILE_WIDTH
