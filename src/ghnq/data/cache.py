"""Cache of decoded images on disk, so that a directory is decoded only once.

One file per directory under `$XDG_CACHE_HOME/ghnq/images` (`~/.cache` by default), uint8 in safetensors. It is valid
while names, sizes and modification times of all files in the directory are unchanged, and rewritten otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ghnq.data.folder_files import list_files
from ghnq.data.images import ImageDataset, Images
from ghnq.data.read_options import ReadOptions
from ghnq.errors import GhnqError
from ghnq.files import atomic_path, cache_root

_LOG = logging.getLogger(__name__)
_LAYOUT = "2"  # increment when decoding changes


def directory_key(directory: Path, options: ReadOptions) -> str:
    """Returns a hash of the options, and of names, sizes and modification times of all files below `directory`.

    Raises:
        DataError: The directory cannot be listed.
    """
    digest = hashlib.sha256((_LAYOUT + repr(options)).encode())
    for file in list_files(directory):
        status = (directory / file).stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def cache_file(directory: Path, options: ReadOptions) -> Path | None:
    """Returns the cache file for the images of `directory` as they are decoded with `options`; None without a home."""
    root = cache_root()
    if root is None:
        return None
    name = hashlib.sha256(f"{directory.resolve()}\0{options!r}".encode(errors="surrogateescape")).hexdigest()[:24]
    return root / "ghnq" / "images" / f"{name}.safetensors"


def read_cache(directory: Path, key: str, options: ReadOptions) -> tuple[ImageDataset, list[str]] | None:
    """Returns the cached data set and its notes, or None if the cache is missing, outdated or damaged."""
    file = cache_file(directory, options)
    if file is None:
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("key") != key:
                return None
            splits = {
                split: Images(stored.get_tensor(f"{split}.pixels"), stored.get_tensor(f"{split}.labels"))
                for split in ("train", "test")
            }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SafetensorError, OSError) as error:
        _LOG.warning("The decoded images in %s cannot be read (%s); they are decoded again.", file, error)
        return None
    class_names = tuple(json.loads(about["class_names"]))
    dataset = ImageDataset.build(str(directory), **splits, class_names=class_names, flip=about["flip"] == "true")
    return dataset, [str(note) for note in json.loads(about["notes"])]


def write_cache(directory: Path, key: str, options: ReadOptions, dataset: ImageDataset, notes: list[str]) -> None:
    """Writes a decoded data set to the cache; a failure is logged as a warning and is not an error."""
    file = cache_file(directory, options)
    if file is None:
        _LOG.warning("Decoded images are not cached: this user has no home; XDG_CACHE_HOME can name a folder.")
        return
    tensors = {
        f"{split}.{part}": getattr(images, part)
        for split, images in (("train", dataset.train), ("test", dataset.test))
        for part in ("pixels", "labels")
    }
    about = {
        "key": key,
        "class_names": json.dumps(dataset.class_names),
        "flip": json.dumps(dataset.flip),
        "notes": json.dumps(notes),
    }
    try:
        with atomic_path(file) as temporary:
            save_file(tensors, temporary, metadata=about)
    except (SafetensorError, OSError, GhnqError) as error:
        _LOG.warning(
            "Decoded images cannot be cached in %s (%s); the next start decodes them again.", file.parent, error
        )
