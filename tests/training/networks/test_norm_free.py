"""Members of `train` without norms: traced as they are, trained with the norms that calibration gives them."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from ghnq.quant.standardisation import unnormalised_layers
from ghnq.spaces import convnets
from ghnq.training.networks.architecture_stream import ArchitectureStream

SHAPE = (3, 32, 32)


def norm_free_members(count: int) -> list[int]:
    found = (index for index in range(1000) if convnets.spec("train", index).norm is None)
    return [next(found) for _ in range(count)]


def built(index: int) -> tuple[nn.Module, list[str]]:
    stream = ArchitectureStream(size=1, input_shape=SHAPE, num_classes=10, seed=0)
    batch = stream.meta_batch_at(index)
    assert batch.indices == (index,)
    (module,), (graph,) = batch.modules, batch.graphs.graphs
    assert not any(node.op == "bn" for node in graph.nodes)
    assert {p.name for p in graph.parameters} == {name for name, _ in module.named_parameters()}
    layers = [name.removesuffix(".standardisation") for name, _ in module.named_modules() if "standardisation" in name]
    return module, layers


def test_layers_are_those_that_calibration_standardises() -> None:
    for index in norm_free_members(3):
        _, layers = built(index)
        plain = convnets.build(convnets.spec("train", index)).eval()
        assert layers == unnormalised_layers(plain, torch.zeros(2, *SHAPE))
        assert len(layers) >= 4


def test_outputs_are_standardised_by_the_batch() -> None:
    """The oracle normalises the output of each layer by hand."""
    (index,) = norm_free_members(1)
    module, layers = built(index)
    plain = convnets.build(convnets.spec("train", index)).train()
    images = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    parameters = {name: parameter.detach() for name, parameter in plain.named_parameters()}
    for name in layers:
        plain.get_submodule(name).register_forward_hook(
            lambda _, __, y: (
                (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
            )
        )
    expected = plain(images)
    torch.testing.assert_close(functional_call(module, parameters, (images,)), expected, rtol=1e-3, atol=1e-4)
