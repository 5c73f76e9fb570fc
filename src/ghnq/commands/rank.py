"""`ghnq rank`: which of many candidates will be good at a few bits, within the budget of a device."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from ghnq.commands.calibrated_weights import calibrated_weights
from ghnq.commands.options import check_folder, check_protocol, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.rank_output import candidate_lines, document, lines, next_commands, shown_names, table
from ghnq.commands.report import write_folder_page
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import ChosenWeights, about_condition, choose_weights
from ghnq.errors import GhnqError
from ghnq.evaluation.engine import engine_of
from ghnq.evaluation.named_schemes import name_schemes
from ghnq.evaluation.provenance import machine, versions
from ghnq.files import write_text
from ghnq.prediction import CALIBRATION_IMAGES
from ghnq.progress import ProgressCallback
from ghnq.recorded_names import command_text
from ghnq.report.architectures import MOST_DRAWN
from ghnq.report.graph_file import write_graphs
from ghnq.report.readers.ranking import CANDIDATES_FILE
from ghnq.report.readers.ranking import FILE as RESULT_FILE
from ghnq.search.candidate_words import read_candidates
from ghnq.search.candidates import Candidates
from ghnq.search.evidence import evidence
from ghnq.search.latency import LatencyTest
from ghnq.search.ledger import RankLedger
from ghnq.search.limits import Limits
from ghnq.search.measuring import Measurer
from ghnq.search.ranking import Ranking
from ghnq.search.ranking import rank as rank_candidates
from ghnq.search.settings import Settings
from ghnq.search.signals import signal_of
from ghnq.search.subject import Bench, Budget
from ghnq.spaces.spec_file import write_spec_file
from ghnq.torch_threads import one_torch_thread

BEST_FOLDER = "best"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command that say what is measured, as they are given."""

    checkpoint: str | None
    data: str | None
    head: str | None
    output: str | None
    schemes: str
    protocol: str | None
    steps: str | None
    n: int | None
    seed: int
    by: str
    images: int
    minutes: float
    halve: bool
    on: str
    top: int
    max_latency: float | None
    limits: Limits
    workers: int | None
    cluster: str | None

    def settings(self) -> Settings:
        """Returns the settings of the ranking.

        Raises:
            GhnqError: A value is not allowed.
        """
        if self.on not in ("val", "test"):
            raise GhnqError(f"there are no images '{self.on}'; --on takes val or test")
        return Settings(
            by=signal_of(self.by),
            limits=self.limits,
            top=self.top,
            budget=Budget(self.images, 60 * self.minutes),
            halve=self.halve,
            on="test" if self.on == "test" else "val",
            max_latency=self.max_latency,
        )


def rank(words: Sequence[str], options: Options, *, out: Path | None, as_json: bool) -> None:
    """Ranks what `words` name; `out` gets the measurements as they are made, the result, and weights of the best."""
    check_protocol(options.protocol)
    named = name_schemes(parse_list(options.schemes, "--scheme"), options.protocol, parse_steps(options.steps))
    settings = options.settings()
    scheme = next(iter(named.values()))
    latency = None if options.max_latency is None else LatencyTest(scheme)
    if out is not None:
        check_folder(out)
    with Terminal(as_json=as_json) as terminal:
        with terminal.progress.status("Reading the candidates"):
            candidates = read_candidates(words, n=options.n, seed=options.seed)
        _check_output(options.output, candidates)
        chosen = choose_weights(options.checkpoint, None, options.data, options.head, options.output)
        if chosen.ghn is not None and (about := about_condition(chosen.ghn, scheme)) is not None:
            terminal.warn(about)
        bench = Bench.of(chosen.source, chosen.dataset, options.seed, options.output)
        measurer = Measurer(bench, candidates.usable, named)

        def stage(what: str) -> AbstractContextManager[ProgressCallback]:
            return measuring(terminal.progress, what)

        with RankLedger(out, _fingerprint(chosen, measurer, options), machine()) as ledger:
            try:
                ranking = rank_candidates(
                    measurer, settings, engine=engine_of(options.cluster, options.workers), ledger=ledger, stage=stage,
                    failures=candidates.failures, latency=latency,
                )  # fmt: skip
            except KeyboardInterrupt:
                _say_what_is_kept(terminal, ledger, out)
                raise
        result = document(ranking, settings, chosen, measurer, options.seed)
        result |= {} if options.output is None else {"output": options.output}
        files: dict[str, Path] = {}
        page: Path | None = None
        if out is not None:
            files = _write_best(ranking, candidates, measurer, chosen, out, terminal)
            result |= {"weights": [str(file.relative_to(out)) for file in files.values()]}
        commands = next_commands(
            ranking, files, scheme=parse_list(options.schemes, "--scheme")[0], checkpoint=options.checkpoint,
            data=options.data, output=options.output,
        )  # fmt: skip
        result |= {"next": commands, "warnings": terminal.warnings}
        if out is not None:
            kept = result | {"next": [command_text(shlex.split(command)) for command in commands]}
            page = _write_result(ranking, candidates, measurer, kept, out, terminal)
        terminal.finish(
            result,
            table(ranking, settings, chosen, measurer),
            *lines(ranking, settings, bench, out, page),
            "next:",
            *(escape(f"  {command}") for command in commands),
        )


