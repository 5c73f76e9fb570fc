"""`ghnq` and `python -m ghnq`: a process that ends with an exit code.

0 done, 1 a fault (of ghnq or of the user's model file, with its traceback), 2 a mistake in the input, 130 interrupted
by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from ghnq.cli import app
from ghnq.errors import GhnqError


class Terminated(BaseException):
    """SIGTERM arrived; unwinding lets every temporary file be removed."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def main() -> int:
    """Runs the command line of this process and returns its exit code; the entry point of `ghnq`."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has left; without this, Python complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run() -> int:
    try:
        app(prog_name="ghnq")
    except SystemExit as stop:  # How typer ends, also when all is well.
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except GhnqError as error:
        from ghnq.commands.terminal import print_error

        print_error(error)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Terminated:
        return 128 + signal.SIGTERM
    except Exception as fault:  # noqa: BLE001 - it ends here as Python would end it, only with fewer frames
        from ghnq.commands.terminal import print_fault

        print_fault(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
