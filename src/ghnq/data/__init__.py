"""Image data sets, held in memory as uint8: `load("digits")`, a directory, or a name on the hub."""

from __future__ import annotations

from ghnq.data.images import ImageDataset as ImageDataset
from ghnq.data.images import Images as Images
from ghnq.data.loading import load as load
from ghnq.data.loading import resize_dataset as resize_dataset
from ghnq.data.read_options import ReadOptions as ReadOptions
from ghnq.data.read_options import reading as reading
from ghnq.data.recorded import RecordedImages as RecordedImages
from ghnq.data.shuffle import mix as mix

__all__ = ["ImageDataset", "Images", "ReadOptions", "RecordedImages", "load", "mix", "reading", "resize_dataset"]
