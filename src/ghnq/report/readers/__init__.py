"""Result folders -> documents. A new kind of result is a module with a `READER`, and its line in `READERS`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ghnq.errors import DataError
from ghnq.report.document import Document, unique_names
from ghnq.report.readers import (
    evaluation,
    finetune,
    mixed,
    profile,
    ranking,
    score,
    search,
    sensitivity,
    training,
)
from ghnq.report.readers.reader import Reader

READERS: tuple[Reader, ...] = tuple(
    module.READER for module in (evaluation, score, finetune, training, sensitivity, mixed, profile, ranking, search)
)


def read_results(folders: Sequence[Path]) -> tuple[list[Document], list[str]]:
    """Reads the results in folders, or in the folders in them; returns them with unique names, and what was left out.

    Raises:
        DataError: A folder does not exist, has no result, or one that is damaged or of another version.
    """
    documents: list[Document] = []
    left_out: list[str] = []
    for folder in dict.fromkeys(Path(each) for each in folders):
        if not folder.is_dir():
            what = "is a file; name the folder that it is in" if folder.exists() else "does not exist"
            raise DataError(f"'{folder}' {what}")
        found = [reader.read(folder) for reader in READERS if reader.recognises(folder)]
        if not found:
            found, skipped = _read_inside(folder)
            left_out += skipped
        documents += found
    return unique_names(documents), left_out


def _read_inside(folder: Path) -> tuple[list[Document], list[str]]:
    """Reads the results in the folders of a folder; what cannot be read there is left out with the reason."""
    found: list[Document] = []
    left_out: list[str] = []
    for inside in sorted(each for each in folder.iterdir() if each.is_dir()):
        for reader in READERS:
            if reader.recognises(inside):
                try:
                    found.append(reader.read(inside))
                except DataError as error:
                    left_out.append(str(error))
    if not found:
        raise DataError(_nothing(folder, left_out))
    return found, left_out


def _nothing(folder: Path, left_out: list[str]) -> str:
    if left_out:
        return f"'{folder}' has no result that can be read: {'; '.join(left_out)}"
    names = sorted(each.name for each in folder.iterdir())
    has = f"it has {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "it is empty"
    kinds = "; ".join(f"{reader.kind}: {reader.files}" for reader in READERS)
    return f"'{folder}' has no result of ghnq: {has}. Name a folder that --out of a command has written ({kinds})"
