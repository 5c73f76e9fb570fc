"""Which of many networks of one's own to go on with, within the budget of a device, and what the order is worth.

    python examples/rank_candidates.py [--max-macs 300000] [--by fitted]

As a command, which also writes weights and a page: ghnq rank examples/rank_candidates.py:CANDIDATES --out ranked
"""

from __future__ import annotations

import argparse
from functools import partial

from torch import nn

import ghnq
from ghnq.evaluation.engine import engine_of
from ghnq.prediction import PredictedWeights
from ghnq.search.candidate_words import read_candidates
from ghnq.search.evidence import evidence
from ghnq.search.limits import Limits
from ghnq.search.measuring import Measurer
from ghnq.search.ranking import rank
from ghnq.search.settings import Settings
from ghnq.search.signals import signal_of
from ghnq.search.subject import Bench


def network(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = []
    for index in range(depth):
        inputs, outputs = (width << max(index - 1, 0) if index else 1), width << index
        layers += [nn.Conv2d(inputs, outputs, 3, stride=1 + index % 2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << (depth - 1), 10))


CANDIDATES = {f"{w}x{d}": partial(network, w, d) for w in (4, 6, 8, 12, 16, 24) for d in (2, 3, 4)}


def main(max_macs: int, by: str) -> None:
    ghn, digits = ghnq.GHN.from_pretrained("digits"), ghnq.load_dataset("digits", image_size=16)
    candidates = read_candidates([f"{__file__}:CANDIDATES"], n=None, seed=0).usable
    measurer = Measurer(Bench.of(PredictedWeights(ghn), digits), candidates, {"w4a8": ghnq.QuantScheme.parse("w4a8")})
    settings = Settings(by=signal_of(by), limits=Limits(multiply_adds=max_macs), top=5)
    found = rank(measurer, settings, engine=engine_of(None, 1))

    print(f"{len(found.filtered.kept)} of {found.candidates} candidates have at most {max_macs:,} multiply-adds")
    for each in found.best:
        print(
            f"{each.name.split(':')[-1]:18} {each.sizes.multiply_adds:9,} macs, {each.accuracy['w4a8']:5.1f} % at w4a8"
        )
    print("\n".join(evidence().lines(by)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-macs", type=int, default=300_000)
    parser.add_argument("--by", default="fitted")
    main(**vars(parser.parse_args()))
