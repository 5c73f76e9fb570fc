"""What may be said about how images are read: a hold-out, a size, the column of labels, unreadable files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ghnq.errors import DataError

MIN_SIZE, MAX_SIZE = 4, 512


@dataclass(frozen=True)
class ReadOptions:
    """How a data set is read.

    Attributes:
        holdout: The part of the images of each class, between 0 and 1, that becomes the test split where there is none.
        image_size: Height and width in pixels: the shorter side is resized to it, then the centre is cropped.
        label_column: The column of labels in a table; None looks for one.
        skip_unreadable: Whether images that cannot be read are left out and counted.

    Raises:
        DataError: A value is out of range.
    """

    holdout: float | None = None
    image_size: int | None = None
    label_column: str | None = None
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise DataError(
                f"A hold-out of {self.holdout} is not possible: give the part of the images that becomes the test "
                "split, between 0 and 1, such as 0.2."
            )
        if self.image_size is not None and not MIN_SIZE <= self.image_size <= MAX_SIZE:
            raise DataError(
                f"Image size {self.image_size} is out of range: choose between {MIN_SIZE} and {MAX_SIZE} pixels."
            )

    def words(self) -> list[str]:
        """Returns the options as they are written on a command line; nothing for those that are not given."""
        words = []
        for name, value in (
            ("--holdout", self.holdout), ("--image-size", self.image_size), ("--label-column", self.label_column)
        ):  # fmt: skip
            words += [] if value is None else [name, f"{value:g}" if isinstance(value, float) else str(value)]
        return words + (["--skip-unreadable"] if self.skip_unreadable else [])


_DEFAULT = ReadOptions()
_CURRENT: ContextVar[ReadOptions] = ContextVar("read_options", default=_DEFAULT)


def current() -> ReadOptions:
    """Returns the options that hold where nothing else is said."""
    return _CURRENT.get()


@contextmanager
def reading(options: ReadOptions) -> Iterator[None]:
    """Makes `options` hold for every data set that is loaded inside the `with` block."""
    token = _CURRENT.set(options)
    try:
        yield
    finally:
        _CURRENT.reset(token)
