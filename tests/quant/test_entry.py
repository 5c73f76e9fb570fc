"""What `quantize` and `export_*` take besides float32 networks of plain layers: half precision, computed weights,
wrappers. The oracle is the same network written out in plain layers, in float32."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import ghnq
from ghnq.deploy import export_onnx
from ghnq.deploy.onnx import runtime
from ghnq.errors import DataError, GhnqError, GhnqWarning, SchemeError
from ghnq.quant import QuantScheme, correct_bias, equalize, estimate_batch_norm, fold_batch_norm, quantize
from tests.quant.nets import images, quant_layers, randomise
from tests.small_networks import small_ghn

CALIBRATION, TEST = images(64), images(32, seed=2)


def net(first: nn.Module | None = None, second: nn.Module | None = None) -> nn.Sequential:
    """Two convolutions with norms, and a linear layer."""
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    randomise(made)
    if first is not None:
        made[0] = first
    if second is not None:
        made[3] = second
    return made.eval()


def run(network: nn.Module, x: Tensor = TEST) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(network(x))


def in_runtime(network: nn.Module, scheme: str, folder: Path) -> Tensor:
    file = export_onnx(network, scheme, calibration=CALIBRATION, out=folder / "net.onnx", batch_size=64)
    return runtime.run(runtime.session(file.path.read_bytes()), TEST)


# Half precision ----------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["float32", "w8a8", "w4a8", "w2a8", "w16a16"])
@pytest.mark.parametrize("images_dtype", [torch.float32, torch.float16])
def test_half_precision_equals_the_same_values_in_float32(
    dtype: torch.dtype, scheme: str, images_dtype: torch.dtype
) -> None:
    given = net()
    with torch.no_grad():
        given[0].weight.mul_(0.005 / given[0].weight.abs().max())  # type: ignore[operator, union-attr]
    given = given.to(dtype)
    calibration = CALIBRATION.to(images_dtype)
    expected = quantize(copy.deepcopy(given).float(), scheme, calibration=calibration.float())
    simulated = quantize(given, scheme, calibration=calibration)
    assert {tensor.dtype for tensor in simulated.parameters()} == {torch.float32}
    assert torch.equal(run(simulated), run(expected))
    assert torch.equal(run(simulated, TEST.half()), run(expected, TEST.half().float()))
    assert {p.dtype for p in given.parameters()} == {dtype}
    for name, layer in quant_layers(simulated):
        assert layer.weight.count_nonzero() > (0 if scheme == "w2a8" else 0.3) * layer.weight.numel(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_the_exported_file(dtype: torch.dtype, tmp_path: Path) -> None:
    given = net().to(dtype)
    (tmp_path / "expected").mkdir()
    expected = in_runtime(copy.deepcopy(given).float(), "w8a8", tmp_path / "expected")
    assert torch.equal(in_runtime(given, "w8a8", tmp_path), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_every_function(dtype: torch.dtype) -> None:
    given, same = net().to(dtype), net().to(dtype).float()
    x = CALIBRATION.to(dtype)
    for function in (
        lambda module: estimate_batch_norm(module, x),
        lambda module: fold_batch_norm(module, images=x[:2]),
        lambda module: equalize(module, x),
    ):
        assert torch.equal(run(function(given)), run(function(same)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_as_reference_of_bias_correction(dtype: torch.dtype) -> None:
    given, x = fold_batch_norm(net(), images=CALIBRATION).to(dtype), CALIBRATION.to(dtype)
    quantized = quantize(given, "w4a8", calibration=x)
    expected = correct_bias(quantized, copy.deepcopy(given).float(), x.float())
    assert torch.equal(run(correct_bias(quantized, given, x)), run(expected))


@pytest.mark.parametrize("estimator", ["minmax", "percentile", "mse"])
def test_scales_of_half_precision_are_float32(estimator: str) -> None:
    x = torch.randn(8, 27, generator=torch.Generator().manual_seed(0)).half() * 1e-3
    scheme = QuantScheme.parse("w8a8", weight_range=estimator)
    y = ghnq.quant.fake_quantize_weight(x, 8, scheme)
    assert y.dtype == torch.float16
    assert torch.equal(y, ghnq.quant.fake_quantize_weight(x.float(), 8, scheme).half())
    z = ghnq.quant.fake_quantize_activation(x, 8, estimator)  # type: ignore[arg-type]
    assert torch.equal(z, ghnq.quant.fake_quantize_activation(x.float(), 8, estimator).half())  # type: ignore[arg-type]


def test_a_float64_network_takes_float32_images() -> None:
    simulated = quantize(net().double(), "w8a8", calibration=CALIBRATION)
    assert torch.equal(run(simulated), run(simulated, TEST.double()))


# Computed weights ----------------------------------------


class Centred(nn.Conv2d):
    """Overrides what its own forward calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Standardised(nn.Conv2d):
    """Weight standardisation in forward, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class PadsFirst(Standardised):
    """Pads one side more than the other, as TensorFlow does, through a module of its own."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.pad = nn.ZeroPad2d((0, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


