"""The images that a file or a checkpoint was made with: found again by name, read the same way, compared by hash."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from ghnq.data.images import ImageDataset
from ghnq.data.loading import EMBEDDED, load
from ghnq.data.read_options import ReadOptions, current, reading
from ghnq.errors import DataError, GhnqWarning
from ghnq.recorded_names import data_name


@dataclass(frozen=True)
class RecordedImages:
    """What a file says about the images that it was made with.

    Attributes:
        owner: The file, for messages.
        name: Of the data set; None where that is not known.
        sha256: `ImageDataset.content_hash`; None where that is not known.
        options: How they were read.
    """

    owner: str
    name: str | None
    sha256: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def load(self, data: str | None = None) -> ImageDataset:
        """Loads these images, or those of another data set.

        Images of the recorded name are read as they were then, except for options that are given now.

        Args:
            data: A data set, as given to `ghnq.data.load`; None takes the recorded name.

        Raises:
            DataError: The images cannot be loaded, or no name is given and none is recorded.
        """
        if data is None:
            return self._again(self._findable_name())
        same = self.name is not None and data_name(data) == data_name(self.name)
        return self._again(data) if same else load(data)

    def difference(self, dataset: ImageDataset) -> str:
        """Returns how a data set differs from these images, as half a sentence; empty where it does not."""
        if self.sha256 is None or self.sha256 == dataset.content_hash:
            return ""
        then, now = str(self.options), str(dataset.read_options)
        read = f"read with {then or 'no option'} then, with {now or 'no option'} now; " if then != now else ""
        return f"{read}the SHA-256 of their content differs"

    def warn_about_other(self, dataset: ImageDataset) -> None:
        """Warns where a data set has other images than these."""
        if difference := self.difference(dataset):
            warnings.warn(
                f"{self.owner} was made with other images ('{self.name or 'unknown'}') than those of "
                f"'{dataset.name}': {difference}",
                GhnqWarning,
                stacklevel=3,
            )

    def _again(self, name: str) -> ImageDataset:
        given = current()
        options = given.or_else(self.options)
        if options == given:
            return load(name)
        try:
            with reading(options):
                return load(name)
        except DataError as error:
            raise DataError(f"{error} (read as for {self.owner}: {options})") from error

    def _findable_name(self) -> str:
        """Returns the recorded name, if it is one that only these images can have: nothing else is looked for."""
        name = self.name
        if name is None:
            raise DataError(f"{self.owner} does not say which images it is for; name a data set (--data)")
        if name not in EMBEDDED and "/" not in name and not Path(name).is_dir():
            raise DataError(
                f"{self.owner} was made with '{name}', and there is no such folder here; give the images with --data"
            )
        return name
