"""The command table: names, options and help. What a command does is in `ghnq.commands`.

Large libraries are only imported when a command is called, so that help is fast.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from typer.core import MarkupMode

from ghnq._version import __version__
from ghnq.commands.arguments import (
    CheckpointName,
    Cluster,
    Compile,
    DataName,
    ExportedFile,
    Head,
    Images,
    InputShape,
    Json,
    ModelName,
    OnnxFile,
    Output,
    PredictedBy,
    Protocol,
    Steps,
    Weights,
    reads_images,
)

# In fewer columns, the tables of rich would cut the names of options.
MARKUP: MarkupMode = "rich" if shutil.get_terminal_size().columns >= 72 else None

app = typer.Typer(
    name="ghnq",
    help="Predict quantization-robust weights for convolutional networks nobody has trained yet.",
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    # A traceback of the user's own model file is shown in the form of Python.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
spaces = typer.Typer(
    help="Describe search spaces and show their members.", no_args_is_help=True, rich_markup_mode=MARKUP
)
app.add_typer(spaces, name="spaces")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ghnq {__version__}")
        raise typer.Exit


@app.callback()
def _ghnq(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the table and the page are written.")] = Path(
        "out/demo"
    ),
    as_json: Json = False,
) -> None:
    """Measure unseen networks with predicted weights on real digits, at 32 down to 4 bits."""
    from ghnq.commands.demo import demo as run

    run(out=out, as_json=as_json)


@app.command()
@reads_images
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/digits.yaml.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="digits, a directory, or a hub id.", show_default="the recipe's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run is written.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in DIR.")] = False,
    override: Annotated[bool, typer.Option("--override", help="With --resume: resume with a changed recipe.")] = False,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", help="CUDA devices, or processes on the CPU.", show_default="the recipe's, or 1"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="cpu, cuda or auto.", show_default="the recipe's")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="M", min=0.0, help="Stop after M minutes.", show_default="the recipe's")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable.")
    ] = None,
) -> None:
    """Train a hypernetwork as a recipe says. Ctrl-C and SIGTERM save a state to resume from."""
    from ghnq.commands.train import train as run

    run(
        recipe, data=data, out=out, resume=resume, override=override, max_minutes=max_minutes, devices=devices,
        overrides=(overrides or []) + ([f"device={device}"] if device else []),
    )  # fmt: skip


@app.command()
@reads_images
def evaluate(
    checkpoint: CheckpointName,
    data: DataName = None,
    splits: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Splits: val, test, deep, wide, dense, bnfree, train; or one member: test/17."
        ),
    ] = "test",
    schemes: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Schemes: float32, w8a8, w4a8, w4 (weights only), 2 to 16 bits; or FILE.yaml."
        ),
    ] = "float32,w8a8,w4a8,w4a4",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Architectures of each split.", show_default="all")
    ] = None,
    images: Images = None,
    protocol: Protocol = None,
    steps: Steps = None,
    cluster: Cluster = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write results here, and resume from what is here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure predicted networks, in float and quantized, on architectures never trained on."""
    from ghnq.commands.evaluate import evaluate as run

    run(
        checkpoint, data=data, splits=splits, schemes=schemes, limit=limit, images=images, protocol=protocol,
        steps=steps, cluster=cluster, out=out, as_json=as_json,
    )  # fmt: skip


@app.command()
@reads_images
def score(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="FILE.py:NAME, package.module:NAME, SPEC.json, or SPACE/SPLIT/INDEX."),
    ],
    checkpoint: PredictedBy = None,
    weights: Weights = None,
    data: DataName = None,
    head: Head = None,
    schemes: Annotated[
        str, typer.Option(metavar="A,B", help="Schemes: float32, w8a8, w4a8, w4 (weights only); or FILE.yaml.")
    ] = "float32,w8a8,w4a8,w4a4",
    images: Annotated[int | None, typer.Option(metavar="N", min=1, help="Images.", show_default="all")] = None,
    on: Annotated[
        str, typer.Option("--on", metavar="SPLIT", help="val (training images that are held out), or test.")
    ] = "val",
    protocol: Protocol = None,
    steps: Steps = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the table, a summary and a page here.")] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Measure your own networks, with predicted or stored weights, in float and quantized."""
    from ghnq.commands.score import score as run

    run(
        models, checkpoint=checkpoint, weights=weights, data=data, head=head, schemes=schemes, images=images, on=on,
        protocol=protocol, steps=steps, out=out, output=output, as_json=as_json,
    )  # fmt: skip