class Reflected(Centred):
    """A padding mode that a convolution applies before it calls the function."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, padding=1, padding_mode="reflect")  # type: ignore[misc]


class ByBatchNorm(nn.Conv2d):
    """Weight standardisation by a batch norm of the weight, with a gain, as in NFNets."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.gain = nn.Parameter(torch.linspace(0.5, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        flat = F.batch_norm(self.weight.view(1, 8, -1), None, None, weight=self.gain * 0.2, training=True, momentum=0.0)
        return F.conv2d(x, flat.view_as(self.weight), self.bias, stride=self.stride)


class Equalized(nn.Module):
    """A learning rate equalized by a factor; no convolution layer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel * (2 / 27) ** 0.5)


def pruned_twice(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.4)
    prune.random_unstructured(layer, "bias", 0.3)
    return prune.ln_structured(layer, "weight", 0.3, n=2, dim=0)  # type: ignore[no-any-return]


class Tanh(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer)


def parametrized(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Tanh())
    parametrize.register_parametrization(layer, "bias", Tanh())
    return layer


def conv(kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Module:
    return randomise(kind(3, 8, 3), 5)


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: parametrizations.weight_norm(conv()),
    "spectral norm": lambda: parametrizations.spectral_norm(conv()),
    "old weight norm": lambda: old_weight_norm(conv()),
    "old spectral norm": lambda: torch.nn.utils.spectral_norm(conv()),
    "parametrization": lambda: parametrized(conv()),
    "pruning": lambda: pruned_twice(conv()),
    "_conv_forward": lambda: conv(Centred),
    "standardised": lambda: conv(Standardised),
    "batch norm of the weight": lambda: randomise(ByBatchNorm(), 5),
    "equalized": Equalized,
}


def constant(layer: nn.Module) -> nn.Conv2d:
    """The plain convolution that a layer is in eval mode, read off its outputs for the unit vectors of its input."""
    layer = layer.eval()
    plain = nn.Conv2d(3, 8, 3)
    units = torch.eye(27).view(27, 3, 3, 3)
    with torch.no_grad():
        bias = layer(torch.zeros(1, 3, 3, 3)).view(8)
        plain.weight.copy_((layer(units).view(27, 8) - bias).T.view(8, 3, 3, 3))
        plain.bias.copy_(bias)  # type: ignore[union-attr]
    return plain


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("has_run", [False, True])
def test_computed_weights_are_constants(name: str, has_run: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = COMPUTED[name]()
    given = net(layer)
    if has_run:
        given.train()(CALIBRATION)  # with gradients
    names = [n for n, _ in given.named_parameters()]
    before = [p.detach().clone() for p in given.parameters()]
    for scheme in ("float32", "w8a8", "w4a8"):
        simulated = quantize(given, scheme, calibration=CALIBRATION)
        expected = run(quantize(net(constant(layer)), scheme, calibration=CALIBRATION))
        # A weight at a tie may be rounded the other way, as the oracle's weights differ in their last bits.
        limit = 1e-4 if scheme == "float32" else 0.02
        assert float((run(simulated) - expected).abs().max()) < limit * float(expected.abs().max())
        assert isinstance(simulated[1], nn.Identity)  # type: ignore[index]
        assert [n for n, _ in quant_layers(simulated)] == ([] if scheme == "float32" else ["0", "3", "8"])
    logits = in_runtime(given, "w8a8", tmp_path)
    eight = run(quantize(given, "w8a8", calibration=CALIBRATION))
    assert float((logits - eight).abs().max()) < 0.02 * float(eight.abs().max())
    assert [n for n, _ in given.named_parameters()] == names
    assert all(map(torch.equal, before, given.parameters()))


@pytest.mark.parametrize(("kind", "mode"), [(PadsFirst, "constant"), (Reflected, "reflect")])
def test_padding_before_the_convolution_stays(kind: type[nn.Conv2d], mode: str, tmp_path: Path) -> None:
    given = net(conv(kind))
    plain = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        plain.weight.copy_(constant(conv(Standardised if mode == "constant" else Centred)).weight)
        plain.bias.copy_(given[0].bias)  # type: ignore[union-attr, arg-type]
    pad = nn.ZeroPad2d((0, 1, 1, 2)) if mode == "constant" else nn.ReflectionPad2d(1)
    written_out = net(nn.Sequential(pad, plain))
    for scheme in ("float32", "w8a8"):
        expected = run(quantize(written_out, scheme, calibration=CALIBRATION))
        simulated = quantize(given, scheme, calibration=CALIBRATION)
        limit = (1e-4 if scheme == "float32" else 0.02) * float(expected.abs().max())
        assert float((run(simulated) - expected).abs().max()) < limit
        assert isinstance(simulated[1], nn.Identity)  # type: ignore[index]
    if mode == "constant":
        assert float((in_runtime(given, "w8a8", tmp_path) - expected).abs().max()) < limit


@pytest.mark.parametrize("name", ["weight norm", "old weight norm", "spectral norm", "pruning", "standardised"])
@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.filterwarnings("ignore:.*own the parameter:ghnq.errors.GhnqWarning")
def test_predicted_parameters_are_kept_and_quantized(name: str, has_run: bool) -> None:
    given = net(COMPUTED[name]())
    if has_run:
        given(CALIBRATION)
    predicted = ghnq.initialize(given, small_ghn(), (3, 16, 16))
    assert [n for n, _ in predicted.named_parameters()] == [n for n, _ in given.named_parameters()]
    in_float = run(quantize(predicted, "float32", calibration=CALIBRATION))
    eight = run(quantize(predicted, "w8a8", calibration=CALIBRATION))
    assert 0 < float((eight - in_float).abs().max()) < 0.1 * float(in_float.abs().max())
    estimated = run(estimate_batch_norm(predicted, CALIBRATION))
    torch.testing.assert_close(in_float, estimated, rtol=1e-3, atol=1e-4 * float(estimated.abs().max()))


class WithHook(nn.Conv2d):
    """A user's hook computes the weight anew in each run."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.original = self.weight
        del self.weight
        self.register_forward_pre_hook(lambda layer, args: setattr(layer, "weight", layer.original * 2))


