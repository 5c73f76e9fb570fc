"""Arguments and options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A shipped name, a directory, or a hub id.")]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="FILE.py:NAME, package.module:NAME, or SPACE/SPLIT/INDEX.")
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
    typer.Option(metavar="DATA", help="digits, a directory, or a hub id.", show_default="that of the weights"),
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
Images = Annotated[int | None, typer.Option(metavar="N", min=1, help="Test images.", show_default="all")]
Protocol = Annotated[
    str | None,
    typer.Option(metavar="P", help="deploy or paper; a scheme file has its own.", show_default="deploy"),
]
Compile = Annotated[
    bool, typer.Option("--compile", help=".pt2: also lower it to x86 and run torch.compile; needs a C++ compiler.")
]
OnnxFile = Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A file that ghnq export wrote.")]
ExportedFile = Annotated[Path, typer.Argument(metavar="FILE", help="A file that ghnq export wrote: .onnx or .pt2.")]