@app.command()
@reads_images
def rank(
    candidates: Annotated[
        list[str],
        typer.Argument(
            metavar="CANDIDATES...",
            help="SPACE/SPLIT, FILE.py:NAME (a model; a list, dictionary or generator of models), SPEC.json, a folder "
            "of specs, a text file of such words.",
        ),
    ],
    schemes: Annotated[
        str, typer.Option("--scheme", metavar="A,B", help="Schemes; candidates are ranked by the first one.")
    ] = "w4a4",
    checkpoint: PredictedBy = None,
    data: DataName = None,
    head: Head = None,
    n: Annotated[
        int | None, typer.Option("--n", metavar="N", help="Candidates of each word, at most.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Which members of a split, and all else random.")] = 0,
    max_params: Annotated[int | None, typer.Option(metavar="P", help="Parameters.", show_default="any")] = None,
    max_macs: Annotated[int | None, typer.Option(metavar="M", help="Multiply-adds.", show_default="any")] = None,
    max_bytes: Annotated[
        int | None, typer.Option(metavar="B", help="Bytes of parameters at the scheme.", show_default="any")
    ] = None,
    max_memory: Annotated[
        int | None, typer.Option(metavar="R", help="Peak bytes of activations.", show_default="any")
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Milliseconds of the integer file, of the best only.", show_default="any"),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="SIGNAL",
            help="fitted-training, fitted, accuracy, loss, finetune, train, macs, params, synflow or naswot; 'fitted' "
            "takes seconds where those that train take minutes.",
        ),
    ] = "fitted-training",
    top: Annotated[int, typer.Option(metavar="K", help="How many of the best.")] = 10,
    images: Annotated[int, typer.Option(metavar="N", help="Training images that are held out, for the best.")] = 2000,
    minutes: Annotated[
        float, typer.Option(metavar="M", help="Of training for each of the last round, where the signal trains.")
    ] = 0.5,
    no_halving: Annotated[
        bool, typer.Option("--no-halving", help="Give all candidates the images and minutes of the best.")
    ] = False,
    on: Annotated[
        str, typer.Option("--on", metavar="SPLIT", help="val, or test: measure the best on test images, too.")
    ] = "val",
    protocol: Protocol = None,
    steps: Steps = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes.", show_default="one for each core")
    ] = None,
    cluster: Cluster = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Measurements, result, a page, and weights of the best; resumes."),
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Rank candidate networks within a budget, and say how far the order can be trusted."""
    from ghnq.commands.rank import Options
    from ghnq.commands.rank import rank as run
    from ghnq.search.limits import Limits

    limits = Limits(parameters=max_params, multiply_adds=max_macs, bytes=max_bytes, peak_memory=max_memory)
    options = Options(
        checkpoint=checkpoint, data=data, head=head, output=output, schemes=schemes, protocol=protocol, steps=steps,
        n=n, seed=seed, by=by, images=images, minutes=minutes, halve=not no_halving, on=on, top=top,
        max_latency=max_latency, limits=limits, workers=workers, cluster=cluster,
    )  # fmt: skip
    run(candidates, options, out=out, as_json=as_json)


@app.command()
@reads_images
def search(
    scheme: Annotated[str, typer.Option("--scheme", metavar="SCHEME", help="What networks are quantized to.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The study, the Pareto front, a summary, a page.")],
    space: Annotated[str, typer.Option("--space", metavar="SPACE", help="The space of architectures.")] = "convnets",
    objectives: Annotated[
        str, typer.Option(metavar="A,B", help="accuracy (to be large), macs, bytes, memory (to be small).")
    ] = "accuracy,macs",
    trials: Annotated[int, typer.Option(metavar="N", help="Architectures to measure in all.")] = 200,
    checkpoint: PredictedBy = None,
    data: DataName = None,
    head: Head = None,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="nsga2, tpe, random or regularized-evolution.")
    ] = "regularized-evolution",
    by: Annotated[
        str, typer.Option(metavar="SIGNAL", help="What accuracy is: accuracy, loss, finetune or train.")
    ] = "accuracy",
    images: Annotated[int, typer.Option(metavar="N", help="Training images that are held out, for each.")] = 500,
    minutes: Annotated[
        float, typer.Option(metavar="M", help="Of training for each, with --by finetune or train.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Of everything random.")] = 0,
    max_params: Annotated[int | None, typer.Option(metavar="P", help="Parameters.", show_default="any")] = None,
    max_macs: Annotated[int | None, typer.Option(metavar="M", help="Multiply-adds.", show_default="any")] = None,
    max_bytes: Annotated[
        int | None, typer.Option(metavar="B", help="Bytes of parameters at the scheme.", show_default="any")
    ] = None,
    max_memory: Annotated[
        int | None, typer.Option(metavar="R", help="Peak bytes of activations.", show_default="any")
    ] = None,
    protocol: Protocol = None,
    steps: Steps = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database that processes share.", show_default="a journal file in DIR"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes.", show_default="one for each core")
    ] = None,
    cluster: Cluster = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study that there is.")] = False,
    as_json: Json = False,
) -> None:
    """Search a space for architectures that are good at a scheme and cheap (needs the extra `search`)."""
    from ghnq.optional_imports import import_optional

    import_optional("optuna")
    from ghnq.commands.search import Options
    from ghnq.commands.search import search as run
    from ghnq.search.limits import Limits

    limits = Limits(parameters=max_params, multiply_adds=max_macs, bytes=max_bytes, peak_memory=max_memory)
    options = Options(
        space=space, checkpoint=checkpoint, data=data, head=head, scheme=scheme, protocol=protocol, steps=steps,
        objectives=objectives, by=by, trials=trials, sampler=sampler, seed=seed, images=images, minutes=minutes,
        limits=limits, workers=workers, cluster=cluster, storage=storage,
    )  # fmt: skip
    run(options, out=out, resume=resume, as_json=as_json)


@app.command()
@reads_images
def predict(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="The file to write.")],
    checkpoint: PredictedBy = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Calibrate on these images: digits, a directory, or a hub id."),
    ] = None,
    head: Head = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape", metavar="C,H,W", help="Of one image.", show_default="that of the images or checkpoint"
        ),
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme", metavar="SCHEME", help="The precision the parameters will be run at: w4a8, or FILE.yaml."
        ),
    ] = "float32",
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Predict all weights of a model and write them under the names of its state dict."""
    from ghnq.commands.predict import predict as run

    run(
        model,
        checkpoint=checkpoint,
        data=data,
        head=head,
        input_shape=input_shape,
        scheme=scheme,
        out=out,
        output=output,
        as_json=as_json,
    )


