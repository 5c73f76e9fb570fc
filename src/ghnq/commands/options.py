"""Parsing and checking of the values of options; a wrong value ends in an error that says what is allowed."""

from __future__ import annotations

import os
from pathlib import Path

from ghnq.errors import GhnqError, GraphError, SchemeError, nearest

PROTOCOLS = ("deploy", "paper")


def parse_shape(text: str) -> tuple[int, int, int]:
    """Parses channels, height and width, as in `3,32,32` or `3x32x32`.

    Raises:
        GraphError: The text is not three positive numbers.
    """
    sizes = text.replace("x", ",").split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise GraphError(
            f"--input-shape '{text}' is not a shape. Give channels, height and width of one image "
            "as three positive numbers, for example 3,32,32."
        )
    channels, height, width = (int(size) for size in sizes)
    return channels, height, width


def parse_list(text: str, option: str) -> list[str]:
    """Parses a list such as `test,deep`.

    Raises:
        GhnqError: An item is empty or repeated.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise GhnqError(f"{option} '{text}' has an empty item. Separate the items by single commas.")
    for item in items:
        if items.count(item) > 1:
            raise GhnqError(f"{option} '{text}' names '{item}' more than once.")
    return items


def parse_steps(text: str | None) -> tuple[str, ...]:
    """Parses post-training steps such as `equalize,squant`, and returns them in the order of the pipeline.

    Raises:
        GhnqError: A step does not exist, is empty or repeated.
    """
    from ghnq.quant import QuantScheme

    return () if text is None else QuantScheme.parse("float32", steps=parse_list(text, "--steps")).steps


def check_protocol(protocol: str | None) -> None:
    """Checks that a protocol is None or exists.

    Raises:
        SchemeError: It does not.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise SchemeError(
            f"There is no protocol '{protocol}'{nearest(protocol, PROTOCOLS)}. Protocols are {', '.join(PROTOCOLS)}."
        )


def check_output(path: Path, suffixes: tuple[str, ...], purpose: str) -> None:
    """Checks, before any work is done, that a file can be written.

    Args:
        suffixes: The file must end in one of them.
        purpose: What is written as such a file; part of the message.

    Raises:
        GhnqError: The file has another suffix or cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        raise GhnqError(f"'{path}' ends in '{path.suffix}'; {purpose} {' or '.join(suffixes)}.")
    if path.is_dir():
        raise GhnqError(f"'{path}' is a folder; name the file to write.")
    check_folder(path.parent)


def check_output_or_folder(path: Path, suffixes: tuple[str, ...], purpose: str) -> None:
    """Checks, before any work is done, that a file with one of the suffixes, or into a folder, can be written.

    A path without a suffix, and a folder that exists, is a folder. The arguments are those of `check_output`.

    Raises:
        GhnqError: The file has another suffix, or nothing can be written there.
    """
    if path.is_dir() or not path.suffix:
        check_folder(path)
    else:
        check_output(path, suffixes, f"name a folder, or a file: {purpose}")


def check_folder(folder: Path) -> None:
    """Checks that files can be written into a folder, which may not exist yet.

    Raises:
        GhnqError: They cannot.
    """
    for existing in (folder, *folder.parents):
        if existing.is_dir():
            if not os.access(existing, os.W_OK | os.X_OK):
                raise GhnqError(f"'{existing}' cannot be written, so nothing can be put into '{folder}'.")
            return
        if existing.exists():
            raise GhnqError(f"'{existing}' is a file, so nothing can be written into '{folder}'.")
