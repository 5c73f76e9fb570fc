"""Names under which data, models and checkpoints are written into files: without folders of the user's machine.

What resumes or compares uses the hash of the content beside the name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MODEL_FILE = re.compile(r"(?P<file>.+?\.(py(?=:)|json(?=$)))(?P<rest>:.+)?")
_PARTS_OF_RUNS = ("last", "best")


def data_name(text: str | os.PathLike[str]) -> str:
    """Returns the name of a data set: a hub id or `digits` as it is, of a directory its own name.

    >>> data_name("../some/photos/"), data_name("uoft-cs/cifar10")
    ('photos', 'uoft-cs/cifar10')
    """
    name = os.fspath(text)
    return _last_part(name) if _is_path(name) else name


def checkpoint_name(text: str | os.PathLike[str]) -> str:
    """Returns the name of a checkpoint: a shipped name or a hub id as it is, of a directory its own name.

    The checkpoints of a run have the name of the run before them.

    >>> checkpoint_name("/some/runs/mine/best"), checkpoint_name("cifar10")
    ('mine/best', 'cifar10')
    """
    name = os.fspath(text)
    if not _is_path(name):
        return name
    last = _last_part(name)
    if last not in _PARTS_OF_RUNS:
        return last
    return "/".join(filter(None, (_last_part(os.path.join(os.path.abspath(os.path.expanduser(name)), "..")), last)))


def file_name(text: str | os.PathLike[str]) -> str:
    """Returns the own name of a file or folder.

    >>> file_name("../some/weights.safetensors")
    'weights.safetensors'
    """
    return _last_part(os.fspath(text))


def path_name(path: str | os.PathLike[str]) -> str:
    """Returns a path inside of the working directory as it is; of any other the own name.

    >>> path_name("runs/mine"), path_name("/some/runs/mine"), path_name("../runs/mine")
    ('runs/mine', 'mine', 'mine')
    """
    text = os.fspath(path)
    outside = text.startswith(("/", "~")) or ".." in text.split("/")
    return _last_part(text) if outside else text


def command_text(words: Sequence[str]) -> str:
    """Returns a command as one types it, but paths to the outside of the working directory by their own names.

    >>> command_text(["ghnq", "score", "/some/net.py:Net", "--data", "../photos", "--schemes", "w4a8,/some/own.yaml"])
    'ghnq score net.py:Net --data photos --schemes w4a8,own.yaml'
    """
    return shlex.join([words[0], *map(_shown_word, words[1:])])


def _shown_word(word: str) -> str:
    if os.path.lexists(word):  # whatever characters it has
        return path_name(word)
    # KEY=VALUE, lists with commas, MODEL@WEIGHTS, FILE.py:NAME
    return "".join(part if part in "=,@" else _shown_part(part) for part in re.split("([=,@])", word))


def _shown_part(part: str) -> str:
    file, rest = _file_and_rest(part)
    return path_name(part) if file is None else f"{path_name(file)}{rest}"


def model_name(reference: str) -> str:
    """Returns the reference of a model without folders; all but `FILE.py:NAME` and `SPEC.json` is left as it is.

    >>> model_name("/some/models.py:Net"), model_name("../spec.json"), model_name("convnets/test/8")
    ('models.py:Net', 'spec.json', 'convnets/test/8')
    """
    file, rest = _file_and_rest(reference)
    return f"{file.name}{rest}" if file else reference


def model_names(references: Sequence[str]) -> list[str]:
    """Returns the names of several models; of files that have the same name, with as many folders as tell them apart.

    >>> model_names(["/all/a/net.py:Net", "/all/b/net.py:Net", "/all/a/other.py:Net"])
    ['a/net.py:Net', 'b/net.py:Net', 'other.py:Net']
    """
    names = [model_name(reference) for reference in references]
    return [
        _told_apart(reference, references) if names.count(name) > 1 else name
        for reference, name in zip(references, names, strict=True)
    ]


def _told_apart(reference: str, references: Sequence[str]) -> str:
    file, rest = _file_and_rest(reference)
    if file is None:
        return reference
    others = [other.parts for other, _ in map(_file_and_rest, references) if other is not None and other != file]
    parts = file.parts
    count = next((n for n in range(1, len(parts)) if all(parts[-n:] != other[-n:] for other in others)), len(parts))
    return "/".join(parts[-count:]) + rest


def _file_and_rest(reference: str) -> tuple[Path | None, str]:
    match = _MODEL_FILE.fullmatch(reference)
    return (Path(match["file"]), match["rest"] or "") if match else (None, reference)


def _is_path(name: str) -> bool:
    """Returns whether a name is that of a directory, there or not, and neither a single word nor a hub id."""
    return os.path.isdir(os.path.expanduser(name)) or ("/" in name and not _HUB_ID.fullmatch(name))


def _last_part(name: str) -> str:
    return os.path.basename(os.path.abspath(os.path.expanduser(name))) or name
