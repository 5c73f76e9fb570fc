"""Files that are either whole or absent: written under a temporary name beside their place, then renamed into it."""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ghnq.errors import GhnqError, WriteError

# Ours, and those that safetensors writes in turn beside the file it was given.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..*)?|\.tmp[A-Za-z0-9]{6}")


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, previous: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success the file written there takes the name `path`.

    previous: a name in the same folder that the file at `path`, if any, takes instead of being replaced.

    The folder is made if it is missing. The temporary name keeps the suffix of `path`: writers choose a format by it.
    The file is flushed to the disk before the rename, so a crash leaves the old file or the new one, never a half.
    On any exception, interrupts included, the temporary file is removed and `path` is as it was.

    Raises GhnqError where the folder cannot be made, WriteError where the file cannot be written, FileNotFoundError if
    the block wrote nothing.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GhnqError(f"'{target.parent}' cannot be made ({error.strerror}); choose another place") from error
    # Hidden and random: listings skip it, and two processes that write the same target do not meet.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    with _writing(target):
        mode = _usual_mode(temporary)
    try:
        with _writing(target):
            yield temporary
        # Outside: a block that forgot to write is a fault of ours, not of the disk.
        # Some writers (safetensors) make files that nobody else may read.
        temporary.chmod(mode)
        with _writing(target):
            _sync(temporary)
            if previous is not None and target.exists():
                os.replace(target, previous)
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns what the system, or safetensors in its own words, says of a failed write into a WriteError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"'{target}' cannot be written ({reason}); make room there, or choose another place"
        ) from error


def lock(descriptor: int) -> bool:
    """Takes the lock of an open file for this process, until it closes it or ends; False where another has it."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Removes temporary files that killed writers left in a folder; nobody may be writing there."""
    for leftover in folder.glob(".*tmp*"):
        if _TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def _usual_mode(path: Path) -> int:
    """Returns the permissions that a new file at `path` gets from the user's umask; leaves nothing there.

    Asking for the umask itself would change it for a moment, for all threads.
    """
    path.touch(exist_ok=False)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    finally:
        path.unlink()


def _sync(path: Path) -> None:
    """Asks the operating system to put a file, or the names in a folder, on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders; its rename is durable on its own terms.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
