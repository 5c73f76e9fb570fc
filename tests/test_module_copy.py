"""A quick copy of a module is what `copy.deepcopy` makes of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghnq.module_copy import copy_module


class Odd(nn.Module):
    """Attributes of every kind, a shared layer, a shared list, a cycle, hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.again = self.first
        self.attention = nn.MultiheadAttention(4, 2)
        self.register_buffer("table", torch.arange(3))
        self.register_parameter("none", None)
        self.sizes, self.pair = [1, [2, 3]], (1, "a")
        self.same_sizes = self.sizes
        self.mixed = {"a": [1], ("b", 2): {3}, 4: torch.ones(2)}
        self.layers = {"first": self.first}
        self.function = torch.relu
        object.__setattr__(self, "cycle", self)
        self.first.register_forward_hook(self.look)
        self.register_load_state_dict_pre_hook(_nothing)

    def look(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self.seen = output.shape

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)  # type: ignore[no-any-return]


def _nothing(*_: Any) -> None:
    pass


class Own(nn.Linear):
    """A class with a way of its own to be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        new = Own(1, 1)
        new.mark = "copied by itself"  # type: ignore[assignment]
        return new


def test_copies_equal_those_of_deepcopy() -> None:
    module = Odd()
    ours, theirs = copy_module(module, {}), copy.deepcopy(module)
    for new in (ours, theirs):
        assert isinstance(new, Odd)
        assert new.again is new.first is not module.first
        assert new.layers["first"] is new.first
        assert new.same_sizes is new.sizes is not module.sizes
        assert new.sizes == [1, [2, 3]]
        assert new.sizes[1] is not module.sizes[1]
        assert new.cycle is new
        assert new.function is torch.relu
        assert list(new.__dict__) == list(module.__dict__)
        new(torch.zeros(1, 3, 5, 5))
        assert "seen" in new.__dict__
        assert "seen" not in module.__dict__
    for a, b in zip(ours.modules(), theirs.modules(), strict=True):
        assert type(a) is type(b)
        assert {k: len(v) for k, v in a.__dict__.items() if isinstance(v, dict)} == {
            k: len(v) for k, v in b.__dict__.items() if isinstance(v, dict)
        }
    for (name, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert a.data_ptr() != module.state_dict()[name].data_ptr()


def test_a_class_that_defines_its_copying_is_respected() -> None:
    new = copy_module(nn.Sequential(Own(3, 4), nn.ReLU()), {})
    assert new[0].mark == "copied by itself"  # type: ignore[index]


def test_the_memo_replaces() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    put = nn.Parameter(torch.ones(2, 2))
    new = copy_module(module, {id(module[0].weight): put})
    assert new[0].weight is put  # type: ignore[index]
    assert new[1].weight is put  # type: ignore[index]


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_gradients_are_kept(training: bool) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train(training)
    module[0].weight.requires_grad_(False)
    new = copy_module(module, {})
    assert [m.training for m in new.modules()] == [training] * 3
    assert [p.requires_grad for p in new.parameters()] == [False, True]
