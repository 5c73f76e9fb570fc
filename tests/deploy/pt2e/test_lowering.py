"""The program on x86: which layers get integer kernels, what saturates, and what torch.compile computes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx

from ghnq.data import ImageDataset, Images
from ghnq.deploy import Origin, comparison, compiled, export_program, load_program, lower, verify_program
from ghnq.deploy import parity as parity_module
from ghnq.deploy.graph.kernel_counts import KernelCounts
from ghnq.deploy.pt2e import lowering
from ghnq.deploy.pt2e.lowering import Lowered
from ghnq.errors import DataError, ExportError, MissingExtraError
from ghnq.processor import Processor, this_processor
from ghnq.torch_compat import compiler_error
from tests.deploy.nets import CALIBRATION, NETS, TEST, chain
from tests.torch_versions import needs_program_files

pytestmark = needs_program_files

WITHOUT, WITH = Processor("old", (), False, True), Processor("new", (), True, True)


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("lowering") / "net.pt2"
    export_program(NETS["branches"](), "w8a8", calibration=CALIBRATION, out=out, batch_size=64)
    return out


@pytest.fixture(scope="module")
def file(dataset: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of 7-bit weights, for those images."""
    out: Path = tmp_path_factory.mktemp("parity") / "net.pt2"
    origin = Origin(mean=tuple(dataset.mean.tolist()), std=tuple(dataset.std.tolist()))
    export_program(chain(), "w7a8", calibration=dataset.calibration(64, 0), out=out, batch_size=64, origin=origin)
    return out


@pytest.mark.parametrize(
    ("processor", "exact", "saturating", "integer", "floating"),
    [
        (WITH, True, False, 6, 0),
        pytest.param(WITHOUT, False, True, 6, 0, marks=pytest.mark.slow),
        (WITHOUT, True, True, 1, 5),
    ],
)
def test_layers_get_integer_kernels_unless_they_would_saturate(
    branches: Path, monkeypatch: pytest.MonkeyPatch, processor: Processor, exact: bool, saturating: bool,
    integer: int, floating: int,
) -> None:  # fmt: skip
    """Four convolutions, one of them depthwise, and two linear layers, all with 8-bit weights."""
    monkeypatch.setattr(lowering, "this_processor", lambda: processor)
    lowered = lower(load_program(branches)[0], TEST[:8], exact=exact)
    assert (
        set(lowered.saturating) == {"stem", "right", "gate", "hidden", "head"} if saturating else not lowered.saturating
    )
    assert sum(lowered.kernels.integer.values()) == integer
    assert len(lowered.kernels.float_layers) == floating
    assert floating == 0 or set(lowered.kernels.float_layers) == set(lowered.saturating)


def test_float_layers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "this_processor", lambda: WITH)
    for name, scheme, layers in (
        ("branches", "w8a8+left=float32+head=float32", ("left", "head")),
        ("chain", "w4", ("0", "2", "5")),
    ):
        exported = export_program(NETS[name](), scheme, calibration=CALIBRATION, out=tmp_path / f"{name}.pt2",
                                  batch_size=64)  # fmt: skip
        assert lower(load_program(exported.path)[0], TEST[:8]).kernels.float_layers == layers


def test_narrow_weights_never_saturate(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "this_processor", lambda: WITHOUT)
    lowered = lower(load_program(file)[0], TEST[:8])
    assert lowered.saturating == ()
    assert lowered.kernels.integer == {"onednn.qconv_pointwise": 2, "onednn.qlinear_pointwise": 1}
    assert lowered.kernels.float_layers == ()


def test_onednn_saturates_only_where_it_is_expected() -> None:
    """One channel and ±64 are exact on every processor; 127 in two channels only with VNNI."""

    def error(channels: int, groups: int, value: int) -> float:
        weight = torch.full((channels, channels // groups, 3, 3), value, dtype=torch.int8)
        images = torch.full((1, channels, 8, 8), 255, dtype=torch.uint8)
        ones, zeros = torch.ones(channels), torch.zeros(channels, dtype=torch.int64)
        shape = [1, 1], [1, 1], [1, 1], groups
        packed = torch.ops.onednn.qconv_prepack(weight, ones, 1.0, 0, *shape, None)
        sums = torch.ops.onednn.qconv_pointwise(
            images.contiguous(memory_format=torch.channels_last), 1.0, 0, packed, ones, zeros, None, *shape,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        exact = torch.nn.functional.conv2d(images.double(), weight.double(), padding=1, groups=groups)
        return (sums.double() - exact).abs().max().item()

    assert error(16, 1, 64) == error(16, 16, 127) == error(1, 1, 127) == 0
    if this_processor().saturates is not None:
        assert (error(16, 1, 127) > 0) is this_processor().saturates


def test_reports_the_loaded_program(file: Path, dataset: ImageDataset) -> None:
    parity = verify_program(file, dataset)
    assert (parity.images, parity.eager.agreement, parity.compiled) == (60, 1.0, None)
    assert parity.eager.accuracy == parity.accuracy_simulation
    assert parity.eager.largest_difference < 1e-4
    assert parity.document()["facts"]["scheme"] == "w7a8"
    assert verify_program(file, dataset, images=10).images == 10


def test_compilation_changes_no_logits(file: Path, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of one size, the last of them filled up."""
    monkeypatch.setattr(comparison, "BATCH_SIZE", 25)
    found = verify_program(file, dataset, compile=True).compiled
    assert found is not None
    assert (found.agreement, found.saturating, found.exact) == (1.0, (), True)
    assert found.largest_difference < 1e-4
    assert found.kernels.integer == {"onednn.qconv_pointwise": 2, "onednn.qlinear_pointwise": 1}


def test_finds_a_compiler_that_computes_something_else(
    file: Path, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(program: object, images: Tensor, *, exact: bool) -> Lowered:
        return Lowered(fx.symbolic_trace(torch.nn.Identity()), KernelCounts({}, {}, {}, ()), ())

    monkeypatch.setattr(parity_module, "lower", broken)
    monkeypatch.setattr(parity_module, "compiled", lambda lowered, images: lambda x: x.flatten(1)[:, :10])
    found = verify_program(file, dataset, compile=True).compiled
    assert found is not None
    assert found.agreement < 0.5
    assert found.largest_difference_steps is not None
    assert found.largest_difference_steps > 1


def test_a_missing_compiler_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise compiler_error()

    monkeypatch.setattr(lowering, "cpp_compiler", absent)
    nothing = Lowered(fx.symbolic_trace(torch.nn.Identity()), KernelCounts({}, {}, {}, ()), ())
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler"):
        compiled(nothing, TEST)


def test_a_missing_torchao_is_named_with_its_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ghnq\[export\]'"):
        lower(load_program(file)[0], TEST)


def test_refuses_images_of_another_shape(file: Path, dataset: ImageDataset) -> None:
    wide = Images(torch.zeros(20, 3, 8, 9, dtype=torch.uint8), torch.arange(20) % 10)
    other = ImageDataset.build("wide", wide, wide, dataset.class_names, flip=False)
    with pytest.raises(DataError, match=r"3x8x8.*3x8x9"):
        verify_program(file, other)
