"""Equalization: the closed form of the paper, unchanged outputs, and networks that cannot be equalized."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ghnq.quant import equalize, estimate_batch_norm, fold_batch_norm, prepare, quantize
from ghnq.quant.data_flow import ChannelRelation, observe_data_flow
from ghnq.quant.equalization import equalize_by_data_flow
from ghnq.spaces import convnets
from tests.quant.nets import CALIBRATION, TEST, images, network, quant_layers, randomise
from tests.quant.not_related import NOT_RELATED, ChannelMean, TwoConsumers


def assert_same_function(new: nn.Module, old: nn.Module, x: Tensor = TEST) -> None:
    with torch.no_grad():
        expected = old(x)
        assert (new(x) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


# The paper's Eq. 11, for plain weights without norms, in plain Python.
def closed_form(first: nn.Conv2d, second: nn.Conv2d) -> list[float]:
    factors = []
    for i in range(first.out_channels):
        r1 = max(abs(v) for v in first.weight[i].flatten().tolist())
        r2 = max(abs(v) for v in second.weight[:, i].flatten().tolist())
        factors.append((r1 * r2) ** 0.5 / r2)
    return factors


def test_factors_equal_the_closed_form() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1))
    randomise(net)
    new = equalize(net, CALIBRATION)
    for i, s in enumerate(closed_form(net[0], net[2])):
        torch.testing.assert_close(new[0].weight[i], net[0].weight[i] / s)
        torch.testing.assert_close(new[0].bias[i], net[0].bias[i] / s)
        torch.testing.assert_close(new[2].weight[:, i], net[2].weight[:, i] * s)
    torch.testing.assert_close(new[0].weight.abs().amax((1, 2, 3)), new[2].weight.abs().amax((0, 2, 3)))
    assert torch.equal(new[2].bias, net[2].bias)
    assert_same_function(new, net)


def test_three_layers_converge_to_the_geometric_mean() -> None:
    """With a depthwise layer in between, the product r1 r2 r3 of a channel is constant and split evenly."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    randomise(net)
    new = equalize(net, CALIBRATION)

    def sizes(n: nn.Sequential) -> Tensor:
        return torch.stack([n[0].weight.abs().amax((1, 2, 3)), n[2].weight.abs().amax((1, 2, 3)),
                            n[4].weight.abs().amax((0, 2, 3))])  # fmt: skip

    mean = sizes(net).prod(dim=0) ** (1 / 3)
    torch.testing.assert_close(sizes(new), mean.expand(3, -1), rtol=1e-3, atol=0)
    assert_same_function(new, net)


def test_grouped_convolutions_and_norms() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=4, bias=False), nn.BatchNorm2d(12), nn.PReLU(12), nn.AvgPool2d(2),
        nn.Conv2d(12, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    net = estimate_batch_norm(randomise(net), CALIBRATION)
    relations = observe_data_flow(net, CALIBRATION[:2]).channel_relations
    assert [(r.first, r.second) for r in relations] == [("0", "4"), ("4", "8"), ("8", "12")]
    new = equalize(net, CALIBRATION)
    assert_same_function(new, net)
    assert_same_function(fold_batch_norm(new, images=CALIBRATION), net)
    folded = fold_batch_norm(new, images=CALIBRATION)
    rows = folded[4].weight.abs().amax((1, 2, 3))
    torch.testing.assert_close(rows, folded[8].weight.abs().amax((0, 2, 3)), rtol=1e-3, atol=0)
    columns = folded[4].weight.reshape(4, 3, 2, 9).abs().amax((1, 3)).flatten()
    torch.testing.assert_close(folded[0].weight.abs().amax((1, 2, 3)), columns, rtol=1e-3, atol=0)
    # Equalizing before folding and after it gives the same weights.
    after = equalize(fold_batch_norm(net, images=CALIBRATION), CALIBRATION)
    torch.testing.assert_close(after[4].weight, folded[4].weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("split", "index"), [("test", 0), ("test", 1), ("test", 17), ("bnfree", 2), ("dense", 3)])
def test_architectures_of_the_space_compute_the_same(split: str, index: int) -> None:
    torch.manual_seed(index)
    net = randomise(convnets.build(convnets.spec(split, index)))
    x = images(8, size=32)
    prepared = prepare(net, x)
    new = equalize_by_data_flow(prepared.network, x, prepared.data_flow)
    with torch.no_grad():
        before, after = prepared.network.double()(x.double()), new.double()(x.double())
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    old = dict(prepared.network.named_parameters())
    changed = [name for name, parameter in new.named_parameters() if not torch.equal(parameter, old[name].double())]
    assert changed or not prepared.data_flow.channel_relations


def test_channels_of_zeros_are_not_scaled() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    randomise(net)
    with torch.no_grad():
        net[0].weight[1] = 0
        net[2].weight[:, 2] = 0
    new = equalize(net, CALIBRATION)
    assert torch.equal(new[0].weight[1:3], net[0].weight[1:3])
    assert all(bool(p.isfinite().all()) for p in new.parameters())
    assert_same_function(new, net)


@pytest.mark.parametrize("network_class", NOT_RELATED)
def test_networks_without_related_layers_are_not_changed(network_class: type[TwoConsumers]) -> None:
    net = network_class().eval()
    new = equalize(net, CALIBRATION[:, :, :4, :4] if network_class is ChannelMean else CALIBRATION)
    for key, value in net.state_dict().items():
        assert torch.equal(new.state_dict()[key], value)


def test_a_wrong_relation_is_detected_from_the_outputs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    randomise(net)
    data_flow = observe_data_flow(net, CALIBRATION[:2])
    assert data_flow.channel_relations == ()
    wrong = replace(data_flow, channel_relations=(ChannelRelation("0", None, "2"),))
    new = equalize_by_data_flow(net, CALIBRATION, wrong)
    assert torch.equal(new[0].weight, net[0].weight)


def test_the_post_training_step() -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    plain = quantize(net, "w8a8", calibration=CALIBRATION)
    new = quantize(net, "w8a8", calibration=CALIBRATION, steps=("equalize",))
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    scales = [
        float(layer.weight_scale.max() / layer.weight_scale.min())
        for module in (plain, new)
        for name, layer in quant_layers(module)
        if name == "3.conv1"
    ]
    assert scales[0] != scales[1]
