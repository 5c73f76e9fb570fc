"""Machines, as tables and cards name them."""

from __future__ import annotations

from ghnq.evaluation import described, machines_of

OLD = {"processor": "one", "vnni": False, "torch_capability": "AVX2", "cores": 2}
NEW = {"processor": "one", "vnni": True, "torch_capability": "AVX512", "cores": 2}


def test_machines_of_several_evaluations_are_named_once() -> None:
    summaries = [{"machines": [OLD, NEW]}, {"machines": [NEW]}, {"machines": [None, OLD]}]
    assert machines_of(summaries) == [OLD, NEW, None]


def test_machines_in_words() -> None:
    assert described([OLD]) == "2 cores (AVX2, without VNNI)"
    assert described([NEW, {**OLD, "vnni": None}, None]) == (
        "2 cores (AVX512, with VNNI) and 2 cores (AVX2, VNNI unknown) and an unknown machine"
    )
