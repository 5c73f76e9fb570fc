"""Networks whose result is no tensor: the file has their logits, in both formats and on its runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from ghnq.deploy import export_onnx, export_program
from ghnq.deploy.onnx import runtime
from ghnq.deploy.pt2e.program_file import load_program
from ghnq.errors import OutputError
from tests.deploy.nets import CALIBRATION, TEST
from tests.output_nets import CLEAR, UNCLEAR, WithResult, plain
from tests.quant.nets import randomise
from tests.torch_versions import needs_program_files


def net(name: str) -> WithResult:
    return randomise(WithResult(CLEAR[name]), 1)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "scheme"), [*((name, "w8a8") for name in CLEAR), ("dataclass", "float32"), ("tuple", "w4a8")]
)
def test_onnx(name: str, scheme: str, tmp_path: Path) -> None:
    out, other = tmp_path / "net.onnx", tmp_path / "plain.onnx"
    exported = export_onnx(net(name), scheme, calibration=CALIBRATION, out=out, batch_size=64)
    export_onnx(plain(net(name)), scheme, calibration=CALIBRATION, out=other, batch_size=64)
    graphs = [onnx.load(file).graph for file in (out, other)]
    assert graphs[0].SerializeToString() == graphs[1].SerializeToString()
    logits = runtime.run(runtime.session(out.read_bytes()), TEST)
    assert torch.equal(logits.argmax(1), exported.simulation(TEST).argmax(1))
    assert torch.allclose(logits, exported.simulation(TEST), rtol=1e-4, atol=1e-5)


@needs_program_files
@pytest.mark.parametrize("name", CLEAR)
def test_programs(name: str, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    exported = export_program(net(name), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    program, _ = load_program(out)
    with torch.no_grad():
        loaded = program.module()(TEST)  # type: ignore[operator]
    assert torch.equal(loaded, exported.simulation(TEST))


def test_the_named_result_is_exported(tmp_path: Path) -> None:
    network = randomise(WithResult(UNCLEAR), 1)
    out = tmp_path / "net.onnx"
    with pytest.raises(OutputError, match=r"'first' \[N, 10\], 'second' \[N, 10\], 'map'.*--output NAME"):
        export_onnx(network, "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    with pytest.raises(OutputError, match=r"no tensor 'secnd' \(did you mean 'second'\?\)"):
        export_onnx(network, "w8a8", calibration=CALIBRATION, out=out, batch_size=64, output="secnd")
    logits = {}
    for name in ("first", "second"):
        export_onnx(network, "w8a8", calibration=CALIBRATION, out=out, batch_size=64, output=name)
        logits[name] = runtime.run(runtime.session(out.read_bytes()), TEST)
    assert torch.allclose(logits["first"], -logits["second"], atol=2e-2 * float(logits["first"].abs().max()))
    assert not torch.equal(logits["first"].argmax(1), logits["second"].argmax(1))


@pytest.mark.parametrize("result", [None, (), {"text": "x"}])
def test_results_without_tensors_are_refused(result: object, tmp_path: Path) -> None:
    network = WithResult(lambda f, m, y: result)
    with pytest.raises(OutputError, match="returns no tensor; it must return logits"):
        export_onnx(network, "w8a8", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64)
    assert list(tmp_path.iterdir()) == []


def test_numbers_beside_the_logits_are_left_out(tmp_path: Path) -> None:
    network = nn.Sequential(randomise(WithResult(lambda f, m, y: (1, y, "text", m.shape[0])), 1))
    out = tmp_path / "net.onnx"
    exported = export_onnx(network, "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    assert torch.allclose(
        runtime.run(runtime.session(out.read_bytes()), TEST), exported.simulation(TEST), rtol=1e-4, atol=1e-5
    )
