"""`ghnq search`: architectures of a space that are good at a scheme and cheap, found by many trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from rich.markup import escape

from ghnq.commands.options import check_folder, check_protocol, parse_list, parse_steps
from ghnq.commands.progress_display import measuring
from ghnq.commands.report import write_folder_page
from ghnq.commands.search_output import ACCURACY, Found, document, front_of, lines, next_commands, table, trial_lines
from ghnq.commands.terminal import Terminal
from ghnq.commands.weight_options import ChosenWeights, about_condition, choose_weights
from ghnq.errors import GhnqError
from ghnq.evaluation.engine import engine_of
from ghnq.evaluation.named_schemes import name_schemes
from ghnq.files import write_text
from ghnq.graph import ArchGraph, trace
from ghnq.quant import QuantScheme
from ghnq.report.architectures import MOST_DRAWN
from ghnq.report.graph_file import write_graphs
from ghnq.report.readers.search import FILE as RESULT_FILE
from ghnq.report.readers.search import TRIALS_FILE
from ghnq.search.candidates import Candidate
from ghnq.search.encoding.convnets import DECISIONS
from ghnq.search.evidence import evidence
from ghnq.search.limits import Limits
from ghnq.search.loop import Problem, Search, evaluated
from ghnq.search.samplers import distributions, make_sampler
from ghnq.search.shared_study import SharedStudy
from ghnq.search.signals import SIGNALS, Effort, signal_of, worth_lines
from ghnq.search.spec_measurer import SpecMeasurer, check_space
from ghnq.search.study import JOURNAL, check_objectives, open_storage, open_study, register_process
from ghnq.search.subject import Bench, Budget
from ghnq.spaces.spec_file import write_spec_file

FRONT_FOLDER = "front"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command, as they are given."""

    space: str
    checkpoint: str | None
    data: str | None
    head: str | None
    scheme: str
    protocol: str | None
    steps: str | None
    objectives: str
    by: str
    trials: int
    sampler: str
    seed: int
    images: int
    minutes: float
    limits: Limits
    workers: int | None
    cluster: str | None
    storage: str | None

    def scheme_by_name(self) -> tuple[str, QuantScheme]:
        """Returns the scheme and its name in results.

        Raises:
            GhnqError: It is none, or there are several.
        """
        check_protocol(self.protocol)
        named = name_schemes(parse_list(self.scheme, "--scheme"), self.protocol, parse_steps(self.steps))
        if len(named) > 1:
            raise GhnqError(f"--scheme {self.scheme}: a search is for one scheme; give one")
        return next(iter(named.items()))

    def check(self) -> None:
        """Checks the values that nothing else checks.

        Raises:
            GhnqError: One is out of range.
        """
        if self.trials < 1:
            raise GhnqError(f"--trials is {self.trials}; give at least 1")
        if self.images < 1:
            raise GhnqError(f"--images is {self.images}; give at least 1")
        if not 0 < self.minutes < float("inf"):
            raise GhnqError(f"--minutes is {self.minutes:g}; give a positive number")
        *known, last = (name for name, signal in SIGNALS.items() if signal.needs_images and name not in evidence().fits)
        if signal_of(self.by).name not in (*known, last):
            raise GhnqError(
                f"--by {self.by} is no accuracy of a network that is searched for; give {', '.join(known)} or {last}"
            )


def search(options: Options, *, out: Path, resume: bool, as_json: bool) -> None:
    """Searches, and writes the study, the architectures of the Pareto front and a summary into `out`."""
    objectives = check_objectives(parse_list(options.objectives, "--objectives"))
    check_space(options.space)
    options.check()
    scheme = options.scheme_by_name()
    space = distributions(DECISIONS)
    make_sampler(options.sampler, space, options.seed)
    check_folder(out)
    with Terminal(as_json=as_json) as terminal:
        chosen = choose_weights(options.checkpoint, None, options.data, options.head)
        if chosen.ghn is not None and (about := about_condition(chosen.ghn, scheme[1])) is not None:
            terminal.warn(about)
        bench = Bench.of(chosen.source, chosen.dataset, options.seed)
        out.mkdir(parents=True, exist_ok=True)
        where = options.storage or str(out / JOURNAL)
        stored = open_study(
            open_storage(options.storage, out), where,
            objectives=objectives, settings=_settings(options, chosen, scheme[0]), resume=resume,
        )  # fmt: skip
        sampler = make_sampler(options.sampler, space, options.seed, register_process(stored, where))
        shared = SharedStudy(stored, sampler, where)
        measurer = _measurer(options, bench, scheme)
        problem = Problem(objectives, measurer.sizes, measurer.values, options.limits)
        run = Search(shared, problem, batch=min(measurer.engine.slots(), options.trials))
        try:
            with measuring(terminal.progress, "architectures") as report:
                run.run(options.trials, lambda done: report(done, options.trials))
        except KeyboardInterrupt:
            kept = f"{evaluated(shared):,} trials are kept in '{where}'; the same command with --resume goes on"
            terminal.progress.print(f"Interrupted; {kept}.", soft_wrap=True, highlight=False)
            raise
        _finish(terminal, shared, options, objectives, chosen, scheme[0], bench, out)


