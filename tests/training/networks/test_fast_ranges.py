"""Rough ranges of least squared error: near the thorough search, far below min-max at 2 bits, used where asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ghnq.errors import RecipeError
from ghnq.quant import QuantScheme
from ghnq.quant.affine import fake_quantize, integer_range, scale_zero_point
from ghnq.quant.ranges import activation_range as searched_activations
from ghnq.quant.ranges import weight_range
from ghnq.training.networks.fake_quant import fake_quantize_weights, quantizable_layers
from ghnq.training.networks.fast_ranges import activation_qparams, weight_scale
from ghnq.training.networks.step import run_network
from ghnq.training.recipe import validate_recipe
from ghnq.training.recipe.scheme_mix import draw_scheme
from tests.training.conftest import TINY
from tests.training.networks.test_fake_quant import network, run

STEPS = ("search_weights", "search_activations")


def error(x: Tensor, step: Tensor, zero: Tensor, bits: int, symmetric: bool) -> float:
    return float((fake_quantize(x, step, zero, *integer_range(bits, symmetric)) - x).square().mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", [(16, 24, 3, 3), (16, 24, 1, 1), (16, 1, 5, 5), (10, 64)])
def test_weights_are_fitted_nearly_as_well_as_searched(bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    rough = weight_scale(weight, bits)
    errors = {"rough": error(weight, rough, torch.zeros_like(rough), bits, True)}
    for estimator in ("mse", "minmax"):
        ends = weight_range(weight, bits, granularity="channel", symmetric=True, estimator=estimator)
        errors[estimator] = error(weight, *scale_zero_point(*ends, bits, True), bits, True)
    assert errors["mse"] <= errors["rough"] * (1 + 1e-6)
    # At 4 bits the error has many valleys, and a single start finds one of them.
    assert errors["rough"] < (1.2 if bits == 4 else 1.12) * errors["mse"]
    assert errors["rough"] < errors["minmax"] * (0.5 if bits == 2 else 1)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("rectified", [False, True])
def test_activations_are_searched_nearly_as_well(bits: int, rectified: bool) -> None:
    x = torch.randn(32, 12, 9, 9, generator=torch.Generator().manual_seed(bits))
    x = x.relu() if rectified else x
    rough = error(x, *activation_qparams(x.permute(0, 2, 3, 1), bits), bits, False)
    searched = error(x, *scale_zero_point(*searched_activations(x, bits, "mse"), bits, False), bits, False)
    widest = error(x, *scale_zero_point(*searched_activations(x, bits, "minmax"), bits, False), bits, False)
    assert rough < 1.1 * searched
    assert rough < widest


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constants_stay_finite(value: float) -> None:
    step, zero = activation_qparams(torch.full((4, 4), value), 2)
    torch.testing.assert_close(fake_quantize(torch.full((4,), value), step, zero, 0, 3), torch.full((4,), value))
    scale = weight_scale(torch.full((4, 4), value), 2)
    torch.testing.assert_close(
        fake_quantize(torch.full((4, 4), value), scale, torch.zeros(4), -1, 1), torch.full((4, 4), value)
    )


def test_a_drawn_scheme_asks_for_them_and_a_step_takes_them() -> None:
    plain, fitted = (draw_scheme({"w2a2": 1.0}, [], (0, 0, 0), steps) for steps in ((), STEPS))
    module, images = network().train(), torch.randn(32, 3, 8, 8)
    weights = dict(module.named_parameters())
    used = fake_quantize_weights(weights, quantizable_layers(module), fitted, None)["6.weight"].detach()
    wasted = fake_quantize_weights(weights, quantizable_layers(module), plain, None)["6.weight"].detach()
    assert len(used[0].unique()) <= 3
    assert (used == 0).sum() < (wasted == 0).sum()
    assert not torch.equal(run(module, images, plain), run(module, images, fitted))
    eight = QuantScheme.parse("w8a8", steps=STEPS).with_searched_ranges
    assert torch.equal(run(module, images, eight).round(), run(module, images, QuantScheme.parse("w8a8")).round())


def test_gradients_stop_where_the_range_was_cut() -> None:
    module = network().train()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    fitted = draw_scheme({"w2a2": 1.0}, [], (0, 0, 0), STEPS)
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    _, _, gradients = run_network(module, parameters, images, labels, scheme=fitted, label_smoothing=0.0)
    scale = weight_scale(parameters["6.weight"], 2)
    cut = parameters["6.weight"].flatten(1).abs() > 1.5 * scale[:, None] * (1 + 1e-6)
    assert bool(cut.any())
    assert not gradients["6.weight"].flatten(1)[cut].any()
    assert all(bool(g.isfinite().all()) for g in gradients.values())


def test_other_steps_are_no_part_of_training() -> None:
    with pytest.raises(RecipeError, match=r"quantization\.steps"):
        validate_recipe({**TINY, "quantization": {"steps": ["squant"]}}, "wrong")
