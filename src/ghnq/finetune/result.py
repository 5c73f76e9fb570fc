"""What a fine-tuning run has achieved: accuracy before and after, in float and at the scheme, on test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ghnq.files import write_json

RESULT = "result.json"
FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run.

    Attributes:
        model: The reference to the model.
        origin: Where the weights came from.
        origin_sha256: Hash of that checkpoint or file; None where nothing was read.
        data: What is said about the data set (`ImageDataset.record`).
        scheme: The scheme that the network was trained through.
        steps: Updates made.
        epochs: The same in passes over the training images.
        seconds: Time of training.
        lr: Peak of the learning rate, as it was at the end.
        rollbacks: How often the rate was halved because the loss was not finite.
        test_images: Number of test images.
        before: Accuracy by scheme before training, percent.
        after: Accuracy by scheme after training, percent.
        val_images: Number of training images that were held out.
        val: Accuracy on held-out images at the scheme after training, percent; None without such images.
        weights: The file with the trained weights.
        data_sha256: The hash of the images.
    """

    model: str
    origin: tuple[str, str]
    origin_sha256: str | None
    data: dict[str, Any]
    scheme: str
    steps: int
    epochs: float
    seconds: float
    lr: float
    rollbacks: int
    test_images: int
    before: dict[str, float]
    after: dict[str, float]
    val_images: int
    val: float | None
    weights: Path
    data_sha256: str = ""

    def document(self) -> dict[str, Any]:
        """Returns the result for JSON."""
        return {
            "model": self.model,
            self.origin[0]: self.origin[1],
            **({} if self.origin_sha256 is None else {f"{self.origin[0]}_sha256": self.origin_sha256}),
            **self.data,
            "scheme": self.scheme,
            "steps": self.steps,
            "epochs": round(self.epochs, 3),
            "seconds": round(self.seconds, 2),
            "lr": self.lr,
            "rollbacks": self.rollbacks,
            "test_images": self.test_images,
            "before": self.before,
            "after": self.after,
            "val_images": self.val_images,
            "val": self.val,
            "weights": str(self.weights),
        }

    def write(self, directory: Path) -> None:
        """Writes `result.json` into the directory of the run."""
        write_json(
            directory / RESULT, self.document() | {"weights": self.weights.name, "data_sha256": self.data_sha256}
        )

    def table(self) -> Table:
        """Returns the table of accuracies."""
        table = Table()
        table.add_column(f"accuracy, % of {self.test_images:,} test images of {self.data['data']}")
        for scheme in self.after:
            table.add_column(scheme, justify="right")
        for name, accuracies in (("before", self.before), ("after", self.after)):
            table.add_row(name, *(f"{accuracies[scheme]:.2f}" for scheme in self.after))
        return table
