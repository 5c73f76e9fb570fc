"""Any image model is predicted: graphs, parameters and a working network for models of other packages."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghnq.errors import GhnqWarning
from ghnq.graph import ArchGraph, trace
from ghnq.hypernet import GHN, initialize
from ghnq.network_outputs import named_tensors
from tests.families.third_party_models import PYTORCHCV, SHAPES, TRANSFORMERS

pytestmark = [
    pytest.mark.filterwarnings("ignore::ghnq.errors.GhnqWarning"),
    # What the packages themselves use that is going out of use.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# Parameters that these networks do not use when they classify images.
UNUSED = {
    "dinov2": {"dinov2.embeddings.mask_token"},
    "dinov2-registers": {"dinov2_with_registers.embeddings.mask_token"},
}

# Classes that came with later versions of `transformers` than the oldest that is allowed.
CLASSES = {"hgnet_v2": "HGNetV2Config", "pp_lcnet": "PPLCNetConfig"}


@pytest.fixture(scope="module")
def ghn() -> GHN:
    """One that has been trained: with random weights, networks without norms hand on nothing but their biases."""
    return GHN.from_pretrained("digits")


def make(function: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return function()


def shape_of(name: str, module: nn.Module) -> tuple[int, int, int]:
    if name in PYTORCHCV:
        height, width = module.in_size
        return (3, height, width)
    return SHAPES.get(name, (3, 32, 32))


def calibrate(module: nn.Module, images: Tensor) -> None:
    """Estimates batch-norm statistics on images, everything else in evaluation mode."""
    module.eval()
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.momentum = None
            child.train()
    with torch.no_grad():
        module(images)
    module.eval()


def check(name: str, function: Callable[[], nn.Module], ghn: GHN) -> ArchGraph:
    module = make(function)
    shape = shape_of(name, module)
    graph = trace(module.train(), shape)
    assert graph.validate() is graph
    assert set(graph.unused) == UNUSED.get(name, set())
    assert trace(module, shape) == graph
    assert trace(module.eval(), shape) == graph

    named = {n: tuple(p.shape) for n, p in module.named_parameters()}
    with torch.no_grad():
        predicted = ghn.predict(graph)
    assert {n: tuple(p.shape) for n, p in predicted.items()} == {
        n: s for n, s in named.items() if n not in graph.unused
    }
    assert all(bool(p.isfinite().all()) for p in predicted.values())

    network = initialize(module, ghn, shape)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name in predicted:
            assert torch.equal(parameter, predicted[parameter_name])
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    calibrate(network, images)
    with torch.no_grad():
        output = next(iter(named_tensors(network(images)).values()))
    assert bool(output.isfinite().all())
    assert float(output.std(0).max()) > 1e-5 * float(output.abs().max())

    # No weight has a value here, so nothing of them can have been used.
    assert trace(module.to("meta"), shape) == graph
    return graph


def runs_on_its_own(name: str) -> bool:
    """Whether the network computes anything at all, without ghnq."""
    try:
        make(TRANSFORMERS[name])(torch.zeros(1, *SHAPES.get(name, (3, 32, 32))))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, ghn: GHN) -> None:
    transformers = pytest.importorskip("transformers")
    if name in CLASSES and not hasattr(transformers, CLASSES[name]):
        pytest.skip(f"transformers {transformers.__version__} has no {CLASSES[name]}")
    if name == "swin-absolute" and not runs_on_its_own(name):
        pytest.skip(f"transformers {transformers.__version__} cannot run its own Swin with absolute positions")
    check(name, TRANSFORMERS[name], ghn)


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTORCHCV)
def test_pytorchcv(name: str, ghn: GHN) -> None:
    pytest.importorskip("pytorchcv")
    check(name, PYTORCHCV[name], ghn)


def test_warnings_name_ops_that_no_hypernetwork_was_trained_on() -> None:
    module = make(TRANSFORMERS["convnext"])
    with pytest.warns(GhnqWarning, match="layer_scale_parameter") as caught:
        trace(module, (3, 32, 32))
    assert len(caught) == 1


def test_attention_written_in_two_ways_is_one_graph() -> None:
    def parts(name: str) -> Any:
        graph = trace(make(TRANSFORMERS[name]), (3, 32, 32))
        return [node.op for node in graph.nodes], graph.edges, graph.parameters

    assert parts("vit") == parts("vit-eager")


@pytest.mark.parametrize(
    "name", ["resnet-basic", "regnet-x", "mobilenet_v2", "efficientnet", "levit", "bit", "textnet"]
)
def test_plain_families_pass_without_a_warning(name: str) -> None:
    module = make(TRANSFORMERS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error", GhnqWarning)
        trace(module, SHAPES.get(name, (3, 32, 32)))
