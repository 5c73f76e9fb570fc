"""Claim: spec to built module to graph, at least 100 architectures a second on one core.

    python benchmarks/trace_speed.py [ARCHITECTURES] [SPLIT]

Three stages, as training takes them: a spec is drawn (pure function of the index), built on `meta` (no weights), and
traced for 3x32x32 images. The graph's shortest paths are counted as the fourth, since the virtual edges need them.
The rate is architectures over the sum of the first three, by the clock and by the processor time of this process (the
two differ where other programs run beside it); one thread.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

from ghnq.graph import trace
from ghnq.spaces import convnets

WARM_UP = 20


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    split = sys.argv[2] if len(sys.argv) > 2 else "train"
    torch.set_num_threads(1)
    for index in range(WARM_UP):
        trace(convnets.build(convnets.spec(split, index), device="meta"), (3, 32, 32))

    seconds: dict[str, list[float]] = {"spec": [], "build": [], "trace": [], "distances": []}
    nodes = []
    processor = 0.0
    for index in range(WARM_UP, WARM_UP + count):
        before = time.process_time()
        marks = [time.perf_counter()]
        spec = convnets.spec(split, index)
        marks.append(time.perf_counter())
        module = convnets.build(spec, device="meta")
        marks.append(time.perf_counter())
        graph = trace(module, (3, 32, 32))
        marks.append(time.perf_counter())
        processor += time.process_time() - before
        graph.distances()
        marks.append(time.perf_counter())
        for stage, start, end in zip(seconds, marks, marks[1:], strict=False):
            seconds[stage].append(end - start)
        nodes.append(len(graph.nodes))

    to_graph = [sum(stages) for stages in zip(seconds["spec"], seconds["build"], seconds["trace"], strict=True)]
    report = {
        "split": split,
        "architectures": count,
        "nodes_mean": round(statistics.mean(nodes), 1),
        "milliseconds_mean": {stage: round(1000 * statistics.mean(times), 3) for stage, times in seconds.items()},
        "slowest_milliseconds": round(1000 * max(to_graph), 1),
        "architectures_per_second": round(count / sum(to_graph), 1),
        "architectures_per_processor_second": round(count / processor, 1),
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