def _measurer(options: Options, bench: Bench, scheme: tuple[str, QuantScheme]) -> SpecMeasurer:
    seconds = 60 * options.minutes if signal_of(options.by).effort == Effort.TRAINING else 0.0
    budget = Budget(min(options.images, len(bench.measured)), seconds)
    return SpecMeasurer(options.space, bench, scheme, options.by, budget, engine_of(options.cluster, options.workers))


def _settings(options: Options, chosen: ChosenWeights, scheme: str) -> Mapping[str, object]:
    """Returns what the values of trials depend on; limits and samplers may change from one call to the next."""
    minutes = options.minutes if signal_of(options.by).effort == Effort.TRAINING else None
    return {
        "space": options.space,
        "scheme": scheme,
        "protocol": options.protocol or "deploy",
        "steps": options.steps or "",
        "signal": options.by,
        "images": options.images,
        "minutes": minutes,
        "seed": options.seed,
        "checkpoint": chosen.sha256,
        "head": "predicted" if chosen.head is None else "solved",
        "data": chosen.dataset.content_hash,
    }


def _finish(
    terminal: Terminal,
    study: SharedStudy,
    options: Options,
    objectives: tuple[str, ...],
    chosen: ChosenWeights,
    scheme: str,
    bench: Bench,
    out: Path,
) -> None:
    trials: list[optuna.trial.FrozenTrial] = study.trials()
    front = front_of(trials, objectives)
    files = []
    for number, each in enumerate(front, start=1):
        files.append(out / FRONT_FOLDER / f"{number:02d}-{each.spec.structure_hash[:12]}.json")
        write_spec_file(files[-1], options.space, each.spec)
    images = min(options.images, len(bench.measured))
    signal = signal_of(options.by)
    training = signal.effort == Effort.TRAINING
    worth = worth_lines(signal, Budget(images, 60 * options.minutes)) if ACCURACY in objectives else []
    result = document(
        front, files, trials, chosen, objectives, scheme=scheme, signal=options.by, worth=worth, images=images,
        seed=options.seed,
        sampler=options.sampler, space=options.space, protocol=options.protocol or "deploy", steps=options.steps or "",
        minutes=options.minutes if training else None,
    )  # fmt: skip
    commands = next_commands(files, out / FRONT_FOLDER, options.scheme, options.checkpoint, options.data)
    result |= {"next": commands, "warnings": terminal.warnings}
    write_text(out / TRIALS_FILE, trial_lines(trials, objectives, front, files, bench.dataset))
    write_graphs(out, _graphs(options.space, front, files, bench))
    write_text(out / RESULT_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    page = write_folder_page(out, terminal)
    terminal.finish(
        result,
        table(front, objectives, scheme, options.by, images, chosen, evaluated(study)),
        *lines(worth, out, page, options.storage),
        "next:",
        *(escape(f"  {command}") for command in commands),
    )


def _graphs(space: str, front: Sequence[Found], files: Sequence[Path], bench: Bench) -> dict[str, ArchGraph]:
    """Returns the graphs of the first architectures of the front, by the names of their files."""
    shape, classes = bench.dataset.input_shape, bench.dataset.num_classes
    return {
        file.name: trace(Candidate(file.name, space=space, spec=each.spec).build(shape, classes), shape)
        for each, file in zip(front[:MOST_DRAWN], files, strict=False)
    }
