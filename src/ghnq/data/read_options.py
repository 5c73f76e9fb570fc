"""What may be said about how images are read: a hold-out, a size, the column of labels, unreadable files."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from numbers import Integral, Real

from ghnq.errors import DataError

MIN_SIZE, MAX_SIZE = 4, 512

Option = float | int | str | bool
"""The value of an option in a file."""


def _check_number(name: str, value: object, kind: type, noun: str) -> None:
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise DataError(f"{name} is {value!r}; it must be {noun}.")


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
        _check_number("image_size", self.image_size, Integral, "an integer")
        _check_number("holdout", self.holdout, Real, "a number")
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise DataError(
                f"A hold-out of {self.holdout} is not possible: give the part of the images that becomes the test "
                "split, between 0 and 1, such as 0.2."
            )
        if self.image_size is not None and not MIN_SIZE <= self.image_size <= MAX_SIZE:
            raise DataError(
                f"Image size {self.image_size} is out of range: choose between {MIN_SIZE} and {MAX_SIZE} pixels."
            )

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> ReadOptions:
        """Reads what `record` returned.

        Raises:
            DataError: An option is unknown, or its value is not allowed.
        """
        for name, value in record.items():
            kinds = _KINDS.get(name)
            if kinds is None or type(value) not in kinds:
                raise DataError(f"{name} = {value!r} says nothing about how images are read.")
        return cls(**record)  # type: ignore[arg-type]

    def record(self) -> dict[str, Option]:
        """Returns the options that differ from the default, for files: a file of images read as they are has none."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, False)}

    def or_else(self, other: ReadOptions) -> ReadOptions:
        """Returns these options, completed by those of `other` where they say nothing."""
        return ReadOptions(**{**other.record(), **self.record()})  # type: ignore[arg-type]

    def words(self) -> list[str]:
        """Returns the options as on the command line."""
        words = []
        for name, value in self.record().items():
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words

    def __str__(self) -> str:
        """The options as on the command line; empty for none."""
        return shlex.join(self.words())


_KINDS: dict[str, tuple[type, ...]] = {
    "holdout": (float, int),
    "image_size": (int,),
    "label_column": (str,),
    "skip_unreadable": (bool,),
}
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
