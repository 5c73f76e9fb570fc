"""The latency of a candidate as it is deployed: exported to an integer file, and timed on ONNX Runtime."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ghnq.deploy.cost.cost_profile import profile
from ghnq.deploy.export import export_prepared
from ghnq.deploy.formats import OnnxFormat
from ghnq.deploy.onnx.storage import Storage
from ghnq.errors import GhnqError
from ghnq.optional_imports import import_optional
from ghnq.prediction import Network
from ghnq.quant import QuantScheme
from ghnq.search.candidates import Failure, reason_of


@dataclass(frozen=True)
class LatencyTest:
    """Measures latencies of one image, with one thread.

    Attributes:
        scheme: What networks are exported at.
        repeats: Timed runs; None takes about two seconds.

    Raises:
        MissingExtraError: ONNX or ONNX Runtime is not installed.
    """

    scheme: QuantScheme
    repeats: int | None = None

    def __post_init__(self) -> None:
        for library in ("onnx", "onnxruntime"):
            import_optional(library)

    def measure(self, name: str, network: Network) -> float | Failure:
        """Returns the median in milliseconds, or why the network cannot be exported."""
        with tempfile.TemporaryDirectory(prefix="ghnq-") as folder:
            file = Path(folder) / "network.onnx"
            try:
                export_prepared(network.prepared(self.scheme), self.scheme, OnnxFormat(Storage()), out=file)
                return profile(file, repeats=self.repeats).quantized.latency.median_ms
            except GhnqError as error:
                return Failure(name, reason_of(error))
