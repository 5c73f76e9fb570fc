"""`ghnq finetune`: one network trained on from predicted weights, in float or through quantization."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.markup import escape
from torch import nn

from ghnq.commands.load_network import build_network
from ghnq.commands.options import check_folder
from ghnq.commands.report import write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import ChosenWeights, choose_weights
from ghnq.data import ReadOptions, load, reading
from ghnq.data.read_options import current
from ghnq.errors import DataError, GhnqError, GhnqWarning, nearest
from ghnq.finetune import Job, Result, Settings
from ghnq.finetune import finetune as train_network
from ghnq.finetune.follow import follow
from ghnq.finetune.kaiming import KaimingWeights
from ghnq.models import load_model
from ghnq.prediction import Network, StoredWeights
from ghnq.prediction.held_out import hold_out
from ghnq.prediction.stored_weights import weights_file
from ghnq.quant import QuantScheme, dump_scheme, is_scheme_file, read_scheme
from ghnq.recorded_names import file_name, model_name
from ghnq.report.graph_file import write_graphs
from ghnq.runs.command_record import record_command
from ghnq.runs.distributed.launch import start_workers
from ghnq.runs.distributed.topology import arrange_processes
from ghnq.runs.distributed.worker_group import WorkerGroup
from ghnq.runs.interrupt import Interrupted, SignalHandler

KAIMING = "kaiming"
FLOAT32 = QuantScheme.parse("float32")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class _Options:
    """What is given on the command line, and what every process of a run builds its network from."""

    model: str
    init: str | None
    weights: Path | None
    data: str | None
    head: str | None
    scheme: str
    teacher: str | None
    output: str | None
    settings: Settings
    read_options: ReadOptions

    def load(self) -> tuple[Network, Job, QuantScheme, nn.Module | None]:
        """Returns the network, the job, the scheme, and the teacher."""
        parsed = read_scheme(self.scheme)
        with reading(self.read_options):  # also in processes that did not see the command line
            network, chosen = _load(self.model, self.init, self.weights, self.data, self.head, self.output)
        teacher = None if self.teacher is None else _teacher(self.teacher, network)
        kaiming = chosen.name == KAIMING and chosen.option == "init"
        job = Job(
            model=model_name(self.model),
            origin=(chosen.option, KAIMING if kaiming else chosen.recorded_name),
            origin_sha256=None if kaiming else chosen.sha256,
            scheme=file_name(self.scheme) if is_scheme_file(self.scheme) else self.scheme,
            scheme_content=dump_scheme(parsed),
            data=network.dataset.name,
            data_sha256=network.dataset.content_hash,
            read_options=str(network.dataset.read_options) or "no option",
            head=chosen.head,
            teacher=None if self.teacher is None else _teacher_name(self.teacher),
            teacher_sha256=None if self.teacher is None else _teacher_sha256(self.teacher),
            output=self.output,
            settings=_with_possible_batch(self.settings, network),
        )
        return network, job, parsed, teacher


def finetune(
    model: str,
    *,
    init: str | None,
    weights: Path | None,
    data: str | None,
    head: str | None,
    scheme: str,
    epochs: float | None,
    max_minutes: float | None,
    batch_size: int,
    lr: str,
    teacher: str | None,
    seed: int,
    device: str,
    devices: int | None,
    out: Path | None,
    resume: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Trains `model` and writes its weights into `out`; signal n gives exit code 128 + n."""
    settings = Settings(
        epochs=epochs, max_minutes=max_minutes, batch_size=batch_size, lr=_parse_lr(lr), seed=seed
    )  # fmt: skip
    options = _Options(model, init, weights, data, head, scheme, teacher, output, settings, current())
    folder = out or Path("runs") / _slug(model)
    check_folder(folder)
    topology = arrange_processes(device=_parse_device(device), devices=devices)
    with Terminal(as_json=as_json) as terminal:
        network, job, parsed, imitated = options.load()
        group = start_workers(topology, _follow, options)
        try:
            if not group.is_first:
                with SignalHandler():  # torchrun signals all processes; the first one decides
                    follow(network, job, parsed, imitated, group)
                return
            result = train_network(
                network, job, parsed, out=folder, resume=resume, teacher=imitated, group=group,
                console=terminal.progress,
            )  # fmt: skip
        except Interrupted as stop:
            record_command(folder, sys.argv)
            terminal.progress.print(
                f"Interrupted; the run is saved. Go on with: {_resume_command(sys.argv)}", soft_wrap=True
            )
            raise SystemExit(128 + stop.signal) from stop
        finally:
            group.close()
        write_graphs(folder, {job.model: network.graph})
        page = write_folder_page(folder, terminal)
        command = _export_command(model, folder, scheme, data, output)
        terminal.finish(
            result.document() | {"export_command": command, "warnings": terminal.warnings},
            result.table(),
            _about(result),
            f"weights: [cyan]{result.weights}[/]",
            f"page: [cyan]{page}[/]",
            f"export it with: {escape(command)}",
        )


