"""Arguments and options that several commands have, each defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, or HOST:PORT.", show_default="this machine alone"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A shipped name, a directory, or a hub id.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="FILE.py:NAME, package.module:NAME, SPEC.json, or SPACE/SPLIT/INDEX.")
]
InputShape = Annotated[
    str, typer.Option("--input-shape", metavar="C,H,W", help="Channels, height and width of one image.")
]
Steps = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Post-training steps: equalize, search_weights, search_activations, squant, correct_bias. For schemes "
        "given as text; a scheme file has its own.",
        show_default="none",
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help="digits, a directory, or a hub id.", show_default="that of the weights"
    ),
]
PredictedBy = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="CHECKPOINT", help="Shipped name, directory, or hub id.", show_default="digits"
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE|DIR",
        help="Weights in place of a checkpoint: FILE.safetensors, or a fine-tuning run.",
        show_default=False,
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        metavar="H",
        help="Of predicted weights: predicted, or solved from training images in closed form.",
        show_default="predicted for the checkpoint's own images, solved for others",
    ),
]
Images = Annotated[int | None, typer.Option(metavar="N", min=1, help="Test images.", show_default="all")]
Protocol = Annotated[
    str | None,
    typer.Option(metavar="P", help="deploy or paper; a scheme file has its own.", show_default="deploy"),
]
Compile = Annotated[
    bool, typer.Option("--compile", help=".pt2: also lower it to x86 and run torch.compile; needs a C++ compiler.")
]
Holdout = Annotated[
    float | None,
    typer.Option(
        metavar="X", help="Test on this part of each class, where the data have no test split: 0.2.", show_default=False
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size", metavar="N", help="Resize the shorter side to N pixels, crop the centre.", show_default=False
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column", metavar="NAME", help="The column of labels, where there are several.", show_default=False
    ),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and count them.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="NAME",
        help="Which of several results of the model is the logits: a key, an attribute, or a position.",
        show_default="logits, or the only one of that shape",
    ),
]
OnnxFile = Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A file that ghnq export wrote.")]
ExportedFile = Annotated[Path, typer.Argument(metavar="FILE", help="A file that ghnq export wrote: .onnx or .pt2.")]


def reads_images(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options about how images are read to a command; they hold for every data set that it loads."""

    def options(
        holdout: Holdout = None,
        image_size: ImageSize = None,
        label_column: LabelColumn = None,
        skip_unreadable: SkipUnreadable = False,
    ) -> None:
        pass

    signature, added = inspect.signature(command, eval_str=True), inspect.signature(options, eval_str=True)

    @functools.wraps(command)
    def run(**arguments: object) -> None:
        from ghnq.data.read_options import ReadOptions, reading

        chosen = {name: arguments.pop(name) for name in added.parameters}
        with reading(ReadOptions(**chosen)):  # type: ignore[arg-type]
            command(**arguments)

    parameters = [*signature.parameters.values(), *added.parameters.values()]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    run.__annotations__ = {
        **get_type_hints(command, include_extras=True),
        **get_type_hints(options, include_extras=True),
    }
    return run
