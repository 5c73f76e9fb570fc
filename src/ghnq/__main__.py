"""`ghnq` and `python -m ghnq`: a process that ends with an exit code.

0 done, 1 a fault (of ghnq or of the user's model file, with its traceback), 2 a mistake in the input, 130 interrupted
by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from types import FrameType

from ghnq.errors import GhnqError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Terminated(BaseException):
    """SIGTERM arrived; unwinding lets every temporary file be removed."""


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def main() -> int:
    """Runs the command line of this process and returns its exit code; the entry point of `ghnq`."""
    signal.signal(signal.SIGTERM, _terminate)
    _prepare_streams()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has left; without this, Python complains once more when it closes the stream.
        _discard_output()
        return 1
    except OSError as error:  # of the flush: the disk that the output is redirected to is full
        _discard_output()
        print(f"Error: the output cannot be written ({error.strerror}); free space there", file=sys.stderr)
        return 2
    return code


def _prepare_streams() -> None:
    """Opens standard streams that are closed, and lets text through that their encoding does not have."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Else the next file that is opened gets this descriptor, and whatever is printed goes into it.
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run() -> int:
    try:
        # Here, not above, so that a file of the user's in place of a library is named.
        from ghnq.cli import app

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
    except BrokenPipeError:
        raise
    except OSError as error:
        if _output_fails(error):
            raise  # of a print: as for the flush at the end
        if error.errno == errno.ENAMETOOLONG:
            print(f"Error: {error.strerror}: '{error.filename}'; choose a shorter name", file=sys.stderr)
            return 2
        if error.errno in _FULL and error.filename is not None:
            print(f"Error: '{error.filename}' cannot be written ({error.strerror}); free space there", file=sys.stderr)
            return 2
        return _fault(error)
    except Exception as fault:  # noqa: BLE001 - it ends here as Python would end it, only with fewer frames
        return _fault(fault)
    return 0


def _output_fails(error: OSError) -> bool:
    """Returns whether an error may be that of stdout, because nothing can be written to it now."""
    try:
        if error.errno in _FULL and error.filename is None:
            print()  # what could not be written may not be held any more
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _fault(fault: Exception) -> int:
    from ghnq.shadowing import shadowed_library

    if isinstance(fault, AttributeError | ImportError) and (sentence := shadowed_library()):
        print(f"Error: {sentence}", file=sys.stderr)
        return 2
    from ghnq.commands.terminal import print_fault

    print_fault(fault)
    return 1


if __name__ == "__main__":
    sys.exit(main())
