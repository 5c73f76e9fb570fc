"""Layers that compute something else than their class, and layers with hooks: never quantized as what they are not.

The oracle is an equal network that is written out in plain layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.deploy import export_onnx
from ghnq.deploy.onnx import runtime
from ghnq.errors import GraphError, SchemeError
from ghnq.quant import QuantScheme, correct_bias, equalize, fold_batch_norm, quantize
from tests.quant.nets import images, quant_layers, randomise
from tests.small_networks import small_ghn

CALIBRATION = images(64)
TEST = images(32, seed=2)
SCHEMES = ["float32", "w8a8", "w4a8"]
UNFOLDED = QuantScheme.parse("w8a8", fold=False)


def tail(channels: int = 8) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def net(*layers: nn.Module) -> nn.Sequential:
    """Layers from 3 to 8 channels, then the tail, with random weights that depend on nothing else."""
    made = nn.Sequential(*layers, *tail())
    randomise(made)
    return made


def relu_hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return torch.relu(output)


def scale_input(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] * 3 - 0.5,)


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3 - 0.5


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, padding=1)


def hooked(layer: nn.Module, hook: Callable[..., Tensor]) -> nn.Module:
    layer.register_forward_hook(hook)
    return layer


def hooked_before(layer: nn.Module, hook: Callable[..., tuple[Tensor]]) -> nn.Module:
    layer.register_forward_pre_hook(hook)
    return layer


def run(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(network(TEST))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hook_on_a_layer_stays_between_it_and_its_norm(scheme: str, tmp_path: Path) -> None:
    given = net(hooked(conv(), relu_hook), nn.BatchNorm2d(8))
    written_out = net(conv(), nn.ReLU(), nn.BatchNorm2d(8))
    simulated = quantize(given, scheme, calibration=CALIBRATION)
    assert torch.equal(run(simulated), run(quantize(written_out, scheme, calibration=CALIBRATION)))
    files = [export_onnx(each, scheme, calibration=CALIBRATION, out=tmp_path / f"{i}.onnx", batch_size=64)
             for i, each in enumerate((given, written_out))]  # fmt: skip
    first, second = (runtime.run(runtime.session(file.path.read_bytes()), TEST) for file in files)
    assert torch.equal(first, second)


def test_a_hook_on_a_norm_is_kept_and_the_norm_is_not_folded(tmp_path: Path) -> None:
    given, written_out = net(conv(), hooked(nn.BatchNorm2d(8), relu_hook)), net(conv(), nn.BatchNorm2d(8), nn.ReLU())
    expected = run(quantize(written_out, UNFOLDED, calibration=CALIBRATION))
    simulated = quantize(given, "w8a8", calibration=CALIBRATION)
    assert isinstance(simulated[1], nn.BatchNorm2d)  # type: ignore[index]
    assert torch.equal(run(simulated), expected)
    file = export_onnx(given, "float32", calibration=CALIBRATION, out=tmp_path / "net.onnx", batch_size=64)
    in_float = run(quantize(written_out, "float32", calibration=CALIBRATION))
    torch.testing.assert_close(
        runtime.run(runtime.session(file.path.read_bytes()), TEST), in_float, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_pre_hook_is_part_of_what_is_calibrated(scheme: str) -> None:
    given, written_out = net(hooked_before(conv(), scale_input)), net(Scaled(), conv())
    simulated = quantize(given, scheme, calibration=CALIBRATION)
    assert torch.equal(run(simulated), run(quantize(written_out, scheme, calibration=CALIBRATION)))


def test_layers_with_hooks_are_not_folded_equalized_or_standardised() -> None:
    for position in (0, 2):
        chain = [conv(), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        hooked(chain[position], relu_hook)
        given = net(*chain)
        weight = given[position].get_parameter("weight")
        standardised = quantize(given, "float32", calibration=CALIBRATION, standardise=True)
        for new in (equalize(given, CALIBRATION), standardised):
            assert torch.equal(weight, new.get_submodule(str(position)).get_parameter("weight"))
    with pytest.raises(SchemeError, match="cannot be folded"):
        fold_batch_norm(net(hooked(conv(), relu_hook), nn.BatchNorm2d(8)), pairs=[("0", "1")])


def test_a_hook_that_is_a_method_of_the_network_writes_into_the_copy() -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = conv(), nn.Linear(16, 10)
            self.conv.register_forward_hook(self.keep)

        def keep(self, module: nn.Module, args: object, output: Tensor) -> None:
            self.kept = output

        def forward(self, x: Tensor) -> Tensor:
            self.conv(x)
            return self.head(torch.cat([self.kept.mean((2, 3)), self.kept.amax((2, 3))], 1))  # type: ignore[no-any-return]

    network = randomise(Watched())
    simulated = quantize(network, "w8a8", calibration=CALIBRATION)
    network.__dict__.pop("kept", None)
    error = run(simulated) - run(network)
    assert 0 < float(error.abs().max()) < 0.05 * float(run(network).abs().max())
    assert simulated.kept.shape[0] == len(TEST)  # type: ignore[index, union-attr]
    assert torch.equal(network.kept, network.conv(TEST))


def test_bias_is_corrected_before_the_hook() -> None:
    given, written_out = net(hooked(conv(), relu_hook)), net(conv(), nn.ReLU())
    corrected = [
        correct_bias(quantize(each, "w4a8", calibration=CALIBRATION), each, CALIBRATION)
        for each in (given, written_out)
    ]
    assert torch.equal(run(corrected[0]), run(corrected[1]))


class AfterTheCall(nn.Conv2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2  # type: ignore[no-any-return]


class NormAfterTheCall(nn.BatchNorm2d):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2  # type: ignore[no-any-return]


def doubled() -> nn.Module:
    layer = conv()
    original = layer.forward
    layer.forward = lambda x: original(x) * 2  # type: ignore[method-assign]
    return layer


@pytest.mark.filterwarnings("ignore:.*not registered in the network:ghnq.errors.GhnqWarning")
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (AfterTheCall(3, 8, 3), "AfterTheCall overrides `__call__`"),
        (doubled(), "Conv2d overrides `forward`"),
    ],
)
def test_layers_that_compute_something_else_are_refused_by_name(layer: nn.Module, reason: str) -> None:
    given = net(layer, nn.BatchNorm2d(8))
    with pytest.raises(SchemeError, match=f"conv2d in '0': {reason}"):
        quantize(given, "w8a8", calibration=CALIBRATION)
    in_float = quantize(given, "float32", calibration=CALIBRATION)
    assert isinstance(in_float[1], nn.BatchNorm2d)  # type: ignore[index]
    assert [name for name, _ in quant_layers(in_float)] == []


def test_a_forward_that_holds_the_original_layer_is_not_given_predicted_parameters() -> None:
    with pytest.raises(GraphError, match=r"module '0' has a `forward` of its own, a function that holds"):
        ghnq.initialize(net(doubled()), small_ghn(), (3, 16, 16))


def test_a_norm_that_computes_something_else_is_not_folded() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    given, written_out = net(conv(), NormAfterTheCall(8)), net(conv(), nn.BatchNorm2d(8), Doubled())
    expected = run(quantize(written_out, UNFOLDED, calibration=CALIBRATION))
    assert torch.equal(run(quantize(given, "w8a8", calibration=CALIBRATION)), expected)