@app.command()
@reads_images
def sensitivity(
    model: ModelName,
    checkpoint: PredictedBy = None,
    weights: Weights = None,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="SCHEME", help="What each layer is quantized to.")
    ] = "w4a8",
    data: DataName = None,
    head: Head = None,
    images: Images = None,
    steps: Steps = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE.html", help="Write a result folder, or only its page, here.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Show the loss from each layer: with only this layer quantized, and with only this layer in float."""
    from ghnq.commands.sensitivity import sensitivity as run

    run(
        model,
        checkpoint=checkpoint,
        weights=weights,
        scheme=scheme,
        data=data,
        head=head,
        images=images,
        steps=steps,
        out=out,
        output=output,
        as_json=as_json,
    )


@app.command()
@reads_images
def mixed(
    model: ModelName,
    budget_bits: Annotated[
        float, typer.Option(metavar="B", help="Average bits of a weight, or bit-operations as of wBaB.")
    ],
    checkpoint: PredictedBy = None,
    weights: Weights = None,
    data: DataName = None,
    head: Head = None,
    measure: Annotated[str, typer.Option(metavar="M", help="What the budget counts: size or bitops.")] = "size",
    choices: Annotated[str, typer.Option(metavar="A,B", help="Bits a layer may get.")] = "2,4,8",
    activations: Annotated[
        int, typer.Option(metavar="BITS", help="Bits of all activations; with bitops they are chosen, too.")
    ] = 8,
    images: Images = None,
    steps: Steps = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE.yaml", help="Write a result folder, or only the scheme file, here.")
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Choose the bits of every layer under a budget, and compare the result with uniform bits."""
    from ghnq.commands.mixed import mixed as run

    run(
        model, checkpoint=checkpoint, weights=weights, data=data, head=head, budget_bits=budget_bits, measure=measure,
        choices=choices, activations=activations, images=images, steps=steps, out=out, output=output,
        as_json=as_json,
    )  # fmt: skip


