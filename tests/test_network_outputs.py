"""Which tensor of a result is the logits."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ghnq
from ghnq.errors import OutputError
from ghnq.network_outputs import choose_main_output, choose_output, named_tensors, take_output
from ghnq.quant import prepare
from tests.output_nets import BY_CLASSES, CLEAR, UNCLEAR, Named, Output, WithResult, plain

IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
A, B, C = torch.zeros(4, 10), torch.ones(4, 5), torch.zeros(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (A, [""]),
        ((A, [B, C]), ["0", "1.0", "1.1"]),
        ({"a": A, "b": {"c": B, 3: C}}, ["a", "b.c", "b.3"]),
        (Output(A, B), ["features", "logits"]),
        (Named(A, B), ["features", "logits"]),
        (SimpleNamespace(a=A, _hidden=B, f=len), ["a"]),
        ({"a": (Output(A, B),), "text": "ab", "none": None, "number": 3, "layer": nn.Linear(1, 1)},
         ["a.0.features", "a.0.logits"]),
        ("text", []), (None, []), ((), []), (Output, []), (torch.max(A, 1), ["0", "1"]),
    ],
)  # fmt: skip
def test_names(result: Any, names: list[str]) -> None:
    assert list(named_tensors(result)) == names


def test_a_result_that_contains_itself_ends() -> None:
    result: dict[str, Any] = {"a": A}
    result["itself"] = result
    assert named_tensors(result)["itself.itself.a"] is A


@pytest.mark.parametrize(
    ("result", "classes", "name"),
    [
        (A, None, ""),
        (C, None, ""),  # whether it has the shape of logits is for the caller to say
        ({"a": B, "logits": A}, None, "logits"),
        ({"a": B, "logits": C}, 5, "logits"),
        ({"x": {"logits": C}, "logits": A}, None, "logits"),
        ({"x": {"logits": C}, "a": A}, None, "x.logits"),
        ({"x": {"logits": A}, "y": {"logits": B}}, 5, "y.logits"),
        ((C, A), None, "1"),
        ((B, A), 10, "1"),
        ((B, A), 5, "0"),
        ({"a": A}, 7, "a"),
        ({"best": A.int(), "scores": A.clone()}, None, "scores"),
        ((A[:3], A), None, "1"),
        ((C, A, A), None, "1"),
    ],
)
def test_the_choice(result: Any, classes: int | None, name: str) -> None:
    assert choose_output(named_tensors(result), 4, num_classes=classes) == name


@pytest.mark.parametrize(
    ("result", "classes", "says"),
    [
        ((A, B), None, r"'0' \[N, 10\], '1' \[N, 5\], .*: '0', '1' have the shape \[N, classes\]; .*--output NAME"),
        ((A, B), 7, r"none has the shape \[N, 7\]; name it"),
        ({"a": A, "b": A.clone()}, 10, r"'a', 'b' have the shape \[N, 10\]"),
        ({"a": C, "b": C[0]}, None, r"'a' \[N, 3, 2, 2\], 'b' \[3, 2, 2\], .*none has the shape \[N, classes\]"),
        ({"x": {"logits": A}, "y": {"logits": A.clone()}}, 10, r"'x\.logits' \[N, 10\], 'y\.logits'"),
        ((), 10, "returns no tensor"),
    ],
)
def test_what_is_not_clear_is_asked_for(result: Any, classes: int | None, says: str) -> None:
    with pytest.raises(OutputError, match=says):
        choose_output(named_tensors(result), 4, num_classes=classes)


def test_the_given_name_counts() -> None:
    tensors = named_tensors({"scores": A, "logits": B, "x": (C, A)})
    for name in tensors:
        assert choose_output(tensors, 4, output=name, num_classes=10) == name
    with pytest.raises(
        OutputError, match=r"no tensor 'score' \(did you mean 'scores'\?\); there are 'scores', 'logits'"
    ):
        choose_output(tensors, 4, output="score")
    with pytest.raises(OutputError, match="one tensor, without names: there is no output 'logits'"):
        choose_output(named_tensors(A), 4, output="logits")


def test_architectures_that_are_no_classifiers_have_a_main_output() -> None:
    assert choose_main_output(named_tensors({"a": C, "b": C}), 4) == "a"
    assert choose_main_output(named_tensors((C, A, -A)), 4) == "1"
    with pytest.raises(OutputError, match="not clear"):
        choose_main_output(named_tensors((A, B)), 4)
    with pytest.raises(OutputError, match="not clear"):
        choose_main_output(named_tensors((A, -A)), 4, num_classes=10)


@pytest.mark.parametrize("name", CLEAR)
def test_networks_return_the_logits_alone(name: str) -> None:
    network = WithResult(CLEAR[name]).eval()
    expected = plain(network).eval()(IMAGES)
    take_output(network, IMAGES[:2])
    assert torch.equal(network(IMAGES), expected)
    assert torch.equal(copy.deepcopy(network)(IMAGES), expected)
    assert take_output(network, IMAGES[:2]) is None
    with pytest.raises(OutputError, match="without names"):
        take_output(network, IMAGES[:2], output="logits")


@pytest.mark.parametrize("name", CLEAR)
def test_traced_and_quantized_like_the_plain_network(name: str) -> None:
    network = WithResult(CLEAR[name])
    one, other = ghnq.trace(network, (3, 12, 12)), ghnq.trace(plain(network), (3, 12, 12))
    assert (one.nodes, one.edges, one.parameters, one.num_outputs) == (
        other.nodes, other.edges, other.parameters, other.num_outputs
    )  # fmt: skip
    quantized = ghnq.quantize(network, "w4a8", calibration=IMAGES)
    expected = ghnq.quantize(plain(network), "w4a8", calibration=IMAGES)(IMAGES)
    result = quantized(IMAGES)
    assert type(result) is type(network(IMAGES))  # everything that the module returns
    assert any(torch.equal(tensor, expected) for tensor in named_tensors(result).values())


def test_traced_by_the_number_of_classes_and_by_name() -> None:
    network = WithResult(BY_CLASSES["tuple"])
    assert ghnq.trace(network, (3, 12, 12), num_classes=10) == ghnq.trace(network, (3, 12, 12), output="1")
    with pytest.raises(OutputError, match="not clear"):
        ghnq.trace(network, (3, 12, 12))
    assert ghnq.trace(WithResult(UNCLEAR), (3, 12, 12)).num_outputs == 10


@pytest.mark.parametrize("wrap", [lambda c, y: Output(c, y), lambda c, y: SimpleNamespace(c=c, logits=y),
                                  lambda c, y: (c, y)])  # fmt: skip
def test_a_norm_is_not_folded_into_a_convolution_whose_output_is_a_result(wrap: Any) -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Any:
            early = self.conv(x)
            return wrap(early, self.fc(torch.relu(self.norm(early)).mean((2, 3))))

    network = Early()
    prepared = prepare(network, IMAGES)
    assert prepared.data_flow.norm_pairs == ()
    early = next(iter(named_tensors(prepared.quantize("float32")(IMAGES)).values()))
    assert torch.equal(early, network.conv(IMAGES))
