"""What a fine-tuning run is told to do, as it is stored in its state: a resumed run must be told the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ghnq.errors import TrainingError
from ghnq.finetune.start import STARTS
from ghnq.recorded_names import model_name

DEFAULT_EPOCHS = 5
DEFAULT_STEPS = 500
"""Without a budget: this many epochs, and on few images at least this many steps."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training images; None without this budget.
        max_minutes: Minutes of training, with everything but the measurements before and after; None without.
        batch_size: Images of a step, over all processes.
        lr: Peak of the learning rate; None finds it by a range test, and for predicted weights by the budget.
        seed: Decides order and augmentation of the images.
        start: How predicted weights are changed before training, a name of `ghnq.finetune.start.STARTS`.
        momentum: Of SGD, in Nesterov's form.
        weight_decay: Of weights; biases and norms have none.
        label_smoothing: Share of the target that is spread over all classes.
        clip: Largest norm of the gradient.
        teacher_share: Share of the teacher in the loss, if there is one.
        teacher_temperature: Temperature of both distributions in the teacher's part of the loss.

    Raises:
        TrainingError: A value is out of range.
    """

    epochs: float | None = None
    max_minutes: float | None = None
    batch_size: int = 128
    lr: float | None = None
    seed: int = 0
    start: str = "rescaled"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    clip: float = 2.0
    teacher_share: float = 0.7
    teacher_temperature: float = 3.0

    def __post_init__(self) -> None:
        if self.epochs is not None and self.max_minutes is not None:
            raise TrainingError("--epochs and --max-minutes are two budgets; give one of them")
        for option, value in (("--epochs", self.epochs), ("--max-minutes", self.max_minutes)):
            if value is not None and not 0 < value < float("inf"):
                raise TrainingError(f"{option} {value:g} leaves nothing to train; give a positive number")
        if self.batch_size < 2:
            raise TrainingError(f"--batch-size is {self.batch_size}; batch norm needs at least 2 images in a batch")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise TrainingError(f"--lr is {self.lr:g}; give a positive number, or auto")
        if self.start not in STARTS:
            raise TrainingError(f"there is no start '{self.start}'; there are {', '.join(STARTS)}")

    def steps(self, images: int) -> int:
        """Returns the number of steps of a budget in epochs, for that many training images."""
        if self.epochs is not None:
            return max(1, round(self.epochs * images / self.batch_size))
        return max(round(DEFAULT_EPOCHS * images / self.batch_size), DEFAULT_STEPS)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A fine-tuning run.

    Attributes:
        model: The reference to the model (`ghnq.models`), without folders.
        origin: Where the weights come from: key and value in the metadata of the weights file, for example
            `("checkpoint", "cifar10")`, `("init", "kaiming")` or `("weights", "file.safetensors")`.
        origin_sha256: Hash of that checkpoint or file; None for weights that nothing was read for.
        scheme: The scheme that the network is trained through, as text or the name of a scheme file.
        scheme_content: The scheme itself, as text: a changed file is another scheme.
        data: Name of the data set.
        data_sha256: Hash of its images.
        head: How the classification layer was solved; None where it was not.
        read_options: How they were read, as on the command line.
        teacher: The teacher's weights, `MODEL@W` or `W`, without folders; None without.
        teacher_sha256: Hash of the file of these weights.
        output: Which of several results of the network is the logits, as it was given; None without.
        settings: How it is trained.
    """

    model: str
    origin: tuple[str, str]
    origin_sha256: str | None = None
    scheme: str
    scheme_content: str
    data: str
    data_sha256: str
    read_options: str = ""
    teacher: str | None
    teacher_sha256: str | None = None
    settings: Settings
    head: str | None = None
    output: str | None = None

    def to_json(self) -> str:
        """Returns the job as JSON, for the state."""
        return json.dumps(asdict(self))

    def check_same(self, stored: str) -> None:
        """Checks that the job of a saved run is this one.

        Data, initial weights, teacher and scheme are the same where their content is, whatever their names are.

        Raises:
            TrainingError: It is another one; the message names what differs.
        """
        before, now = _flat(json.loads(stored)), _flat(json.loads(self.to_json()))
        before["model"] = model_name(before["model"])  # earlier versions stored it with its folders
        if before.get("head") is not None:  # which names the data
            before["head"] = before["head"].replace(f"'{before['data']}'", f"'{now['data']}'")
        changed = [key for key in now if key in before and before[key] != now[key]]
        for name, content in _CONTENTS.items():
            if name not in changed and content not in changed:
                continue
            if content in before and content not in changed and now[content] is not None:
                changed.remove(name)  # another name for the same
            elif name in changed and content in changed:
                changed.remove(content)
        if "read_options" in changed and before.get("data_sha256") == now["data_sha256"]:
            changed.remove("read_options")  # they made no difference
        if changed:
            listed = ", ".join(f"{_OPTIONS.get(key, key)} (was {before.get(key)}, now {now[key]})" for key in changed)
            raise TrainingError(
                f"the run was started with other values: {listed}. Resume it with the same command, or start a new run "
                "in another --out"
            )


_CONTENTS = {
    "data": "data_sha256",
    "origin": "origin_sha256",
    "scheme": "scheme_content",
    "teacher": "teacher_sha256",
}
"""What is compared by its content, and the key of that."""

_OPTIONS = {
    "model": "MODEL",
    "data": "--data",
    "data_sha256": "the images of --data",
    "read_options": "how they are read",
    "scheme": "--scheme",
    "scheme_content": "the scheme",
    "teacher": "--teacher",
    "teacher_sha256": "the weights of --teacher",
    "output": "--output",
    "origin": "the initial weights",
    "head": "the head (--head)",
    "origin_sha256": "the content of the initial weights",
    "epochs": "--epochs",
    "max_minutes": "--max-minutes",
    "batch_size": "--batch-size",
    "lr": "--lr",
    "seed": "--seed",
}


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = job.pop("settings")
    return job | settings
