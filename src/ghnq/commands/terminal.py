"""The output of commands: results to stdout, everything else to stderr; with `--json` one document on stdout only."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from ghnq.commands.narrow_table import fitted
from ghnq.errors import GhnqWarning, GraphError, WriteError

# Columns where the output is not a terminal (a file, a log), so that tables do not break words.
FILE_WIDTH = 140

_STDOUT, _STDERR = 1, 2  # file descriptors


class Terminal:
    """The two output streams of one command, as a context manager.

    With `as_json`, everything that is written to stdout inside the `with` block (by a user's model file, by a library,
    by a process that they start) is redirected to stderr, also what goes straight to the file descriptor.

    Attributes:
        as_json: Whether the result is printed as JSON.
        results: A console on stdout; silent with `as_json`.
        progress: A console on stderr, for progress bars and notes.
        warnings: The warnings of ghnq inside the `with` block; each is printed to stderr when it is issued.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = _separate(sys.stdout) if as_json else sys.stdout
        self.warnings: list[str] = []
        self._stack = ExitStack()
        # Bound to the present stream, which the redirection below does not change.
        self.results = Console(file=sys.stdout, quiet=as_json, width=_width(sys.stdout))
        self.progress = Console(stderr=True)

    def __enter__(self) -> Self:
        if self.as_json:
            self._stack.enter_context(redirect_stdout(sys.stderr))
            if self._stdout is not sys.__stdout__ and _has_descriptor(sys.__stdout__):
                self._stack.enter_context(_redirected_descriptor())
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", GhnqWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
            line: str | None = None,
        ) -> None:  # fmt: skip
            if isinstance(message, GhnqWarning):
                self.warn(str(message))
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def warn(self, text: str) -> None:
        """Prints a warning to stderr, once, and adds it to `warnings`."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.print(Text("warning: ", style="yellow").append(text, style="default"), soft_wrap=True)

    def finish(self, document: object, *parts: RenderableType) -> None:
        """Prints the result: `document` as JSON with `as_json`, else the parts (tables, lines)."""
        if self.as_json:
            # JSON has no NaN; a result with one is a bug, which is better found here than by the reader.
            plain = "utf" not in (self._stdout.encoding or "utf-8").lower()
            text = json.dumps(document, indent=2, ensure_ascii=plain, allow_nan=False)
            try:
                print(text, file=self._stdout, flush=True)
            except OSError as error:
                # What is left in the buffer would be written, and fail, once more when the stream is closed.
                if self._stdout is not sys.__stdout__ and isinstance(self._stdout, io.TextIOWrapper):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())
                if isinstance(error, BrokenPipeError):
                    raise
                raise WriteError(f"the output cannot be written ({error.strerror}); free space there") from error
            return
        for part in parts:
            for fitting in fitted(part, self.results):
                # Lines are not wrapped, so that a path can be copied; tables are fitted to the width.
                self.results.print(fitting, soft_wrap=isinstance(fitting, str), highlight=False)


def _separate(stream: TextIO) -> TextIO:
    """Returns a stream to where stdout leads now, which the redirection of its descriptor does not change."""
    if stream is not sys.__stdout__ or not _has_descriptor(stream):
        return stream
    stream.flush()
    return os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors)


def _has_descriptor(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == _STDOUT
    except (OSError, ValueError):
        return False


@contextmanager
def _redirected_descriptor() -> Iterator[None]:
    """Inside the block, what is written to file descriptor 1 goes to stderr."""
    saved = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
        os.dup2(saved, _STDOUT)
        os.close(saved)


def print_error(error: Exception) -> None:
    """Prints an error to stderr without wrapping lines; of a traceback only the lines of the user's own code."""
    console = Console(stderr=True)
    if isinstance(error, GraphError) and error.__cause__ is not None:
        frames = [each for each in traceback.extract_tb(error.__cause__.__traceback__) if _is_user_code(each.filename)]
        if frames:
            print("In your code:\n" + "".join(traceback.format_list(frames)), end="", file=sys.stderr)
    console.print(Text("Error: ", style="bold red").append(str(error), style="default"), soft_wrap=True)


def print_fault(fault: Exception) -> None:
    """Prints the traceback of an unexpected exception, without the frames before the command."""
    trace = fault.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent != Path(__file__).parent:
        trace = trace.tb_next
    traceback.print_exception(fault.with_traceback(trace or fault.__traceback__))


def _is_user_code(file: str) -> bool:
    """Returns whether a file belongs neither to an installed package, nor to Python, nor to ghnq."""
    path = Path(file)
    ghnq, python = Path(__file__).parents[1], Path(os.__file__).parent
    return (
        path.is_file()
        and not any(path.is_relative_to(folder) for folder in (ghnq, python))
        and (not {"site-packages", "dist-packages"} & {*path.parts} and path.name != "ghnq")
    )


def _width(stream: TextIO) -> int | None:
    """Returns the width of tables; None is that of the terminal."""
    return None if stream.isatty() or "COLUMNS" in os.environ else FILE_WIDTH