def _fingerprint(chosen: ChosenWeights, measurer: Measurer, options: Options) -> dict[str, object]:
    """Returns everything that a measurement depends on besides its key."""
    bench = measurer.bench
    return {
        "command": "rank",
        "checkpoint_sha256": chosen.sha256,
        "head": "predicted" if chosen.head is None else "solved",
        "data_sha256": bench.dataset.content_hash,
        "image_shape": list(bench.dataset.input_shape),
        "protocol": options.protocol or "deploy",
        "steps": options.steps or "",
        "fits": {name: dict(fit.terms) for name, fit in evidence().fits.items()},
        "seed": options.seed,
        "versions": versions(),
        **({} if options.output is None else {"output": options.output}),
    }


def _check_output(output: str | None, candidates: Candidates) -> None:
    member = next((each.name for each in candidates if each.spec is not None), None)
    if output is not None and member is not None:
        raise GhnqError(
            f"--output {output} is for networks that return several tensors, and {member} returns its logits alone; "
            "rank members of spaces without --output"
        )


def _say_what_is_kept(terminal: Terminal, ledger: RankLedger, out: Path | None) -> None:
    kept = (
        "nothing is kept without --out"
        if out is None
        else f"{len(ledger):,} measurements are kept in '{out}'; the same command goes on with the others"
    )
    terminal.progress.print(f"Interrupted; {kept}.", soft_wrap=True, highlight=False)


def _write_best(
    ranking: Ranking, candidates: Candidates, measurer: Measurer, chosen: ChosenWeights, out: Path, terminal: Terminal
) -> dict[str, Path]:
    """Writes predicted weights of the best, and specs of members of spaces; returns the files of weights by name.

    Files of an earlier ranking in the same folder are removed.
    """
    files, folder = {}, out / BEST_FOLDER
    for earlier in folder.glob("[0-9]*-*"):
        if earlier.suffix in (".json", ".safetensors"):
            earlier.unlink()
    scheme = next(iter(measurer.schemes.values()))
    for number, each in enumerate(ranking.best, start=1):
        stem = folder / f"{number:02d}-{_slug(each.name)}"
        candidate = candidates.usable[each.name]
        if candidate.spec is not None:
            write_spec_file(stem.with_name(f"{stem.name}.json"), candidate.space, candidate.spec)
        try:
            network = measurer.network(each.name, CALIBRATION_IMAGES)
            with one_torch_thread():
                weights, about = calibrated_weights(network, chosen, each.name, scheme)
        except GhnqError as error:
            terminal.warn(f"no weights are written for {each.name}: {error}")
            continue
        for text in about:
            terminal.warn(f"{each.name}: {text}")
        files[each.name] = stem.with_name(f"{stem.name}.safetensors")
        weights.save(files[each.name])
    return files


def _write_result(
    ranking: Ranking,
    candidates: Candidates,
    measurer: Measurer,
    result: dict[str, object],
    out: Path,
    terminal: Terminal,
) -> Path:
    """Writes the candidates, the result, graphs of the best and the page, and returns the page.

    Graphs of members of a split are not written: pages make them from their names.
    """
    names = shown_names(ranking, measurer)
    drawn = [
        each.name for each in ranking.best if candidates.usable[each.name].spec is None or each.name.count("/") != 2
    ]
    write_text(out / CANDIDATES_FILE, candidate_lines(ranking, names))
    write_text(out / RESULT_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_graphs(out, {names[name]: measurer.network(name, 0).graph for name in drawn[:MOST_DRAWN]})
    return write_folder_page(out, terminal)


def _slug(name: str) -> str:
    """Returns a file name: `convnets/test/8` -> `convnets-test-8`, `my/nets.py:Z[a]` -> `nets.py-Z-a`."""
    source, colon, rest = name.partition(":")
    return re.sub(r"[^\w.]+", "-", f"{Path(source).name}{colon}{rest}" if colon else name).strip("-")[:80]
