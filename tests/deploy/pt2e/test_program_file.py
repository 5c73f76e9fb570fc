"""The .pt2 file: written whole or not at all; exports that are refused; files that would run code when loaded."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ghnq.deploy import Origin, export_program, load_program
from ghnq.deploy.pt2e.reader import read_program
from ghnq.errors import DataError, ExportError, GhnqError, NotFiniteError, SchemeError, WriteError
from ghnq.files import atomic_path
from tests.deploy.nets import CALIBRATION, TEST, chain
from tests.torch_versions import needs_program_files

pytestmark = needs_program_files

Records = dict[str, bytes]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("file") / "net.pt2"
    export_program(chain(), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    return out


def test_a_file_has_its_metadata(tmp_path: Path) -> None:
    module = chain()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    origin = Origin(model="chain", data="smooth noise", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    exported = export_program(module, "w4a8", calibration=CALIBRATION, out=tmp_path / "new" / "net.pt2", batch_size=32,
                              origin=origin)  # fmt: skip
    program, facts = load_program(exported.path)
    assert facts == exported.facts
    assert (facts.scheme, facts.protocol, facts.origin, facts.input_shape) == ("w4a8", "deploy", origin, (3, 8, 8))
    assert exported.opset is None
    assert exported.size == exported.path.stat().st_size
    assert [each.name for each in exported.path.parent.iterdir()] == ["net.pt2"]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    # As other programs read it.
    extra_files = {"ghnq.json": ""}
    with torch.no_grad():
        loaded = torch.export.load(exported.path, extra_files=extra_files).module()(TEST)
        torch.testing.assert_close(loaded, program.module()(TEST), rtol=0, atol=0)
    assert json.loads(extra_files["ghnq.json"])["ghnq.scheme"] == "w4a8"


def softplus() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Softplus())


def nan_weights() -> nn.Module:
    net = chain()
    net[2].weight.data[0] = torch.nan
    return net


@pytest.mark.parametrize(
    ("build", "options", "error", "says"),
    [
        (softplus, {}, ExportError, r"aten\.exp.*cannot be expressed"),
        (lambda: nn.Flatten(), {}, SchemeError, "no convolution or linear layer"),
        (nan_weights, {}, NotFiniteError, "'2'.*weight"),
        (chain, {"batch_size": 65}, DataError, "64 calibration images are fewer than one batch of 65"),
        (chain, {"calibration": CALIBRATION[:, :, :4]}, DataError, "cannot run"),
        (chain, {"calibration": torch.zeros(64, 3, 8, 8)}, SchemeError, "0 for every calibration image"),
        (chain, {"calibration": CALIBRATION * torch.inf}, DataError, "NaN or infinite"),
        (chain, {"scheme": "w4a12"}, SchemeError, "12 bits.*2 to 8"),
        (chain, {"out": "net.onnx"}, GhnqError, r"written as \.pt2"),
    ],
)
def test_refuses_and_leaves_no_file(
    tmp_path: Path, build: Callable[[], nn.Module], options: dict[str, Any], error: type[GhnqError], says: str
) -> None:
    arguments: dict[str, Any] = {"scheme": "w8a8", "calibration": CALIBRATION, "batch_size": 32, "out": "net.pt2"}
    arguments |= options
    with pytest.raises(error, match=says):
        export_program(build().eval(), **arguments | {"out": tmp_path / arguments["out"]})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.pt2"
    out.write_text("old")

    def full(self: Path, data: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"cannot be written \(disk full\)"):
        export_program(chain(), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    assert out.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["net.pt2"]


def rewritten(file: Path, out: Path, change: Callable[[Records], None], kind: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive with changed records."""
    with zipfile.ZipFile(file) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(records)
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return out


def in_json(record: str, change: Callable[[Any], None]) -> Callable[[Records], None]:
    """A change of one JSON record."""

    def apply(records: Records) -> None:
        name = next(name for name in records if name.endswith(record))
        value = json.loads(records[name])
        change(value)
        records[name] = json.dumps(value).encode()

    return apply


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sentinel,)


def trapped(sentinel: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Trap(sentinel), buffer)
    return buffer.getvalue()


