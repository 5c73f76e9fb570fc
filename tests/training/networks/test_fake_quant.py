"""Networks of a step on the grids of their precision: against the definitions, and against the deployed network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ghnq.errors import GhnqError
from ghnq.quant import QuantScheme, prepare
from ghnq.quant.dynamic_ranges import fake_quantize_activation, fake_quantize_weight
from ghnq.training.networks.fake_quant import (
    Noise,
    fake_quantize_inputs,
    fake_quantize_min_max,
    fake_quantize_weights,
    quantizable_layers,
)
from ghnq.training.networks.step import run_network
from ghnq.training.recipe.scheme_mix import MIXED_BITS, check_mix, draw_scheme


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


def run(module: nn.Module, images: Tensor, scheme: QuantScheme, noise: Noise = None) -> Tensor:
    layers = quantizable_layers(module)
    with fake_quantize_inputs(layers, scheme, noise), torch.no_grad():
        used = fake_quantize_weights(dict(module.named_parameters()), layers, scheme, noise)
        return functional_call(module, used, (images,))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_activations_are_rounded_as_defined(bits: int, sign: float) -> None:
    torch.manual_seed(bits)
    x = torch.randn(2, 3, 7, 5)
    x = (x.abs() * sign if sign else x).requires_grad_()
    ours, defined = fake_quantize_min_max(x, 2**bits - 1), fake_quantize_activation(x.detach(), bits)
    low, high = float(x.detach().min()), float(x.detach().max())
    step = (max(high, 0) - min(low, 0)) / (2**bits - 1)
    # Where x / step and x * (1 / step) fall on two sides of a tie, the two differ by one step; nowhere else.
    differs = (ours.detach() - defined).abs() > 1e-3 * step
    assert int(differs.sum()) <= 1
    assert len(ours.unique()) <= 2**bits
    (gradient,) = torch.autograd.grad((ours * defined).sum(), x)
    assert torch.equal(gradient, defined)


def test_constant_and_empty_ranges_stay_what_they_are() -> None:
    assert torch.equal(fake_quantize_min_max(torch.zeros(4), 15), torch.zeros(4))
    torch.testing.assert_close(fake_quantize_min_max(torch.full((4,), 3.0), 15), torch.full((4,), 3.0))


def test_each_layer_has_its_own_bits() -> None:
    module, scheme = network(), QuantScheme.parse("w4a8+0=float32+11=w2a2")
    parameters = dict(module.named_parameters())
    used = fake_quantize_weights(parameters, quantizable_layers(module), scheme, None)
    assert used["0.weight"] is parameters["0.weight"]
    for name, bits in (("3.weight", 4), ("6.weight", 4), ("11.weight", 2)):
        assert torch.equal(used[name], fake_quantize_weight(parameters[name], bits, scheme))
    assert all(used[n] is p for n, p in parameters.items() if "weight" not in n or n.split(".")[0] in "147")


def test_noise_stays_within_half_a_step_and_is_not_zero() -> None:
    module, scheme = network(), QuantScheme.parse("w4a4")
    parameters = dict(module.named_parameters())
    source = torch.Generator().manual_seed(0)
    noisy = fake_quantize_weights(parameters, quantizable_layers(module), scheme, source)
    for name in ("0.weight", "6.weight", "11.weight"):
        weight = parameters[name].detach()
        step = weight.abs().flatten(1).amax(1) / 7
        away = (noisy[name].detach() - weight).abs().flatten(1).amax(1)
        assert bool((away <= step / 2 * (1 + 1e-5)).all())
        assert bool((away > step / 8).all())
    images = torch.randn(4, 3, 8, 8)
    first, second = run(module, images, scheme, source), run(module, images, scheme, source)
    assert not torch.equal(first, second)
    again = torch.Generator().manual_seed(7)
    assert torch.equal(run(module, images, scheme, again), run(module, images, scheme, again.manual_seed(7)))


@pytest.mark.parametrize("word", ["w8a8", "w4a8", "w4"])
def test_a_step_sees_what_is_deployed(word: str) -> None:
    """Quantizing weights before their batch norm equals folding with the batch's statistics and quantizing then.

    At 4-bit activations the two differ: deployment fixes its ranges where nothing before is quantized yet.
    """
    module, scheme = network(), QuantScheme.parse(word)
    images = torch.randn(64, 3, 1, 1) + torch.randn(
        64, 3, 8, 8
    )  # that differ in more than noise, for classes to differ
    for norm in module:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.2, 1.8)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    trained = run(module.train(), images, scheme)
    deployed = prepare(module.eval(), images).quantize(scheme)(images)
    spread = float(trained.std(0).mean())
    simulated = float((trained - deployed).abs().mean()) / spread
    in_float = float((run(module.train(), images, QuantScheme.parse("float32")) - trained).abs().mean()) / spread
    assert simulated < max(0.25 * in_float, 0.02)


def test_gradients_pass_straight_through_to_every_parameter() -> None:
    module, scheme = network().train(), QuantScheme.parse("w4a4")
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    for noise in (None, torch.Generator().manual_seed(0)):
        loss, _, gradients = run_network(
            module, parameters, images, labels, scheme=scheme, noise=noise, label_smoothing=0.0
        )
        assert bool(loss.isfinite())
        assert gradients.keys() == parameters.keys()
        assert all(bool(g.isfinite().all()) and bool(g.any()) for g in gradients.values())
    assert not any(child._forward_pre_hooks for child in module.modules())


def test_a_float_scheme_is_the_plain_network() -> None:
    module, images = network().train(), torch.rand(16, 3, 8, 8)
    assert torch.equal(run(module, images, QuantScheme.parse("float32")), module(images))


def test_schemes_are_drawn_in_the_protocol_of_the_recipe() -> None:
    """Protocol `paper`: one scale for a whole weight, asymmetric, of min and max; the oracle rounds by hand."""
    mix = {"w4a4": 1.0, "mixed": 1.0}
    drawn = [draw_scheme(mix, ["0", "3"], (0, step, 0), (), "paper") for step in range(20)]
    assert {scheme.protocol for scheme in drawn} == {"paper"}
    assert {draw_scheme(mix, ["0"], (0, step, 0)).protocol for step in range(20)} == {"deploy"}
    module, scheme = network(), draw_scheme({"w4a4": 1.0}, [], (0, 0, 0), (), "paper")
    weight = module.get_parameter("6.weight").detach()
    used = fake_quantize_weights({"6.weight": weight}, quantizable_layers(module), scheme, None)["6.weight"]
    low, high = min(float(weight.min()), 0.0), max(float(weight.max()), 0.0)
    step = (high - low) / 15
    zero = round(-low / step)
    by_hand = ((weight / step).round().clamp(-zero, 15 - zero)) * step
    assert len(used.unique()) <= 16
    torch.testing.assert_close(used, by_hand, rtol=0, atol=1e-5)


def test_drawing_is_a_function_of_the_key_and_follows_the_mix() -> None:
    mix, layers = {"float32": 1.0, "w4a8": 2.0, "mixed": 1.0, "w8a8": 0.0}, ["a", "b.c", "d"]
    drawn = [draw_scheme(mix, layers, (0, step, 5)) for step in range(400)]
    assert drawn == [draw_scheme(mix, layers, (0, step, 5)) for step in range(400)]
    words = [str(scheme) for scheme in drawn]
    assert abs(words.count("w4a8") - 200) < 40
    assert abs(words.count("float32") - 100) < 35
    assert "w8a8" not in words
    mixed = [scheme for scheme in drawn if scheme.overrides]
    seen = {scheme.bits_for(layer) for scheme in mixed for layer in layers}
    assert seen == {(w, a) for w, a in itertools.product(MIXED_BITS, repeat=2)}


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"w4b8": 1.0}, "w4b8"),
        ({"w1a8": 1.0}, "1 weight bits"),
        ({"w4a8": -1.0}, "must not be negative"),
        ({"w4a8": 0.0}, "weight above 0"),
        ({}, "at least one scheme"),
    ],
)
def test_an_impossible_mix_is_refused(mix: dict[str, float], message: str) -> None:
    with pytest.raises(GhnqError, match=message):
        check_mix(mix)
