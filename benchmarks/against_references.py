"""Claim: to trace and predict is 5 times as fast as GHN-2's reference, and faster than GHN-3's, on one CPU.

    python benchmarks/against_references.py --ppuda PATH [--ghn3 PATH] [--repeats 7] [--threads 1] [--json]

All start from a network in memory and a hypernetwork in memory, and end with a network that has the predicted
parameters: the reference by its graph (with virtual edges) and its prediction into the network, ghnq by what
`ghnq.initialize` does: trace, prediction, and a copy of the network with these parameters. The two take turns on fresh
copies, a warm-up each before; medians. Images are 3 x 224 x 224: the reference runs one through the network for its
graph, ghnq traces without data.

Against GHN-2 both have the same configuration and weights, and the largest difference between their parameters
(relative to the largest element of each) is printed. Against GHN-3-T, a transformer of its own weights, ghnq has a
hypernetwork of the same width and the same largest weight; both predict every parameter.
"""

from __future__ import annotations

import copy
import gc
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ghnq.graph import trace
from ghnq.hypernet.config import GHNConfig
from ghnq.hypernet.initialize import with_parameters
from ghnq.hypernet.model import GHN
from ghnq.hypernet.published_weights import from_published
from networks import densenet121, mobilenet_v2, resnet50
from references import GHN3_TINY, Reference, ghn2_config, load_ghn2, load_ghn3, quiet

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
    "densenet121": densenet121,
}
IMAGE = (3, 224, 224)
FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")


@dataclass
class Row:
    """Medians in milliseconds; `ratio` of the totals; `difference` of the parameters where weights are equal."""

    reference: str
    network: str
    nodes: int
    graph_ms: float
    predict_ms: float
    total_ms: float
    our_trace_ms: float
    our_predict_ms: float
    our_copy_ms: float
    our_total_ms: float
    ratio: float
    difference: float | None


def run_reference(reference: Reference, network: nn.Module) -> tuple[list[float], dict[str, Tensor]]:
    """Seconds of graph and prediction, and the parameters; the network is changed."""
    start = time.perf_counter()
    batch = reference.batch(network)
    middle = time.perf_counter()
    parameters = reference.predict(network, batch)
    return [middle - start, time.perf_counter() - middle], parameters


def run_ours(ghn: GHN, network: nn.Module) -> tuple[list[float], dict[str, Tensor]]:
    """Seconds of trace, prediction and copy, and the parameters."""
    marks = [time.perf_counter()]
    graph = trace(network, IMAGE)
    marks.append(time.perf_counter())
    with torch.no_grad():
        parameters = ghn.predict(graph)
    marks.append(time.perf_counter())
    filled = with_parameters(network, parameters)
    marks.append(time.perf_counter())
    found = {name: parameter.detach() for name, parameter in filled.named_parameters()}
    return [end - start for start, end in pairwise(marks)], found


def compare(reference: Reference, ghn: GHN, name: str, repeats: int, *, same_weights: bool) -> Row:
    """One row: both take turns on fresh copies of one network."""
    network = NETWORKS[name]()
    network.expected_input_sz = IMAGE  # what the references read
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    difference = None
    for turn in range(1 + repeats):
        theirs_to_fill, ours_to_fill = copy.deepcopy(network), copy.deepcopy(network)
        gc.collect()
        with quiet():
            seconds, expected = run_reference(reference, theirs_to_fill)
        gc.collect()
        our_seconds, found = run_ours(ghn, ours_to_fill)
        if turn:
            theirs.append(seconds)
            ours.append(our_seconds)
            continue
        if found.keys() != expected.keys() or any(found[key].shape != expected[key].shape for key in expected):
            raise RuntimeError(f"{name}: the two did not predict the same parameters")
        if same_weights:
            difference = max(float((found[k] - p).abs().max() / p.abs().max()) for k, p in expected.items())
    graph_ms, predict_ms, total_ms = _milliseconds(theirs)
    return Row(
        reference.name,
        name,
        len(trace(network, IMAGE)),
        graph_ms,
        predict_ms,
        total_ms,
        *_milliseconds(ours),
        ratio=total_ms / _milliseconds(ours)[-1],
        difference=difference,
    )


def _milliseconds(runs: list[list[float]]) -> list[float]:
    """The median of every part, and of the sums of the parts."""
    columns = [*zip(*runs, strict=True), [sum(parts) for parts in runs]]
    return [1e3 * statistics.median(column) for column in columns]


def machine() -> dict[str, Any]:
    """Processor, the features that matter for speed, torch."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    flags = re.search(r"flags\s*: (.*)", text)
    flagged = flags[1].split() if flags else []
    return {
        "cpu": model[1] if model else "unknown",
        "features": [feature for feature in FEATURES if feature in flagged],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def show(about: dict[str, Any], rows: list[Row], repeats: int) -> None:
    console = Console(width=max(110, Console().width))
    vnni = "VNNI" if any("vnni" in feature for feature in about["features"]) else "no VNNI"
    console.print(f"{about['cpu']} ({', '.join(about['features'])}; {vnni}), torch {about['torch']}")
    table = Table(title=f"median of {repeats}, {about['threads']} thread(s), ms")
    table.add_column("against")
    table.add_column("network", no_wrap=True)
    for column in ("nodes", "graph", "predict", "total", "trace", "predict", "copy", "total", "ratio"):
        table.add_column(column, justify="right")
    for r in rows:
        theirs = (r.graph_ms, r.predict_ms, r.total_ms)
        ours = (r.our_trace_ms, r.our_predict_ms, r.our_copy_ms, r.our_total_ms)
        times = [f"{ms:.0f}" for ms in (*theirs, *ours)]
        table.add_row(r.reference, r.network, str(r.nodes), *times, f"{r.ratio:.1f}")
    console.print(table)
    differences = [r.difference for r in rows if r.difference is not None]
    console.print(f"Equal weights: the largest difference of a parameter from GHN-2's is {max(differences):.1e}.")


def main(
    ppuda: Annotated[Path, typer.Option(help="A copy of github.com/facebookresearch/ppuda.")],
    ghn3: Annotated[Path | None, typer.Option(help="A copy of github.com/SamsungSAILMontreal/ghn3.")] = None,
    repeats: Annotated[int, typer.Option(min=7, help="Counted turns of each, after one uncounted.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Of both.")] = 1,
    hidden: Annotated[int, typer.Option(help="Width of the hypernetwork against GHN-2.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of the table.")] = False,
) -> None:
    """Times both on every network."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = ghn2_config(hidden)
    reference = load_ghn2(ppuda, config)
    ghn = from_published(config, reference.hypernetwork.state_dict())
    rows = [compare(reference, ghn, name, repeats, same_weights=True) for name in NETWORKS]
    if ghn3 is not None:
        sizes = {"hidden": GHN3_TINY["hid"], "max_shape": GHN3_TINY["max_shape"], "depthwise": "shared"}
        as_wide = GHN(GHNConfig.model_validate(sizes)).eval()
        reference = load_ghn3(ppuda, ghn3)
        rows += [compare(reference, as_wide, name, repeats, same_weights=False) for name in NETWORKS]
    torch.set_num_threads(threads)
    about = machine()
    if as_json:
        print(json.dumps({**about, "repeats": repeats, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(about, rows, repeats)


if __name__ == "__main__":
    typer.run(main)
