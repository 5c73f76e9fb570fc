"""What is said about the worth of an order, from the data that comes with the package and from any other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ghnq.search.evidence import Evidence, evidence
from ghnq.search.signals import DEFAULT, SCREENING

MEASURED = {
    "tau": 0.25, "interval": [-0.1, 0.5], "within_budget": 0.125, "within_interval": [-0.25, 0.375],
    "lost_by_top_5": 1.75, "seconds": 3.0,
}  # fmt: skip


def made_up(**fitted: object) -> Evidence:
    return Evidence.model_validate_json(
        Evidence.model_validate(
            {
                "target": "accuracy of three networks", "networks": 3, "images": 2000, "training_seconds": 30.0,
                "caution": "Only three.",
                "signals": {"macs": {"tau": 0.5}, "loss": MEASURED},
                "fits": {"fitted": {"terms": {"macs": 1.0, "loss": -0.5}, "note": "a fit", **MEASURED, **fitted}},
            },
            strict=False,
        ).model_dump_json()
    )  # fmt: skip


def test_the_shipped_evidence_knows_what_it_ranks_by() -> None:
    found = evidence()
    assert {DEFAULT, SCREENING} <= found.fits.keys()
    assert found.worth(DEFAULT) is found.fits[DEFAULT]
    for worth in (*found.fits.values(), *found.signals.values()):
        for value, bounds in ((worth.tau, worth.interval), (worth.within_budget, worth.within_interval)):
            if value is not None and bounds is not None:
                assert bounds[0] <= value <= bounds[1]


def test_all_that_was_measured_is_said() -> None:
    first, second, third = made_up().lines("fitted")
    assert first.startswith(
        "Kendall's tau of 'fitted' is 0.25 (-0.10 to 0.50), within a budget 0.12 (-0.25 to 0.38); the best of its "
        "first five is 1.8 points below the best of a budget. It is macs - 0.5 loss (a fit)."
    )
    assert "Of others (within a budget in brackets): 'macs' 0.50, 'loss' 0.25 (0.12). 1 is the right order" in first
    assert (second, third) == ("It was compared with the accuracy of three networks.", "Only three.")
    assert made_up().lines("loss")[0].startswith("Kendall's tau of 'loss' is 0.25 (-0.10 to 0.50), within")
    assert "'loss'" not in made_up().lines("loss")[0].partition("Of others")[2]
    assert made_up().lines("naswot")[0] == "How well 'naswot' orders networks has not been measured."


def test_another_budget_than_that_of_the_study_is_said() -> None:
    assert made_up().lines("loss", images=2000, training_seconds=30) == made_up().lines("loss")
    _, _, said, caution = made_up().lines("loss", images=143, training_seconds=6.5)
    assert said.startswith("These figures are of 2,000 images and 30 s of training, here 143 and 6.5:")
    assert caution == "Only three."
    assert "of 30 s of training, here 60:" in made_up().lines("loss", images=2000, training_seconds=60)[2]


@pytest.mark.parametrize("wrong", [{"tau": 1.5}, {"within_budget": -2}, {"terms": {}}, {"p": 0.1}])
def test_evidence_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        made_up(**wrong)