@app.command()
@reads_images
def export(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write: .onnx, or .pt2.")],
    checkpoint: PredictedBy = None,
    weights: Weights = None,
    scheme: Annotated[
        str,
        typer.Option("--scheme", metavar="SCHEME", help="w8a8, w4a8, w4a4, w4 (weights only), float32; 2 to 8 bits."),
    ] = "w8a8",
    data: DataName = None,
    head: Head = None,
    protocol: Protocol = None,
    steps: Steps = None,
    calibration: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="Training images for the ranges.", show_default="512, or all"),
    ] = None,
    pack_int4: Annotated[
        bool,
        typer.Option("--pack-int4", help="Weights of up to 4 bits as INT4: smaller, but convolutions run in float."),
    ] = False,
    int8_weights: Annotated[
        bool,
        typer.Option("--int8-weights", help="8-bit weights as int8: only for processors with VNNI, or ARM."),
    ] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Write a model with predicted, quantized weights as ONNX (.onnx) or a torch.export program (.pt2)."""
    from ghnq.commands.export import export as run

    run(
        model, checkpoint=checkpoint, weights=weights, scheme=scheme, data=data, head=head, out=out, protocol=protocol,
        steps=steps, calibration=calibration, pack_int4=pack_int4, int8_weights=int8_weights, output=output,
        as_json=as_json,
    )  # fmt: skip


@app.command()
@reads_images
def finetune(
    model: ModelName,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="What predicts the initial weights, or kaiming.",
            show_default="cifar10 for images in colour, else digits",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="W", help="Initial weights, in place of --init: FILE.safetensors, or a fine-tuning run."),
    ] = None,
    data: DataName = None,
    head: Head = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme", metavar="SCHEME", help="What to train through: float32, w8a8, w4a8, ..., or FILE.yaml."
        ),
    ] = "float32",
    epochs: Annotated[float | None, typer.Option(metavar="E", help="Passes over the images.", show_default="5")] = None,
    max_minutes: Annotated[float | None, typer.Option(metavar="M", help="Minutes of training, instead.")] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images of a step.")] = 128,
    lr: Annotated[str, typer.Option(metavar="X", help="Peak of the learning rate, or auto.")] = "auto",
    teacher: Annotated[
        str | None, typer.Option(metavar="W", help="Imitate a trained network: W, or MODEL@W of another model.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Order and augmentation of the images.")] = 0,
    device: Annotated[str, typer.Option(metavar="D", help="cpu, cuda or auto.")] = "auto",
    devices: Annotated[
        int | None, typer.Option(metavar="N", help="CUDA devices, or processes on the CPU.", show_default="1")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run is written.", show_default="runs/MODEL")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in DIR.")] = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Train one network from predicted weights, in float or through quantization as it will be deployed."""
    from ghnq.commands.finetune import finetune as run

    run(
        model, init=init, weights=weights, data=data, head=head, scheme=scheme, epochs=epochs, max_minutes=max_minutes,
        batch_size=batch_size, lr=lr, teacher=teacher, seed=seed, device=device, devices=devices, out=out,
        resume=resume, output=output, as_json=as_json,
    )  # fmt: skip


@app.command()
@reads_images
def verify(
    file: ExportedFile,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="digits, a directory, or a hub id.", show_default="the file's"),
    ] = None,
    images: Images = None,
    compiled: Compile = False,
    as_json: Json = False,
) -> None:
    """Compare a file on its runtime with its simulation, and show the kernels that it runs in."""
    from ghnq.commands.verify import verify as run

    run(file, data=data, images=images, compiled=compiled, as_json=as_json)


@app.command()
def profile(
    file: OnnxFile,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images in one run.")] = 1,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads of ONNX Runtime.")] = 1,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Timed runs.", show_default="about two seconds")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the costs and a page here.")] = None,
    as_json: Json = False,
) -> None:
    """Report the cost of a file (size, operations, memory, latency), compared with the network in float32."""
    from ghnq.commands.profile import profile as run

    run(file, batch=batch, threads=threads, repeats=repeats, out=out, as_json=as_json)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Result folders: of demo, evaluate, score, finetune, train, ..."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.html", help="The page to write.")] = Path(
        "report.html"
    ),
    as_json: Json = False,
) -> None:
    """Write results as one page to look at: figures, filters, tables; it opens without a network."""
    from ghnq.commands.report import report as run

    run(folders, out=out, as_json=as_json)


@app.command()
def draw(
    model: ModelName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write: .svg or .html.")],
    input_shape: InputShape = "3,32,32",
    output: Output = None,
) -> None:
    """Draw the graph that the hypernetwork gets of a model."""
    from ghnq.commands.draw import draw as run

    run(model, input_shape=input_shape, out=out, output=output)


@spaces.command("describe")
def spaces_describe(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="For example convnets.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The figure: .html; by default out/SPACE.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print how parameters, multiply-adds, depth and ops are distributed in each split, and save a figure."""
    from ghnq.commands.spaces import describe as run

    run(space, out=out, as_json=as_json)


@spaces.command("show")
def spaces_show(
    member: Annotated[str, typer.Argument(metavar="SPACE/SPLIT/INDEX", help="For example convnets/test/17.")],
    as_json: Json = False,
) -> None:
    """Show one architecture: its spec, its size, and what its graph is made of."""
    from ghnq.commands.spaces import show as run

    run(member, as_json=as_json)


@app.command("import")
def import_checkpoint(
    file: Annotated[str, typer.Argument(metavar="FILE.pt", help="A published GHN-1, GHN-2, GHN-3 or MLP.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the checkpoint is written.")],
    as_json: Json = False,
) -> None:
    """Turn a published hypernetwork into a checkpoint of ghnq."""
    from ghnq.commands.import_checkpoint import import_checkpoint as run

    run(file, out=out, as_json=as_json)


@app.command()
def checkpoints(as_json: Json = False) -> None:
    """List the checkpoints that come with ghnq."""
    from ghnq.commands.checkpoints import checkpoints as run

    run(as_json=as_json)
