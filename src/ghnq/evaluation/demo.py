"""What `ghnq demo` shows: an evaluation on real digits, in about a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ghnq.evaluation.named_schemes import DEFAULT_SCHEMES
from ghnq.evaluation.protocol import evaluate
from ghnq.evaluation.results import Results
from ghnq.files import one_writer
from ghnq.graph.drawing.draw import draw
from ghnq.graph.tracing.trace import trace
from ghnq.hypernet import GHN
from ghnq.prediction import dataset_for, space_of
from ghnq.progress import ProgressCallback

ARCHITECTURES = 50
CHECKPOINT = "digits"


@dataclass(frozen=True)
class Demo:
    """The results, and the drawing of one architecture."""

    results: Results
    drawing: Path


def demo(
    out: str | Path,
    *,
    checkpoint: str = CHECKPOINT,
    architectures: int = ARCHITECTURES,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Demo:
    """Measures architectures of split `test` with predicted parameters on the checkpoint's images, float32 to w4a4.

    Writes `results.parquet`, `summary.json` and `architecture.svg`, the graph of the first architecture, into `out`.
    Every call measures everything again.

    Args:
        architectures: How many.
        workers, progress: As for `evaluate`.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        DataError: Its images cannot be loaded.
    """
    folder = Path(out)
    ghn = GHN.from_pretrained(checkpoint)
    dataset = dataset_for(ghn)
    results = evaluate(
        ghn,
        dataset,
        checkpoint=checkpoint,
        splits=("test",),
        schemes=DEFAULT_SCHEMES,
        limit=architectures,
        workers=workers,
        progress=progress,
    )
    drawing = folder / "architecture.svg"
    channels = dataset.input_shape[0]
    space = space_of(ghn)
    module = space.build(space.spec("test", 0), in_channels=channels, num_classes=dataset.num_classes, device="meta")
    with one_writer(folder):
        results.save(folder)
        draw(trace(module, dataset.input_shape), drawing, title=f"{space.name}/test/0")
    return Demo(results, drawing)