def test_weights_that_are_no_constants_are_refused_by_name() -> None:
    with pytest.raises(SchemeError, match="conv2d in '0': its weight is computed"):
        quantize(net(WithHook()), "w8a8", calibration=CALIBRATION)


# What is refused, and what is unwrapped ----------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("function", ["trace", "initialize", "quantize", "prepare", "export_onnx", "export_program",
                                      "fold_batch_norm", "equalize", "estimate_batch_norm"])  # fmt: skip
def test_one_entry_check(function: str, tmp_path: Path) -> None:
    calls: dict[str, Callable[[nn.Module], object]] = {
        "trace": lambda module: ghnq.trace(module, (3, 16, 16)),
        "initialize": lambda module: ghnq.initialize(module, small_ghn(), (3, 16, 16)),
        "quantize": lambda module: quantize(module, "w8a8", calibration=CALIBRATION),
        "prepare": lambda module: ghnq.quant.prepare(module, CALIBRATION),
        "export_onnx": lambda module: export_onnx(
            module, "w8a8", calibration=CALIBRATION, out=tmp_path / "a.onnx", batch_size=64
        ),
        "export_program": lambda module: ghnq.export_program(
            module, "w8a8", calibration=CALIBRATION, out=tmp_path / "a.pt2", batch_size=64
        ),
        "fold_batch_norm": lambda module: fold_batch_norm(module, images=CALIBRATION),
        "equalize": lambda module: equalize(module, CALIBRATION),
        "estimate_batch_norm": lambda module: estimate_batch_norm(module, CALIBRATION),
    }
    call = calls[function]
    scripted = net()
    scripted.act = torch.jit.script(_swish)  # type: ignore[assignment]
    script_module = net()
    script_module[8] = torch.jit.trace(nn.Linear(8, 10), torch.zeros(1, 8))
    recurrent = net()
    recurrent[6] = nn.LSTM(8, 8)
    lazy = net()
    lazy[8] = nn.LazyLinear(10)
    for module, part in (
        (scripted, r"attribute 'act' of module '\(root\)' is a function compiled by TorchScript"),
        (script_module, r"module '8' \(\w+\) is compiled by TorchScript"),
        (recurrent, r"module '6' \(LSTM\) is a recurrent layer"),
        (lazy, r"parameter '8\.weight' is not initialised yet \(a lazy module\)"),
        ("resnet18", r"takes a torch\.nn\.Module, got str"),
    ):
        with pytest.raises(GhnqError, match=part):
            call(module)  # type: ignore[arg-type]
    assert type(lazy[8]) is nn.LazyLinear
    assert list(tmp_path.iterdir()) == []


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def compiled_in_place() -> nn.Module:
    made = net()
    made.compile()
    made[8].compile()  # type: ignore[union-attr]
    return made


