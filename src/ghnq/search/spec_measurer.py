"""Sizes and signals of architectures of a space that a search proposes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from ghnq import spaces
from ghnq.errors import GhnqError
from ghnq.evaluation.engine import Engine
from ghnq.graph import trace
from ghnq.quant import QuantScheme
from ghnq.search.candidates import Candidate, Failure
from ghnq.search.measuring import Measurer, Task
from ghnq.search.signals import SIGNALS
from ghnq.search.sizes import Sizes, sizes_of
from ghnq.search.subject import Bench, Budget
from ghnq.spaces import Spec


@dataclass(frozen=True, eq=False)
class SpecMeasurer:
    """Measures architectures at one scheme.

    Attributes:
        space: The name of the space.
        bench: Held-out images, and where parameters come from.
        scheme: Its name in results, and itself.
        signal: What is measured, by its name.
        budget: For each architecture.
        engine: Where the measurements run.
    """

    space: str
    bench: Bench
    scheme: tuple[str, QuantScheme]
    signal: str
    budget: Budget
    engine: Engine

    def sizes(self, spec: Spec) -> Sizes:
        """Returns what an architecture costs at the scheme, from its graph."""
        dataset = self.bench.dataset
        module = self._candidate(spec).build(dataset.input_shape, dataset.num_classes)
        return sizes_of(trace(module, dataset.input_shape), self.scheme[1])

    def values(self, specs: Sequence[Spec]) -> Iterator[float]:
        """Yields the signal of architectures of different structure, in their order.

        Raises:
            GhnqError: One cannot be measured; members of a space always can, so it is a fault of ghnq.
        """
        candidates = {spec.structure_hash: self._candidate(spec) for spec in specs}
        measurer = Measurer(self.bench, candidates, dict([self.scheme]))
        tasks = [Task(name, name, self.signal, self.scheme[0], self.budget) for name in candidates]
        found: dict[str, float] = {}
        with closing(self.engine.run(measurer.measure, tasks)) as results:
            for result in results:
                if isinstance(result, Failure):
                    raise GhnqError(f"{candidates[result.name].name} cannot be measured: {result.reason}")
                value = result["value"]
                found[result["candidate"]] = SIGNALS[self.signal].worst if value is None else value
        yield from (found[spec.structure_hash] for spec in specs)

    def _candidate(self, spec: Spec) -> Candidate:
        return Candidate(f"{self.space}:{spec.structure_hash[:12]}", space=self.space, spec=spec)


def check_space(name: str) -> str:
    """Returns the name of a space that can be searched.

    Raises:
        GhnqError: There is no such space, or it has no encoding.
    """
    if name != "convnets":
        spaces.get(name)  # says which spaces there are
        raise GhnqError(f"the space '{name}' cannot be searched: there are no decisions for it, as for convnets")
    return name
