"""What a page shows of a search: every architecture that was measured, in the order of the trials."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ghnq.report.columns import columns_of


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One architecture.

    Attributes:
        trial: The number of its trial; proposals that are not measured have numbers as well.
        values: Of the objectives, in their order.
        parameters: The number of scalars.
        depth: Layers on the longest path.
        family: `stages` or `cells`.
        model: The name of its spec; empty for one that is not on the front.
    """

    trial: int
    values: list[float]
    parameters: int
    depth: int
    family: str
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchPart:
    """A search. Searches are comparable where everything but `sampler`, `seed` and `trials` is equal.

    Attributes:
        objectives: By name, whether it is to be large.
        signal: What accuracy is.
        scheme: At which scheme.
        images: Held-out training images that each architecture was measured on.
        minutes: Of fine-tuning for each; 0 where there is none.
        data: The name of the images.
        data_hash: Of their content.
        worth: What the order of the values is worth, in sentences.
    """

    objectives: dict[str, bool]
    signal: str
    scheme: str
    images: int
    minutes: float
    data: str
    data_hash: str
    sampler: str
    seed: int
    worth: list[str]
    trials: list[TrialRow]

    def to_json(self) -> dict[str, Any]:
        """Returns the search as JSON; the trials as columns."""
        return asdict(replace(self, trials=[])) | {"trials": columns_of(self.trials, TrialRow)}
