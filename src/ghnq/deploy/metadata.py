"""The metadata of an exported file: how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ghnq._version import __version__
from ghnq.data import ReadOptions, RecordedImages
from ghnq.data.read_options import Option
from ghnq.errors import DataError, ExportError, SchemeError
from ghnq.quant import QuantScheme, dump_scheme, is_scheme_file, scheme_from_text

FORMAT_KEY, FORMAT = "ghnq.format", "1"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network and its calibration images come from; None where that is not known.

    Attributes:
        model: The reference of the model, without folders.
        checkpoint: The name of the checkpoint that predicted the parameters.
        checkpoint_sha256: The hash of its weights.
        weights: The name of the file of parameters, where they were not predicted.
        weights_sha256: The hash of that file.
        head: How the classification layer was solved, where it was not predicted.
        data: The name of the data set.
        data_sha256: `ImageDataset.content_hash`.
        read_options: How its images were read (`ReadOptions.record`), where that was said.
        calibration_seed: Selects the calibration images.
        mean, std: Of pixels scaled to 0..1, per channel: the input of the network is (pixels / 255 - mean) / std.
    """

    model: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    head: str | None = None
    data: str | None = None
    data_sha256: str | None = None
    read_options: dict[str, Option] | None = None
    calibration_seed: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a file states besides its graph.

    Attributes:
        version: The version of ghnq that wrote the file.
        scheme, protocol, steps: The scheme as text, its protocol, its post-training steps.
        scheme_file: The whole scheme, with the fields in which it differs from its protocol, as the text of a scheme
            file. Files of earlier versions do not have it, and their steps are not known.
        calibration_images: How many.
        input_shape: (C, H, W).
        origin: Where the network comes from.
    """

    version: str
    scheme: str
    protocol: str
    steps: tuple[str, ...] = ()
    scheme_file: str | None = None
    calibration_images: int
    input_shape: tuple[int, ...]
    origin: Origin

    @property
    def images(self) -> RecordedImages:
        """What the file says about the images that it was calibrated with."""
        origin = self.origin
        options = ReadOptions.from_record(origin.read_options or {})
        return RecordedImages("the file", origin.data, origin.data_sha256, options)

    @classmethod
    def of(cls, scheme: QuantScheme, calibration_images: int, input_shape: tuple[int, ...], origin: Origin) -> Facts:
        """Returns the facts of a file that is written now."""
        return cls(
            version=__version__, scheme=str(scheme), protocol=scheme.protocol, steps=scheme.steps,
            scheme_file=dump_scheme(scheme), calibration_images=calibration_images, input_shape=input_shape,
            origin=origin,
        )  # fmt: skip

    def check_images(self, shape: Sequence[int | str], path: str | Path) -> None:
        """Checks that the graph of the file takes images of the shape in the metadata.

        Args:
            shape: Of the graph's input, with `batch` for a dynamic size.

        Raises:
            ExportError: It takes images of another shape.
        """
        expected = ("batch", *self.input_shape)
        if tuple(shape) != expected:
            in_graph, in_metadata = (" x ".join(map(str, sizes)) for sizes in (shape, expected))
            raise ExportError(
                f"'{path}' takes images of {in_graph or 'no shape'}, its metadata say {in_metadata}: another program "
                "has changed it; export it again, and leave the batch size dynamic"
            )

    @property
    def title(self) -> str:
        """The scheme for titles: text, protocol, steps."""
        return " + ".join((f"{self.scheme}, protocol {self.protocol}", *self.steps))

    def to_properties(self) -> dict[str, str]:
        """Returns the facts as ONNX metadata: text as it is, everything else as JSON."""
        # The steps are in the scheme file.
        stated = {key: value for key, value in vars(self).items() if key not in ("origin", "steps")}
        known = {key: value for key, value in (stated | vars(self.origin)).items() if value is not None}
        return {FORMAT_KEY: FORMAT} | {
            f"ghnq.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in known.items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: str) -> Facts:
        """Reads what `to_properties` wrote.

        Raises:
            ExportError: A fact is missing or invalid.
        """
        try:
            if not all(isinstance(value, str) for value in properties.values()):
                raise TypeError("values that are not text")
            shape = tuple(int(size) for size in json.loads(properties["ghnq.input_shape"]))
            if len(shape) != 3 or min(shape) < 1:
                raise ValueError(f"an input shape of {shape}")
            mean, std = (_numbers(properties.get(f"ghnq.{key}"), shape[0]) for key in ("mean", "std"))
            if (mean is None) != (std is None) or (std is not None and min(std) <= 0):
                raise ValueError("mean and std do not belong together")
            seed = properties.get("ghnq.calibration_seed")
            scheme, full_scheme = _schemes(properties)
            calibration_images = int(properties["ghnq.calibration_images"])
            if calibration_images < 1:
                raise ValueError("no calibration images")
            return cls(
                version=properties["ghnq.version"],
                scheme=str(scheme),
                protocol=properties["ghnq.protocol"],
                steps=() if full_scheme is None else full_scheme.steps,
                scheme_file=properties.get("ghnq.scheme_file"),
                calibration_images=calibration_images,
                input_shape=shape,
                origin=Origin(
                    model=properties.get("ghnq.model"), checkpoint=properties.get("ghnq.checkpoint"),
                    checkpoint_sha256=properties.get("ghnq.checkpoint_sha256"), data=properties.get("ghnq.data"),
                    weights=properties.get("ghnq.weights"), weights_sha256=properties.get("ghnq.weights_sha256"),
                    head=properties.get("ghnq.head"), data_sha256=properties.get("ghnq.data_sha256"),
                    read_options=_read_options(properties.get("ghnq.read_options")),
                    calibration_seed=None if seed is None else int(seed), mean=mean, std=std,
                ),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, SchemeError, DataError) as error:
            raise ExportError(f"'{path}' has damaged metadata ({error!r}); export it again") from error


def _schemes(properties: Mapping[str, str]) -> tuple[QuantScheme, QuantScheme | None]:
    """Returns the scheme of the text alone, and the whole scheme, None where the file does not have it."""
    text, file = properties["ghnq.scheme"], properties.get("ghnq.scheme_file")
    if is_scheme_file(text):
        raise ValueError(f"{text!r} is the name of a file, not a scheme")
    scheme = QuantScheme.parse(text)
    if file is None:
        return scheme, None
    full = scheme_from_text(file)
    stated = (scheme.bits, dict(scheme.overrides), properties["ghnq.protocol"])
    if (full.bits, dict(full.overrides), full.protocol) != stated:
        raise ValueError("scheme_file is of another scheme or protocol")
    return scheme, full


def _read_options(text: str | None) -> dict[str, Option] | None:
    if text is None:
        return None
    record = json.loads(text)
    if not isinstance(record, dict):
        raise TypeError("read_options is no mapping")
    return ReadOptions.from_record(record).record()


def _numbers(text: str | None, count: int) -> tuple[float, ...] | None:
    if text is None:
        return None
    numbers = tuple(float(number) for number in json.loads(text))
    if len(numbers) != count or not all(map(isfinite, numbers)):
        raise ValueError(f"{text} is not one number for each of {count} channels")
    return numbers
