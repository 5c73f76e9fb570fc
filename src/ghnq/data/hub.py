"""Reads data sets from the hub with `datasets.load_dataset`; the hub is asked once whether it has the name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ghnq.data.assemble import assemble
from ghnq.data.images import ImageDataset
from ghnq.data.read_options import ReadOptions
from ghnq.data.tables import encoded_splits
from ghnq.errors import DataError
from ghnq.optional_imports import import_optional
from ghnq.shadowing import check_not_shadowed

if TYPE_CHECKING:
    import datasets

_TEST_SPLITS = ("test", "validation", "valid", "val")
_PATIENCE = 5.0  # seconds for the hub to answer


def read_from_hub(name: str, options: ReadOptions, hint: str = "") -> tuple[ImageDataset, list[str]]:
    """Reads the splits `train` and `test` (or `validation`), finds the columns, and decodes all images into memory.

    Args:
        name: A name on the hub.
        options: How it is read.
        hint: What else the name may have meant, for messages.

    Returns:
        The data set, and sentences about it.

    Raises:
        DataError: The data set cannot be loaded, lacks a split or a column, or its images are inconsistent.
        MissingExtraError: `datasets` is not installed.
    """
    loaded = _load(name, hint)
    test = next((split for split in _TEST_SPLITS if split in loaded), None)
    wanted = [split for split in ("train", test) if split is not None and split in loaded]
    if "train" not in wanted:
        raise DataError(f"{name}: needs the splits 'train' and 'test' (or 'validation'); it has {sorted(loaded)}.")
    splits, notes = encoded_splits(name, {split: [loaded[split]] for split in wanted}, options.label_column)
    dataset, more = assemble(name, splits, options)
    return dataset, notes + more


def _load(name: str, hint: str) -> dict[str, datasets.Dataset]:
    import_optional("datasets", f"there is no directory '{name}'{hint}, and to load it from the hub, ")
    import datasets
    import pyarrow as pa

    check_not_shadowed("datasets")
    reachable = _ask(name, hint)
    bars_were_on = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        with _offline(not reachable):
            loaded = datasets.load_dataset(name)
    # OSError covers the hub's HTTP and connection errors; ValueError a missing configuration or an unknown layout.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        raise DataError(_not_found(name, hint, str(cause or error))) from error
    finally:
        if bars_were_on:
            datasets.enable_progress_bars()
    return {str(split): part for split, part in loaded.items()}


def _ask(name: str, hint: str) -> bool:
    """Returns whether the hub answers; raises DataError where it answers that it has no such data set.

    `datasets` would ask many times, with pauses: half a minute for a mistyped directory.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=_PATIENCE)
    except errors.GatedRepoError:
        return True
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(_not_found(name, hint, "the hub has no data set of this name.")) from error
    except Exception:  # noqa: BLE001 - which one says "no connection" depends on huggingface_hub's HTTP library
        return False
    return True


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Makes `datasets` look in its cache only, where the hub does not answer."""
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        if wanted:
            datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _not_found(name: str, hint: str, reason: str) -> str:
    return (
        f"Data set '{name}' cannot be loaded{hint}: {reason} There is no such directory, and it cannot be loaded from "
        "the hub: check the name and the connection, or download it and pass its directory."
    )
