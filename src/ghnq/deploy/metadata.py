"""What a file says of itself, so that nobody has to remember how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ghnq import __version__
from ghnq.errors import ExportError
from ghnq.quant import QuantScheme

FORMAT_KEY, FORMAT = "ghnq.format", "1"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network and its calibration images come from; whatever is not known stays None.

    mean, std: of pixels scaled to 0..1, per channel: images go into the network as (pixels / 255 - mean) / std.
    """

    model: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    data: str | None = None
    calibration_seed: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a file states beside its graph; `input_shape` is (C, H, W)."""

    version: str
    scheme: str
    protocol: str
    calibration_images: int
    input_shape: tuple[int, ...]
    origin: Origin

    @classmethod
    def of(cls, scheme: QuantScheme, calibration_images: int, input_shape: tuple[int, ...], origin: Origin) -> Facts:
        """The facts of a file that is written now."""
        return cls(
            version=__version__, scheme=str(scheme), protocol=scheme.protocol, calibration_images=calibration_images,
            input_shape=input_shape, origin=origin,
        )  # fmt: skip

    def to_properties(self) -> dict[str, str]:
        """The facts as ONNX metadata: text as it is, all else as JSON."""
        known = {key: value for key, value in vars(self.origin).items() if value is not None}
        stated = {key: value for key, value in vars(self).items() if key != "origin"}
        return {FORMAT_KEY: FORMAT} | {
            f"ghnq.{key}": value if isinstance(value, str) else json.dumps(value)
            for key, value in (stated | known).items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: str) -> Facts:
        """Reads the facts back; raises ExportError where one is missing or is not what it should be."""
        try:
            mean, std = (_numbers(properties.get(f"ghnq.{key}")) for key in ("mean", "std"))
            if mean is not None and (std is None or len(std) != len(mean) or min(std) <= 0):
                raise ValueError("mean and std do not belong together")
            shape = tuple(int(size) for size in json.loads(properties["ghnq.input_shape"]))
            if len(shape) != 3 or min(shape) < 1:
                raise ValueError(f"an input shape of {shape}")
            seed = properties.get("ghnq.calibration_seed")
            return cls(
                version=properties["ghnq.version"],
                scheme=str(QuantScheme.parse(properties["ghnq.scheme"])),
                protocol=properties["ghnq.protocol"],
                calibration_images=int(properties["ghnq.calibration_images"]),
                input_shape=shape,
                origin=Origin(
                    model=properties.get("ghnq.model"), checkpoint=properties.get("ghnq.checkpoint"),
                    checkpoint_sha256=properties.get("ghnq.checkpoint_sha256"), data=properties.get("ghnq.data"),
                    calibration_seed=None if seed is None else int(seed), mean=mean, std=std,
                ),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"'{path}' has damaged metadata ({error!r}); export it again") from error


def _numbers(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else tuple(float(number) for number in json.loads(text))
