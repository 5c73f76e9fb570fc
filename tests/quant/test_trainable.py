"""Networks that are trained through quantization."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ghnq
from ghnq.errors import SchemeError
from ghnq.quant import QuantScheme, TrainableNetwork, prepare
from tests.quant.nets import CALIBRATION, TEST, network

LABELS = torch.arange(len(CALIBRATION)) % 10


def train(net: TrainableNetwork, steps: int = 3, lr: float = 0.05, images: Tensor = CALIBRATION) -> list[float]:
    """Trains in a loop as a user would write it, and returns the losses."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(net(images), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


SCHEMES = [
    QuantScheme.parse("w8a8"),
    QuantScheme.parse("w4a4"),
    QuantScheme.parse("w4+0=w8a8+11=float32"),
    QuantScheme.parse("w4a8", protocol="paper"),
    QuantScheme.parse("w4a8", fold=False),
    QuantScheme.parse("w3a4", steps=("equalize", "search_weights", "search_activations", "squant", "correct_bias")),
    QuantScheme.parse("float32"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s}-{s.protocol}-{len(s.steps)}")
def test_deploying_with_new_statistics_is_quantizing_the_trained_weights_to_the_last_bit(scheme: QuantScheme) -> None:
    net = ghnq.quantize(network(), scheme, calibration=CALIBRATION, trainable=True)
    train(net)
    expected = ghnq.quantize(net.float_network(), scheme, calibration=CALIBRATION)
    deployed = net.deploy(reestimate=True)
    assert not deployed.training
    assert expected.state_dict().keys() == deployed.state_dict().keys()
    for name, tensor in deployed.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(deployed(TEST), expected(TEST))


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
@pytest.mark.parametrize("bits", ["float32", "w2", "w4", "w8", "w4+0=float32"])
def test_deploying_a_trained_network_computes_what_it_computed_in_eval_mode(bits: str, protocol: str) -> None:
    # Trained on images that are far from the calibration images, as augmented ones may be: no statistic of the latter
    # may come in. Weights only, as ranges of activations are those of the batch before.
    scheme = QuantScheme.parse(bits, protocol=protocol)
    net = ghnq.quantize(network().double(), scheme, calibration=CALIBRATION.double(), trainable=True)
    train(net, images=3 * CALIBRATION.double().roll(4, 3) + 1)
    net.eval()
    with torch.no_grad():
        shown = net(TEST.double())
        torch.testing.assert_close(net.deploy()(TEST.double()), shown, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(net.deploy(TEST.double() / 7)(TEST.double()), shown, rtol=1e-9, atol=1e-9)
        assert (net.deploy(reestimate=True)(TEST.double()) - shown).abs().max() > 0.01


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4"])
def test_the_accuracy_of_training_survives_deployment(scheme: str) -> None:
    # A task that can be learnt from images that a loop makes brighter and moves about.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(TEST)) % 4
    patterns = torch.randn(4, 3, 16, 16, generator=generator)
    plain = 0.5 * TEST + patterns[labels]
    net = ghnq.quantize(network(), scheme, calibration=plain[:128], trainable=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(80):
        loss = F.cross_entropy(net(2 * plain[step % 2 :: 2].roll(step % 3, 3) + 1), labels[step % 2 :: 2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    augmented = 2 * plain + 1
    with torch.no_grad():
        shown = net(augmented).argmax(1)
        deployed = net.deploy(augmented[:128])(augmented).argmax(1)
    assert (shown == labels).float().mean() > 0.9
    assert (deployed == shown).float().mean() >= 0.98


@pytest.mark.parametrize("protocol", ["deploy", "paper"])
@pytest.mark.parametrize("bits", ["w2", "w4", "w8"])
def test_norms_that_are_not_folded_compute_what_the_folded_network_computes(bits: str, protocol: str) -> None:
    # Weights only, and no second estimate of the statistics: nothing but the order of folding and quantizing differs.
    # The norms of the network have gains of both signs.
    scheme = QuantScheme.parse(bits, protocol=protocol, reestimate=False)
    net = ghnq.quantize(network().double(), scheme, calibration=CALIBRATION.double(), trainable=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(TEST.double()), net.deploy()(TEST.double()), rtol=1e-9, atol=1e-9)


def test_activations_are_quantized_with_the_range_of_the_batch() -> None:
    layer = nn.Conv2d(3, 4, 3)
    net = ghnq.quantize(nn.Sequential(layer), "w8a2", calibration=CALIBRATION, trainable=True)
    low, high = float(TEST.min().clamp(max=0)), float(TEST.max().clamp(min=0))
    scale = (high - low) / 3
    zero = round(-low / scale)
    quantized = (torch.round(TEST / scale) + zero).clamp(0, 3).sub(zero) * scale
    found: list[Tensor] = []
    conv = net.network[0]
    torch.testing.assert_close(conv.quantized_input(TEST), quantized)
    found.append(net(TEST))
    torch.testing.assert_close(found[0], F.conv2d(quantized, conv.quantized_weight(), layer.bias))


def test_gradients_pass_straight_through() -> None:
    net = ghnq.quantize(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), "w2a2", calibration=CALIBRATION, trainable=True)
    conv = net.network[0]
    x = TEST[:8].clone().requires_grad_()
    net(x).square().sum().backward()
    # The same by hand: the gradients of a plain convolution at the quantized values.
    w_q, x_q = (t.detach().requires_grad_() for t in (conv.quantized_weight(), conv.quantized_input(TEST[:8])))
    F.conv2d(x_q, w_q, conv.bias.detach(), padding=1).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, w_q.grad)
    torch.testing.assert_close(x.grad, x_q.grad)


@pytest.mark.parametrize("scheme", ["w2a4", "float32"])
def test_every_parameter_is_trained_and_the_loss_falls(scheme: str) -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    net = ghnq.quantize(module, scheme, calibration=CALIBRATION, trainable=True)
    assert net.training
    assert net.network.state_dict().keys() == before.keys()
    losses = train(net, steps=30)
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    module.load_state_dict(net.float_network().state_dict())


def test_training_through_quantization_beats_quantizing_afterwards() -> None:
    def trained_loss(scheme: str) -> float:
        net = ghnq.quantize(network(), scheme, calibration=CALIBRATION, trainable=True)
        train(net, steps=40)
        deployed = ghnq.quantize(net.float_network(), "w2a8", calibration=CALIBRATION)
        with torch.no_grad():
            return float(F.cross_entropy(deployed(CALIBRATION), LABELS))

    assert trained_loss("w2a8") < trained_loss("float32")


def test_the_float_network_has_the_classes_and_the_sharing_of_the_module() -> None:
    class Own(nn.Conv2d):
        """A user's subclass with the forward of its base."""

        def describe(self) -> str:
            return "mine"

    first, second = Own(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    net = ghnq.quantize(nn.Sequential(first, second), "w4a8", calibration=CALIBRATION, trainable=True)
    assert len(list(net.parameters())) == 3
    trained = net.float_network()
    assert trained[0].describe() == "mine"
    assert trained[0].weight is trained[1].weight
    assert vars(trained[0]).keys() == vars(first).keys()


def test_standardised_convolutions_become_ordinary_weights() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )  # fmt: skip
    prepared = prepare(module, CALIBRATION, standardise=True)
    net = TrainableNetwork.of(prepared, QuantScheme.parse("w8a8"))
    assert net.float_network().state_dict().keys() == module.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(net.float_network()(TEST), prepared.network(TEST), rtol=1e-4, atol=1e-4)
    # What is standardised once is not standardised again.
    assert torch.equal(net.deploy()(TEST), net.deploy(reestimate=True)(TEST))
    assert torch.equal(net.deploy()(TEST), ghnq.quantize(net.float_network(), "w8a8", calibration=CALIBRATION)(TEST))


@pytest.mark.parametrize("scheme", ["w4a8+nothing=w8a8", "w17a8"])
def test_schemes_that_cannot_be_applied_are_refused(scheme: str) -> None:
    with pytest.raises(SchemeError):
        ghnq.quantize(network(), scheme, calibration=CALIBRATION, trainable=True)


def test_layers_that_cannot_be_quantized_are_refused() -> None:
    class Functional(nn.Module):
        """Convolves by a function."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(10, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight).mean((2, 3))

    with pytest.raises(SchemeError, match="conv2d"):
        ghnq.quantize(Functional(), "w4a8", calibration=CALIBRATION, trainable=True)
