"""The files of a directory of images or tables, and which split and class each belongs to.

The split is what the top-level folder says, and nothing else: a class may be called `test tube`, a file `train_1.png`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from ghnq.errors import DataError

TRAIN, TEST = "train", "test"
_WORDS = {
    TRAIN: ("train", "training"),
    TEST: ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@dataclass(frozen=True)
class FolderFiles:
    """Files by split.

    Attributes:
        images: Paths of images and their class, by split; empty for a directory of tables.
        tables: Paths of parquet files, by split.
        notes: What is to be told about the layout.
    """

    images: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    tables: dict[str, list[Path]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def list_files(directory: Path) -> list[PurePosixPath]:
    """Returns all files below a directory, relative to it and sorted; links are followed, hidden names are left out.

    Raises:
        DataError: A folder cannot be read.
    """
    try:
        found = [PurePosixPath(path) for path in _walk(str(directory), "", frozenset())]
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed: {error}") from error
    return sorted(found, key=str)


def find_files(directory: Path) -> FolderFiles:
    """Finds images in class folders, or parquet files, and the split of each.

    Raises:
        DataError: There are none, or their places do not say which split or class they belong to.
    """
    files = list_files(directory)
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    images = [file for file in files if file.suffix.lower() in readable]
    tables = [file for file in files if file.suffix.lower() == ".parquet"]
    if tables and any(len(file.parts) > 1 for file in images):
        raise DataError(
            f"{directory}: has parquet files ({tables[0]}, ...) and folders of images ({images[0]}, ...); move one of "
            "the two to another directory."
        )
    if tables:
        return _by_split_of_tables(directory, tables)
    if not images:
        raise DataError(
            f"Data set '{directory}' cannot be loaded: it has no images and no parquet files. The directory must hold "
            "parquet files or image folders with the splits train and test."
        )
    return _by_split_and_class(directory, images)


def split_named(name: str) -> str | None:
    """Returns `train`, `test` or `validation` where the whole name means that, or None."""
    return _SPLIT_OF.get(name.casefold())


def _walk(folder: str, relative: str, parents: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in parents:  # a link to a folder above
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{relative}{entry.name}/", parents | {real})
            elif entry.is_file():
                yield relative + entry.name


def _by_split_and_class(directory: Path, images: list[PurePosixPath]) -> FolderFiles:
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in images:
        groups[file.parts[0] if len(file.parts) > 1 else ""].append(file)
    named = {folder: split for folder in groups if (split := split_named(folder))}
    folders = [folder for folder in groups if folder]
    if len(folders) == 1 and not named and all(len(file.parts) > 2 for file in groups[folders[0]]):
        return find_files(directory / folders[0])  # a directory that only holds the directory of the data set
    has_splits = any(
        len(file.parts) > 2 for folder, split in named.items() if split == TRAIN for file in groups[folder]
    )
    if not has_splits and (len(named) == len(folders) or not folders):
        raise DataError(
            f"{directory}: needs a folder 'train' of class folders; it has "
            f"{sorted(folders) or 'only files'}. Put images at train/CLASS/FILE and test/CLASS/FILE, or "
            "at CLASS/FILE with --holdout 0.2."
        )
    notes = []
    if has_splits:
        _check_unique(directory, named)
        by_split = {split: groups[folder] for folder, split in named.items()}
        others = sorted(folder for folder in folders if folder not in named)
        if others:
            notes.append(f"folders beside the splits are not read: {', '.join(others)}")
        depth = 1
    else:
        by_split = {TRAIN: [file for folder in folders for file in groups[folder]]}
        depth = 0
    chosen = {split: sorted(by_split[split], key=str) for split in _used(by_split)}
    stray = len(groups.get("", [])) + sum(len(file.parts) < depth + 2 for part in chosen.values() for file in part)
    if stray:
        notes.append(f"{stray} images in no class folder are left out")
    chosen = {split: [file for file in part if len(file.parts) >= depth + 2] for split, part in chosen.items()}
    class_at = _class_position(directory, chosen, depth)
    found = {split: [(directory / file, file.parts[class_at]) for file in part] for split, part in chosen.items()}
    return FolderFiles(images=found, notes=tuple(notes))


def _class_position(directory: Path, chosen: dict[str, list[PurePosixPath]], depth: int) -> int:
    """Returns which part of a path names the class: the folder that holds the file, or the first below the split."""
    files = [file for part in chosen.values() for file in part]
    lengths = {len(file.parts) for file in files}
    if lengths == {depth + 2}:
        return depth
    above: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for file in files:
        above[file.parts[-2]].add(file.parts[depth:-2])
    if len(lengths) > 1 or any(len(each) > 1 for each in above.values()):
        example = next(file for file in files if len(file.parts) > depth + 2)
        raise DataError(
            f"{directory}: is the class of {example} '{example.parts[depth]}' or '{example.parts[-2]}'? Images in "
            "folders of different depth, or in folders of one name in different places, do not say: put them at "
            f"{'SPLIT/' if depth else ''}CLASS/FILE."
        )
    return -2


def _by_split_of_tables(directory: Path, tables: list[PurePosixPath]) -> FolderFiles:
    splits: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in tables:
        splits[_split_of_table(directory, file) or ""].append(file)
    without = splits.pop("", [])
    notes: tuple[str, ...] = ()
    if without and splits:
        notes = (f"{len(without)} parquet files whose names have no split are not read, such as {without[0]}",)
    elif without:
        splits[TRAIN] = without
    return FolderFiles(
        tables={split: [directory / file for file in splits[split]] for split in _used(splits)}, notes=notes
    )


def _split_of_table(directory: Path, file: PurePosixPath) -> str | None:
    """A folder that is called as a split (the topmost), else a word in the name of the file."""
    for folder in file.parts[:-1]:
        if split := split_named(folder):
            return split
    found = {split for word in re.split(r"[-._ \d]+", file.stem) if (split := split_named(word))}
    if len(found) > 1:
        raise DataError(f"{directory}: the name of {file} has words of several splits, {sorted(found)}; keep one.")
    return next(iter(found), None)


def _used(splits: Iterable[str]) -> list[str]:
    """The training split and one to test on: `test`, or `validation` where there is none."""
    available = set(splits)
    test = [split for split in (TEST, "validation") if split in available][:1]
    return [TRAIN] * (TRAIN in available) + test


def _check_unique(directory: Path, named: dict[str, str]) -> None:
    for split in set(named.values()):
        folders = sorted(folder for folder, other in named.items() if other == split)
        if len(folders) > 1:
            raise DataError(f"{directory}: the folders {folders} all mean the split '{split}'; keep one of them.")
