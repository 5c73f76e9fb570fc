"""Values of options, read from the words on the command line; each mistake is named with what is allowed."""

from __future__ import annotations

import os
from pathlib import Path

from ghnq.errors import GhnqError, GraphError, SchemeError, nearest

PROTOCOLS = ("deploy", "paper")


def parse_shape(text: str) -> tuple[int, int, int]:
    """Reads `3,32,32` (channels, height, width; `x` serves as comma); raises GraphError for anything else."""
    words = text.replace("x", ",").split(",")
    if len(words) != 3 or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise GraphError(
            f"--input-shape '{text}' is not a shape. Give channels, height and width of one image "
            "as three positive numbers, for example 3,32,32."
        )
    channels, height, width = (int(word) for word in words)
    return channels, height, width


def parse_words(text: str, option: str) -> list[str]:
    """Reads `test,deep` into its words in their order; raises GhnqError for empty and repeated words."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise GhnqError(f"{option} '{text}' has an empty word in it. Separate the words by single commas.")
    for word in words:
        if words.count(word) > 1:
            raise GhnqError(f"{option} '{text}' names '{word}' more than once.")
    return words


def parse_steps(text: str | None) -> tuple[str, ...]:
    """Reads `equalize,squant` into post-training steps in the order of the pipeline; raises GhnqError."""
    from ghnq.quant import QuantScheme

    return () if text is None else QuantScheme.parse("float32", steps=parse_words(text, "--steps")).steps


def check_protocol(protocol: str | None) -> None:
    """Raises SchemeError for a protocol other than `deploy` and `paper`; None is no protocol."""
    if protocol is not None and protocol not in PROTOCOLS:
        raise SchemeError(
            f"There is no protocol '{protocol}'{nearest(protocol, PROTOCOLS)}. Protocols are {', '.join(PROTOCOLS)}."
        )


def check_output(path: Path, suffixes: tuple[str, ...], why: str) -> None:
    """Checks, before any work is done, that `path` can be written and has one of `suffixes`.

    Raises GhnqError that says `why` the suffix matters, or what stands in the way.
    """
    if path.suffix.lower() not in suffixes:
        raise GhnqError(f"'{path}' ends in '{path.suffix}'; {why} {' or '.join(suffixes)}.")
    if path.is_dir():
        raise GhnqError(f"'{path}' is a folder; name the file to write.")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raises GhnqError where `folder` neither is a folder nor can become one."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise GhnqError(f"'{place}' cannot be written, so nothing can be put into '{folder}'.")
            return
        if place.exists():
            raise GhnqError(f"'{place}' is a file, so nothing can be written into '{folder}'.")
