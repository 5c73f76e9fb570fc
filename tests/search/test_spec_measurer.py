"""What a search is told of architectures whose predicted network is not finite."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest

from ghnq.quant import QuantScheme
from ghnq.search.spec_measurer import SpecMeasurer
from ghnq.search.subject import Bench, Budget
from ghnq.spaces import convnets


class NothingIsFinite:
    """An engine all of whose tasks come back without a value."""

    def run(self, task: Callable[[Any], Any], arguments: Iterable[Any]) -> Generator[Any, None, None]:
        yield from ({"candidate": each.candidate, "value": None} for each in arguments)


@pytest.mark.parametrize(("signal", "any_finite"), [("accuracy", 0.0), ("loss", -300.0), ("finetune", 0.0)])
def test_a_network_that_is_not_finite_is_worse_than_any(bench: Bench, signal: str, any_finite: float) -> None:
    scheme = ("w4a8", QuantScheme.parse("w4a8"))
    engine: Any = NothingIsFinite()
    measurer = SpecMeasurer("convnets", bench, scheme, signal, Budget(60), engine)
    (value,) = measurer.values([convnets.spec("test", 3)])
    assert value <= any_finite
