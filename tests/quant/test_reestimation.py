"""Batch-norm statistics that are re-estimated through the quantized network, and constant channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ghnq.quant import QuantScheme, prepare, quantize
from tests.quant.nets import CALIBRATION, TEST, error, network, quant_layers


@pytest.mark.parametrize("scheme", ["w4a8", "w3a8", "w4a4"])
def test_reestimation_decreases_the_error(net: nn.Module, scheme: str) -> None:
    prepared = prepare(net, CALIBRATION)
    errors = {
        again: error(prepared.quantize(QuantScheme.parse(scheme, reestimate=again)), net) for again in (True, False)
    }
    assert errors[True] < errors[False]


@pytest.mark.parametrize("scheme", ["w6a8", "w4a8", "w4a4"])
def test_reestimation_per_tensor_changes_means_only(net: nn.Module, scheme: str) -> None:
    """New variances would change the scales they were estimated with: the error of this network exceeds 1e6 then."""
    prepared = prepare(net, CALIBRATION)
    again, stale = (
        prepared.quantize(QuantScheme.parse(scheme, protocol="paper", reestimate=reestimate))
        for reestimate in (True, False)
    )
    for (_, a), (_, b) in zip(quant_layers(again), quant_layers(stale), strict=True):
        assert torch.equal(a.weight_int, b.weight_int)
    away = []
    for module in (again, stale):
        outputs = {layer: output_of(module, layer) for layer, _ in prepared.data_flow.norm_pairs}
        wanted = {layer: net.get_submodule(norm).bias for layer, norm in prepared.data_flow.norm_pairs}
        means = [
            (outputs[n].mean(dim=1) - beta.detach()).abs().mean() for n, beta in wanted.items() if beta is not None
        ]
        away.append(float(torch.stack(means).mean()))
    assert away[0] < 0.7 * away[1]
    # A norm that stays, behind no layer, is renewed whole.
    assert not torch.equal(again.get_submodule("4.bn0").running_var, stale.get_submodule("4.bn0").running_var)


def output_of(module: nn.Module, layer: str) -> Tensor:
    """Returns the output of a layer on the calibration images, [channels, values]."""
    seen: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.no_grad():
        module(CALIBRATION)
    handle.remove()
    return seen[0].transpose(0, 1).flatten(1)


def test_reestimated_outputs_have_the_mean_and_deviation_of_the_norm(net: nn.Module) -> None:
    """The output of a folded layer on the calibration images has mean beta and deviation gamma, though quantized."""
    simulated = quantize(net, "w3a8", calibration=CALIBRATION)
    stale = quantize(net, QuantScheme.parse("w3a8", reestimate=False), calibration=CALIBRATION)
    for layer, norm in prepare(net, CALIBRATION).data_flow.norm_pairs:
        batch_norm = net.get_submodule(norm)
        if batch_norm.bias is None:
            continue
        beta, gamma = batch_norm.bias.detach(), batch_norm.weight.detach()
        away = []
        for module in (simulated, stale):
            values = output_of(module, layer)
            away.append(float((values.mean(1) - beta).abs().mean() + (values.std(1) - gamma.abs()).abs().mean()))
        assert away[0] < away[1]
        assert away[0] < 0.1


def test_quantizing_and_folding_commute_per_channel(net: nn.Module) -> None:
    """Folding the quantized weight gives the quantized folded weight, so re-estimation uses the deployed weights."""
    unfolded = quantize(net, QuantScheme.parse("w4", fold=False), calibration=CALIBRATION)
    folded = quantize(net, "w4", calibration=CALIBRATION)
    for layer, norm in prepare(net, CALIBRATION).data_flow.norm_pairs:
        batch_norm = unfolded.get_submodule(norm)
        gain = batch_norm.running_var.add(batch_norm.eps).rsqrt()
        gain = gain if batch_norm.weight is None else gain * batch_norm.weight
        weight = unfolded.get_submodule(layer).weight
        folded_weight = folded.get_submodule(layer).weight
        torch.testing.assert_close(
            weight * gain.reshape(-1, *[1] * (weight.dim() - 1)), folded_weight, rtol=1e-4, atol=1e-6
        )
    with torch.no_grad():
        torch.testing.assert_close(unfolded(TEST), folded(TEST), rtol=1e-3, atol=1e-3)


def test_variance_floor_and_per_tensor_weights_with_a_constant_channel() -> None:
    net = network(channels=16)
    with torch.no_grad():
        net[1].bias[:2] = -50.0  # dead behind the ReLU, so the depthwise convolution's channels are dead too
        net.get_submodule("3.bn1").bias[:2] = -50.0
    prepared = prepare(net, CALIBRATION)
    net = prepared.network
    assert net.get_submodule("3.bn2").running_var[:2].max() < 1e-9
    sizes = {}
    for floor in (0.0, 0.05):  # the floor holds for the re-estimated variances too
        folded = prepared.quantize(QuantScheme.parse("w8a8", variance_floor=floor)).get_submodule("3.conv2")
        sizes[floor] = float(folded.weight[:2].detach().abs().max())
    assert sizes[0.05] < sizes[0.0] / 5
    errors = {
        (protocol, floor): error(
            prepared.quantize(QuantScheme.parse("w8a8", protocol=protocol, variance_floor=floor)), net
        )
        for protocol in ("deploy", "paper")
        for floor in (0.0, 0.05)
    }
    assert errors["paper", 0.05] < errors["paper", 0.0] / 5
    assert errors["deploy", 0.0] < 0.02
    assert errors["deploy", 0.05] < 0.02
