"""Atomic file writes: a temporary file in the same folder is renamed to the target once it is complete."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ghnq.errors import GhnqError, WriteError

# Ours, and the temporary files of safetensors, which it creates beside its target.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..*)?|\.tmp[A-Za-z0-9]{6}")

_WRITER = ".writer"
"""Name of the file by which processes that write into one folder know of each other."""

MAX_NAME_BYTES = 255
"""Longest file name of the usual file systems."""

_ADVICE = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EINVAL: "name a file",
    errno.ELOOP: "name another file",
}


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, previous: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success the file written there is renamed to `path`.

    The folder is created if it is missing; through a symbolic link, its target is written. The temporary name keeps the
    suffix of `path`, by which writers choose a format. The file is flushed to disk before the rename, so a crash leaves
    the old or the new file, never a partial one. On any exception, interrupts included, the temporary file is removed
    and `path` is unchanged.

    Args:
        path: the file to write.
        previous: a name in the same folder to which an existing file at `path` is renamed first.

    Raises:
        GhnqError: the folder cannot be created.
        WriteError: the file cannot be written.
        FileNotFoundError: the block wrote nothing.
    """
    target = Path(path)
    with _writing(target):
        target = _link_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GhnqError(f"'{target.parent}' cannot be created ({error.strerror}); choose another folder") from error
    # Hidden from listings, and random, so that two processes can write the same target.
    temporary = target.with_name(_temporary_name(target))
    with _writing(target):
        mode = _usual_mode(temporary)
    try:
        with _writing(target):
            yield temporary
        # Outside of _writing: a block that wrote nothing is a programming error, not an error of the disk.
        # Some writers (safetensors) create files that only the owner may read.
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
    """Writes `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], document: object) -> None:
    """Writes a JSON document to `path`, atomically."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _link_target(path: Path) -> Path:
    """Returns the file that is written for `path`: where it is a link, what it points to.

    Raises:
        OSError: The name is too long, links form a circle, or the file is a device, which a rename would replace.
    """
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):  # the latter is told when the folder is created
        kind = stat.S_IFREG
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError(errno.EINVAL, "not a regular file")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Raises a failed write, reported by the system or by safetensors, as WriteError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        advice = _ADVICE.get(getattr(error, "errno", None) or 0, "free space there, or choose another folder")
        raise WriteError(f"'{target}' cannot be written ({reason}); {advice}") from error


def cache_root() -> Path | None:
    """Returns the folder of the user's caches, `$XDG_CACHE_HOME` or `~/.cache`; None for a user without a home."""
    if stated := os.environ.get("XDG_CACHE_HOME"):
        return Path(stated)
    try:
        return Path.home() / ".cache"
    except (RuntimeError, KeyError):  # neither HOME nor an entry in the list of users
        return None


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process writes into a folder inside of such a block, and keeps others waiting meanwhile.

    Files that belong together are then of one process.

    Raises:
        GhnqError, WriteError: The folder cannot be created, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GhnqError(f"'{folder}' cannot be created ({error.strerror}); choose another folder") from error
    if sys.platform == "win32":
        yield
        return
    descriptor = _wait_for_lock(folder / _WRITER)
    try:
        yield
    finally:
        (folder / _WRITER).unlink(missing_ok=True)
        os.close(descriptor)  # releases the lock


def _wait_for_lock(path: Path) -> int:
    """Returns the descriptor of a locked file; the last one that had it may have removed it meanwhile."""
    import fcntl  # not on Windows

    while True:
        with _writing(path.parent):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def lock(descriptor: int) -> bool:
    """Locks an open file for this process until it is closed; returns False if another process holds the lock."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Removes temporary files that killed processes left in a folder; no process may be writing there."""
    for leftover in folder.glob(".*tmp*"):
        if _TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def _temporary_name(target: Path) -> str:
    """Returns a random name that keeps the suffix, and is not longer than names may be where the target's is not."""
    end = f".{secrets.token_hex(4)}.tmp{target.suffix}"
    left = max(MAX_NAME_BYTES - len(os.fsencode(end)) - 1, 0)
    stem = os.fsencode(target.stem)[:left].decode(errors="ignore") or "x"
    name = f".{stem}{end}"
    return name if len(os.fsencode(name)) <= MAX_NAME_BYTES else f".x.{secrets.token_hex(4)}.tmp"


def _usual_mode(path: Path) -> int:
    """Returns the permissions that a new file at `path` gets from the user's umask; removes the file again.

    Reading the umask itself would change it for a moment, for all threads.
    """
    path.touch(exist_ok=False)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    finally:
        path.unlink()


def _sync(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