def first_node(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"][0]


def a_pickled_weight(records: Records, sentinel: Path) -> None:
    def pickled(config: Any) -> None:
        payload = next(iter(config["config"].values()))
        payload["use_pickle"] = True
        records[f"net/data/weights/{payload['path_name']}"] = trapped(sentinel)

    in_json("model_weights_config.json", pickled)(records)


def a_pickled_example(records: Records, sentinel: Path) -> None:
    records[next(name for name in records if "sample_inputs" in name)] = trapped(sentinel)


def a_pickled_constant(records: Records, sentinel: Path) -> None:
    folder = next(iter(records)).partition("/")[0]
    records[f"{folder}/data/constants/opaque_obj_0"] = pickle.dumps(Trap(sentinel))
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    in_json("model_constants_config.json", lambda config: config["config"].update(x=payload))(records)


def an_evaluated_size(records: Records, sentinel: Path) -> None:
    def size(model: Any) -> None:
        code = f"__import__('pathlib').Path({str(sentinel)!r}).touch()"
        model["graph_module"]["graph"]["tensor_values"]["images"]["sizes"][0]["as_expr"]["expr_str"] = code

    in_json("models/model.json", size)(records)


def a_guard(records: Records, sentinel: Path) -> None:
    code = f"__import__('pathlib').Path({str(sentinel)!r}).touch()"
    in_json("models/model.json", lambda model: model["guards_code"].append(code))(records)


def another_function(records: Records, sentinel: Path) -> None:
    in_json("models/model.json", lambda model: first_node(model).update(target="torch.hub.load"))(records)


def an_unknown_record(records: Records, sentinel: Path) -> None:
    folder = next(iter(records)).partition("/")[0]
    records[f"{folder}/data/aotinductor/model/a.so"] = b"code"


def another_tree(records: Records, sentinel: Path) -> None:
    tree = '[1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]'
    calls = ("graph_module", "module_call_graph")
    in_json("models/model.json", lambda m: m[calls[0]][calls[1]][0]["signature"].update(out_spec=tree))(records)


ATTACKS = (a_pickled_weight, a_pickled_example, a_pickled_constant, an_evaluated_size, a_guard, another_function,
           an_unknown_record, another_tree)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_code_of_a_file_is_run(file: Path, tmp_path: Path, attack: Callable[[Records, Path], None]) -> None:
    sentinel = tmp_path / "ran"
    bad = rewritten(file, tmp_path / "net.pt2", lambda records: attack(records, sentinel))
    with pytest.raises(ExportError, match="damaged, or not as ghnq export writes it"):
        load_program(bad)
    assert not sentinel.exists()


@pytest.mark.filterwarnings("ignore")
def test_torch_runs_the_code_of_such_a_file(file: Path, tmp_path: Path) -> None:
    """The oracle: torch.export.load runs the code in one of these files."""
    sentinel = tmp_path / "ran"
    bad = rewritten(file, tmp_path / "net.pt2", lambda records: a_pickled_example(records, sentinel))
    try:
        torch.export.load(bad)
    except Exception as error:  # noqa: BLE001 - it may fail after the code has run
        print(error)
    assert sentinel.exists()


def test_refuses_files_of_other_programs(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    (tmp_path / "text.pt2").write_text("hello, this is text")
    (tmp_path / "empty.pt2").write_bytes(b"")
    (tmp_path / "cut.pt2").write_bytes(data[: len(data) // 2])
    at = data.index(b"weight_0") + 300  # inside the records: their checksums tell
    (tmp_path / "flipped.pt2").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with atomic_path(tmp_path / "foreign.pt2") as temporary:
        torch.export.save(torch.export.export(nn.ReLU(), (TEST[:2],), strict=False), temporary)
    rewritten(file, tmp_path / "zipped.pt2", lambda records: None, zipfile.ZIP_DEFLATED)
    facts = in_json("extra/ghnq.json", lambda facts: facts.update({"ghnq.input_shape": "[3, 8]"}))
    rewritten(file, tmp_path / "facts.pt2", facts)
    size = in_json("extra/ghnq.json", lambda facts: facts.update({"ghnq.input_shape": "[3, 9, 8]"}))
    rewritten(file, tmp_path / "size.pt2", size)
    limits = in_json("models/model.json", lambda m: first_node(m)["inputs"][3]["arg"].update(as_int=3))
    rewritten(file, tmp_path / "grid.pt2", limits)
    for name, says in (
        ("missing.pt2", "there is no file"),
        ("empty.pt2", "not a torch.export program"),
        ("text.pt2", "not a torch.export program"),
        ("cut.pt2", "not a torch.export program"),
        ("flipped.pt2", "damaged"),
        ("foreign.pt2", "was not written by ghnq export"),
        ("zipped.pt2", "was not written by ghnq export"),
        ("facts.pt2", "damaged metadata"),
        ("size.pt2", "takes images of batch x 3 x 8 x 8, its metadata say batch x 3 x 9 x 8"),
        ("grid.pt2", "not as ghnq writes it"),
    ):
        with pytest.raises(ExportError, match=says):
            read_program(load_program(tmp_path / name)[0], name)
