"""The tasks of a ranking, each a function of one candidate: its size, then its signals. They run in any process.

What a candidate's own code raises makes that candidate fail, and no other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ghnq.analysis.score_ledger import code_hash
from ghnq.memory import keep_freed_memory
from ghnq.prediction import Network, check_outputs
from ghnq.quant import QuantScheme
from ghnq.recorded_names import model_name
from ghnq.search.candidates import Candidate, Failure, check_memory, reason_of
from ghnq.search.ledger import KeptRow, On
from ghnq.search.signals import SIGNALS
from ghnq.search.sizes import Sizes, sizes_of
from ghnq.search.subject import Bench, Budget


@dataclass(frozen=True)
class Sized:
    """A candidate that can be traced.

    Attributes:
        name: Of the candidate.
        network: The hash of what it computes; equal ones are measured once.
        sizes: At the scheme that is ranked by.
    """

    name: str
    network: str
    sizes: Sizes


@dataclass(frozen=True)
class Task:
    """One signal of one candidate."""

    candidate: str
    network: str
    signal: str
    scheme: str
    budget: Budget
    on: On = "val"


@dataclass(frozen=True, eq=False)
class Measurer:
    """Measures candidates.

    Attributes:
        bench: Held-out images, and where parameters come from.
        candidates: By name.
        schemes: By the names that they have in results; the first one is ranked by.
    """

    bench: Bench
    candidates: Mapping[str, Candidate]
    schemes: Mapping[str, QuantScheme]

    def size(self, name: str) -> Sized | Failure:
        """Traces a candidate and counts its size."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = self.network(name, 0)
                check_outputs(network.graph.num_outputs, self.bench.dataset)
                check_memory(network.graph.num_parameters)
                scheme = next(iter(self.schemes.values()))
                return Sized(name, code_hash(network), sizes_of(network.graph, scheme))
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return Failure(name, reason_of(error))

    def measure(self, task: Task) -> KeptRow | Failure:
        """Measures a signal."""
        keep_freed_memory()
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # told once for a single network, not for a thousand
                module = self._module(task.candidate)
                bench = self.bench if task.on == "val" else self.bench.on_test()
                subject = bench.subject(module, self.schemes[task.scheme], task.budget)
                value = SIGNALS[task.signal].measure(subject)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return Failure(task.candidate, reason_of(error))
        return KeptRow(
            candidate=model_name(task.candidate),
            network=task.network,
            signal=task.signal,
            scheme=task.scheme,
            on=task.on,
            images=task.budget.images,
            finetuning_seconds=task.budget.seconds,
            value=value,
            seconds=round(time.perf_counter() - start, 4),
        )

    def network(self, name: str, images: int) -> Network:
        """Returns the network of a candidate, calibrated as for so many images."""
        scheme = next(iter(self.schemes.values()))
        return self.bench.subject(self._module(name), scheme, Budget(images)).network

    def _module(self, name: str) -> nn.Module:
        dataset = self.bench.dataset
        return self.candidates[name].build(dataset.input_shape, dataset.num_classes)