def _resume_command(words: list[str]) -> str:
    """Returns the command that resumes the run that these words have started."""
    return shlex.join(["ghnq", *(word for word in words[1:] if word != "--resume"), "--resume"])


def _follow(group: WorkerGroup, options: _Options) -> None:
    """Runs in every process that the first one has started."""
    network, job, scheme, teacher = options.load()
    follow(network, job, scheme, teacher, group)


def _load(
    model: str, init: str | None, weights: Path | None, data: str | None, head: str | None, output: str | None
) -> tuple[Network, ChosenWeights]:
    """Returns the network with its initial weights, and where these come from."""
    if weights is not None and init is not None:
        raise GhnqError(f"--init {init} and --weights {weights} are two sets of initial weights; give one of them")
    if weights is None and init == KAIMING:
        if head is not None:
            raise GhnqError("--head is for predicted weights, not for --init kaiming: leave it out")
        if data is None:
            raise DataError("--init kaiming does not say which images to train on; name a data set with --data")
        chosen = ChosenWeights(KaimingWeights(), load(data), "init", KAIMING)
    else:
        predicted_by = None if weights is not None else init or _default_init(data)
        chosen = choose_weights(predicted_by, weights, data, head, output)
    return build_network(model, chosen, output=output), chosen


def _with_possible_batch(settings: Settings, network: Network) -> Settings:
    """Returns the settings with batches of at most the images that there are to train with."""
    images = len(hold_out(network.dataset)[0].train)
    if settings.batch_size <= images:
        return settings
    warnings.warn(
        f"'{network.dataset.name}' has {images} images to train with: a batch has these, not {settings.batch_size}",
        GhnqWarning,
        stacklevel=2,
    )
    return replace(settings, batch_size=images)


def _default_init(data: str | None) -> str:
    """Returns the shipped checkpoint for images with as many channels; without a data set, the smallest checkpoint."""
    return "digits" if data is None or load(data).input_shape[0] == 1 else "cifar10"


def _teacher(reference: str, network: Network) -> nn.Module:
    """Returns the network of `MODEL@W`, or of `W` for the model that is trained, in float."""
    model, at, file = reference.rpartition("@")
    dataset = network.dataset
    shape, classes = dataset.input_shape, dataset.num_classes
    module = load_model(model, input_shape=shape, num_classes=classes) if at else network.module
    weights = StoredWeights.read(Path(file))
    output = None if at else network.output
    return Network(module, weights, dataset, network.calibration, output).prepared(FLOAT32).network


def _teacher_name(reference: str) -> str:
    """Returns `MODEL@W` or `W` without folders."""
    model, at, file = reference.rpartition("@")
    return f"{model_name(model)}@{file_name(file)}" if at else file_name(file)


def _teacher_sha256(reference: str) -> str:
    return hashlib.sha256(weights_file(Path(reference.rpartition("@")[2])).read_bytes()).hexdigest()


def _parse_lr(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise GhnqError(f"--lr '{text}' is not a number; give a positive number, or auto") from None


def _parse_device(text: str) -> Literal["auto", "cpu", "cuda"]:
    for device in DEVICES:
        if text == device:
            return device  # type: ignore[return-value]
    raise GhnqError(f"there is no device '{text}'{nearest(text, DEVICES)}; devices are {', '.join(DEVICES)}")


def _slug(model: str) -> str:
    """Returns a folder name for a model: `convnets/test/8` -> `convnets-test-8`, `my/net.py:Net` -> `net-Net`."""
    name = Path(model).name.replace(".py:", "-") if ".py:" in model else model
    return re.sub(r"[^\w.]+", "-", name)


def _about(result: Result) -> str:
    return (
        f"{result.steps} steps ({result.epochs:.1f} epochs) in {result.seconds / 60:.1f} min, "
        f"learning rate up to {result.lr:.3g}"
    )


def _export_command(model: str, folder: Path, scheme: str, data: str | None, output: str | None) -> str:
    command = ["ghnq", "export", model, "--weights", str(folder), "--scheme", scheme]
    command += ["--data", data] if data else []
    command += current().words()
    command += ["--output", output] if output else []
    return shlex.join([*command, "--out", "model.onnx"])