def wrapped_inside() -> nn.Module:
    made = net()
    made[3] = nn.DataParallel(made[3])
    made[0] = torch.compile(made[0])  # type: ignore[call-overload]
    return made


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda: nn.DataParallel(net()), "DataParallel"),
        (lambda: torch.compile(net()), "torch.compile"),
        (lambda: torch.compile(nn.DataParallel(net())), "torch.compile, DataParallel at '_orig_mod'"),
        (compiled_in_place, "torch.compile, torch.compile at '8'"),
        (wrapped_inside, "torch.compile at '0', DataParallel at '3'"),
    ],
)
def test_wrappers_are_left_out_with_a_line(wrap: Callable[[], nn.Module], said: str) -> None:
    given = wrap()
    before = [(name, parameter) for name, parameter in given.named_parameters()]
    with pytest.warns(GhnqWarning, match="without its wrappers") as caught:
        simulated = quantize(given, "w8a8", calibration=CALIBRATION)
    assert f"({said})" in str(caught[0].message)
    assert torch.equal(run(simulated), run(quantize(net(), "w8a8", calibration=CALIBRATION)))
    with pytest.warns(GhnqWarning, match="without its wrappers"):
        graph = ghnq.trace(given, (3, 16, 16))
    assert graph == ghnq.trace(net(), (3, 16, 16))
    with pytest.warns(GhnqWarning, match="without its wrappers"):
        predicted = ghnq.initialize(given, small_ghn(), (3, 16, 16))
    expected = ghnq.initialize(net(), small_ghn(), (3, 16, 16)).state_dict()
    assert predicted.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in predicted.state_dict().items())
    after = list(given.named_parameters())
    assert all(a == b and p is q for (a, p), (b, q) in zip(before, after, strict=True))


def test_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        given = nn.parallel.DistributedDataParallel(net())
        with pytest.warns(GhnqWarning, match=r"without its wrappers \(DistributedDataParallel\)"):
            simulated = quantize(given, "w8a8", calibration=CALIBRATION)
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(run(simulated), run(quantize(net(), "w8a8", calibration=CALIBRATION)))


@pytest.mark.parametrize("scheme", ["float32", "w4a8"])
def test_sync_batch_norm_is_converted_with_a_line(scheme: str) -> None:
    given = nn.SyncBatchNorm.convert_sync_batchnorm(net())
    with pytest.warns(GhnqWarning, match="SyncBatchNorm is converted to batch norm.*: 1, 4"):
        simulated = quantize(given, scheme, calibration=CALIBRATION)
    assert torch.equal(run(simulated), run(quantize(net(), scheme, calibration=CALIBRATION)))
    assert isinstance(simulated[1], nn.Identity)  # type: ignore[index]
    assert isinstance(given[1], nn.SyncBatchNorm)


def test_a_forward_that_fails_is_named_without_blaming_the_number_of_images() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("my own mistake")

    given = net()
    given[2] = nn.Sequential(Broken())
    with pytest.raises(DataError, match=r"module '2\.0' \(Broken\) failed.*my own mistake") as caught:
        quantize(given, "w8a8", calibration=CALIBRATION)
    assert "in any number" not in str(caught.value)
