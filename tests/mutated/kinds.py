"""Reads damaged files of one kind in a process of its own: `python -m tests.mutated.kinds KIND COUNT SEED FOLDER`.

Every file must be read, or refused with a GhnqError; each may take 10 seconds, and the process 2 GB more than before.
It prints what went wrong, one line each. Whatever would run code or programs, unpickle by name, or open a connection
is noticed by an audit hook and ends the process.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch

from ghnq.errors import GhnqError
from tests.mutated.mutations import damaged

if TYPE_CHECKING:
    from ghnq.data import ImageDataset

Read = Callable[[bytes], object]
Damage = Callable[[random.Random], bytes]

SECONDS, BYTES = 10, 2 << 30
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)
ROOT = Path(__file__).parents[2]


class TooLongError(BaseException):
    """A file took more than its time."""


def recipe(folder: Path) -> tuple[Damage, Read]:
    """A training recipe."""
    from ghnq.training.recipe.recipe_file import load_recipe

    texts = [file.read_bytes() for file in sorted((ROOT / "recipes").glob("*.yaml"))]
    file = folder / "recipe.yaml"
    return (
        lambda rng: damaged(rng.choice(texts), rng, text=True),
        lambda data: (file.write_bytes(data), load_recipe(file)),
    )


def scheme(folder: Path) -> tuple[Damage, Read]:
    """A scheme file."""
    from ghnq.quant import load_scheme

    text = (
        b"scheme: w8a8\nprotocol: deploy\noverrides:\n  stem.conv: w4a8\n  'stage*.conv': w2\n"
        b"steps: [search_weights, squant]\nweight_range: mse\nfold: true\nabout: {note: 1.5, list: [a, b]}\n"
    )
    file = folder / "scheme.yaml"
    return lambda rng: damaged(text, rng, text=True), lambda data: (file.write_bytes(data), load_scheme(file))


def _small_checkpoint(folder: Path) -> Path:
    from ghnq.data import load
    from ghnq.hypernet import GHN, GHNConfig, Task

    digits = load("digits")
    torch.manual_seed(0)
    task = Task(data="digits", image_shape=digits.input_shape, mean=tuple(digits.mean.tolist()),
                std=tuple(digits.std.tolist()))  # fmt: skip
    GHN(GHNConfig(hidden=8, max_shape=(16, 16, 3, 3)), task=task).save_pretrained(folder / "tiny")
    return folder / "tiny"


def config(folder: Path) -> tuple[Damage, Read]:
    """`config.json` of a checkpoint."""
    from ghnq.hypernet import GHN

    checkpoint = _small_checkpoint(folder)
    text = (checkpoint / "config.json").read_bytes()

    def read(data: bytes) -> object:
        (checkpoint / "config.json").write_bytes(data)
        return GHN.from_pretrained(checkpoint)

    return lambda rng: damaged(text, rng, text=True), read


def weights(folder: Path) -> tuple[Damage, Read]:
    """The safetensors header of a checkpoint and of a file of weights."""
    from ghnq.hypernet import GHN
    from ghnq.prediction.stored_weights import StoredWeights

    checkpoint = _small_checkpoint(folder)
    file = checkpoint / "model.safetensors"
    model = file.read_bytes()
    end = 8 + int.from_bytes(model[:8], "little")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return damaged(model, rng, head=end)
        header = damaged(model[8:end], rng, text=True)  # with its right length
        return len(header).to_bytes(8, "little") + header + model[end:]

    def read(data: bytes) -> object:
        file.write_bytes(data)
        with suppress(GhnqError):
            StoredWeights.read(file).check_module(module)
        return GHN.from_pretrained(checkpoint)

    return damage, read


def ledger(folder: Path) -> tuple[Damage, Read]:
    """Rows of an interrupted evaluation."""
    from ghnq.evaluation.ledger import FILE, Ledger
    from ghnq.evaluation.results import Results
    from tests.evaluation.conftest import row

    about, machine = (
        {"checkpoint_hash": "abc", "seed": 0, "versions": {"torch": "2"}},
        {"processor": "one", "vnni": False},
    )
    with Ledger(folder, about, machine) as kept:  # type: ignore[arg-type]
        for index in range(4):
            kept.add([row(index=index), row(index=index, scheme="w8a8")])
    text = (folder / FILE).read_bytes()

    def read(data: bytes) -> object:
        (folder / FILE).write_bytes(data)
        with Ledger(folder, about, machine) as kept:  # type: ignore[arg-type]
            kept.add([row(index=9)])
            rows = [kept[key] for key in list(kept._rows)]
            kept.machines(list(kept._rows))
        return Results.from_rows(rows, {}).summary_rows()

    return lambda rng: damaged(text, rng, text=True), read


def onnx_file(folder: Path) -> tuple[Damage, Read]:
    """An exported ONNX file, read, run and compared as `ghnq verify` does."""
    import onnx

    from ghnq.data import load
    from ghnq.deploy import export_onnx, verify

    digits = load("digits")
    file = folder / "net.onnx"
    _export(export_onnx, digits, file)
    data = file.read_bytes()
    model = onnx.load_from_string(data)

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return damaged(data, rng)
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        part = rng.choice(("metadata", "node", "initializer", "attribute", "graph"))
        if part == "metadata":
            entry = rng.choice(changed.metadata_props)
            entry.value = damaged(entry.value.encode(), rng, text=True).decode("utf-8", errors="replace")
            return changed.SerializeToString()
        if part == "attribute":
            nodes = [node for node in changed.graph.node if node.attribute]
            attribute = rng.choice(rng.choice(nodes).attribute)
            values = attribute.ints if attribute.ints else None
            number = rng.choice((-1, 0, 1, 2, 7, 2**31, -(2**63), 2**62))
            if values is not None:
                values[rng.randrange(len(values))] = number
            else:
                attribute.i = number
            return changed.SerializeToString()
        if part == "graph":
            nodes = changed.graph.node
            one, two = rng.choice(nodes), rng.choice(nodes)
            if one.input and two.output:
                one.input[rng.randrange(len(one.input))] = rng.choice((two.output[0], "", "images"))
            return changed.SerializeToString()
        items = changed.graph.node if part == "node" else changed.graph.initializer
        position = rng.randrange(len(items))
        piece = damaged(items[position].SerializeToString(), rng)
        try:
            items[position].ParseFromString(piece)
        except Exception:  # noqa: BLE001 - not a message any more
            return data[:100] + piece
        return changed.SerializeToString()

    def read(changed: bytes) -> object:
        file.write_bytes(changed)
        return verify(file, digits, images=8)

    return damage, read


def _export(export: Callable[..., object], digits: ImageDataset, file: Path) -> None:
    """Writes a small network at w4a8."""
    from ghnq.deploy import Origin

    origin = Origin(model="m", data="digits", mean=tuple(digits.mean.tolist()), std=tuple(digits.std.tolist()))
    network = _small_network()  # seeds the calibration images, too
    calibration = torch.randn(64, *digits.input_shape)
    export(network, "w4a8", calibration=calibration, out=file, batch_size=64, origin=origin)


def _small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, stride=2, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 10),
    )  # fmt: skip


def program(folder: Path) -> tuple[Damage, Read]:
    """An exported .pt2 file, read, run and compared as `ghnq verify` does."""
    from ghnq.data import load
    from ghnq.deploy import export_program, verify_program

    digits = load("digits")
    file = folder / "net.pt2"
    _export(export_program, digits, file)
    data = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return damaged(data, rng)
        name = rng.choice(sorted(records))
        if rng.random() < 0.6:
            name = next(each for each in records if each.endswith("model.json"))
        text = name.endswith(".json") or "extra" in name
        piece = damaged(records[name], rng, text=text)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as changed:
            for each, content in records.items():
                changed.writestr(each, piece if each == name else content)
        return buffer.getvalue()

    def read(changed: bytes) -> object:
        file.write_bytes(changed)
        return verify_program(file, digits, images=8)

    return damage, read


def parquet(folder: Path) -> tuple[Damage, Read]:
    """A folder of parquet files with images."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from ghnq.data import load

    pixels = np.random.default_rng(0)

    def encoded(kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, kind)
        return buffer.getvalue()

    def table(items: list[bytes]) -> bytes:
        rows = [{"bytes": item, "path": None} for item in items]
        buffer = io.BytesIO()
        pq.write_table(pa.table({"img": rows, "label": [index % 2 for index in range(len(rows))]}), buffer)
        return buffer.getvalue()

    images = [encoded(kind) for kind in ("PNG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PNG")]
    whole = table(images)
    base = folder / "data"
    (base / "data").mkdir(parents=True)
    test = base / "data" / "test-00000-of-00001.parquet"
    (base / "data" / "train-00000-of-00001.parquet").write_bytes(whole)

    def damage(rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return damaged(whole, rng)
        position = rng.randrange(len(images))
        return table([damaged(each, rng) if index == position else each for index, each in enumerate(images)])

    def read(changed: bytes) -> object:
        test.write_bytes(changed)
        return load(base)

    return damage, read


KINDS: dict[str, Callable[[Path], tuple[Damage, Read]]] = {
    "recipe": recipe, "scheme": scheme, "config": config, "weights": weights, "ledger": ledger, "onnx": onnx_file,
    "pt2": program, "parquet": parquet,
}  # fmt: skip


def _time_out(number: int, frame: FrameType | None) -> None:
    raise TooLongError


def main(kind: str, count: int, seed: int, folder: Path) -> int:
    """Reads `count` damaged files; returns how many were neither read nor refused."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    damage, read = KINDS[kind](folder)
    warnings.simplefilter("ignore")
    forbidden = list[str]()

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in _FORBIDDEN:
            forbidden.append(f"{event} {str(arguments)[:200]}")

    sys.addaudithook(audit)
    signal.signal(signal.SIGALRM, _time_out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong, accepted, slowest = 0, 0, 0.0
    for number in range(count):
        data = damage(random.Random(f"{kind} {seed} {number}"))
        (folder / "current").write_text(str(number))  # for a crash of the whole process
        start, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fault = ""
        signal.alarm(SECONDS)
        try:
            read(data)
            accepted += 1
        except GhnqError:
            pass
        except TooLongError:
            fault = "took too long\n" + traceback.format_exc()
        except BaseException:  # noqa: BLE001 - the fault that is looked for
            fault = traceback.format_exc()
        finally:
            signal.alarm(0)
        seconds = time.monotonic() - start
        slowest = max(slowest, seconds)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
        if grown > BYTES:
            fault += f"took {grown >> 20} MB of memory"
        if forbidden:
            fault += f"forbidden: {forbidden}"
            forbidden.clear()
        if fault:
            wrong += 1
            print(json.dumps({"number": number, "fault": fault}), flush=True)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    told = {"kind": kind, "count": count, "accepted": accepted, "wrong": wrong, "slowest_s": round(slowest, 2)}
    print(json.dumps(told | {"memory_mb": used}), flush=True)
    return min(wrong, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
