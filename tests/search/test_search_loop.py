"""The loop of a search on a made-up accuracy: budgets, repeats, processes, resuming, refusals."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from statistics import mean

import optuna
import pytest

from ghnq.errors import GhnqError
from ghnq.search.encoding.convnets import DECISIONS
from ghnq.search.encoding.convnets_bounds import outside
from ghnq.search.limits import Limits
from ghnq.search.loop import EVALUATED, HASH, SPEC, Problem, Search, evaluated
from ghnq.search.samplers import SAMPLERS, distributions, make_sampler
from ghnq.search.shared_study import SharedStudy
from ghnq.search.sizes import Sizes
from ghnq.search.study import check_objectives, open_storage, open_study, register_process
from ghnq.spaces.convnets.spec_cost import cost
from ghnq.spaces.convnets.specs import Spec

SPACE = distributions(DECISIONS)


def sizes(spec: Spec) -> Sizes:
    size = cost(spec)
    return Sizes(size.parameters, size.multiply_adds, 4 * size.parameters, 1000)


def depth_in_percent(specs: Sequence[Spec]) -> list[float]:
    return [float(min(100, cost(spec).depth)) for spec in specs]


def problem(limits: Limits | None = None) -> Problem:
    return Problem(("accuracy", "macs"), sizes, depth_in_percent, limits or Limits())


def shared(
    folder: Path, *, sampler: str = "random", seed: int = 0, url: str | None = None, resume: bool = False
) -> SharedStudy:
    where = url or str(folder)
    stored = open_study(
        open_storage(url, folder), where, objectives=("accuracy", "macs"), settings={"scheme": "w4a8"}, resume=resume
    )
    return SharedStudy(stored, make_sampler(sampler, SPACE, seed, register_process(stored, where)), where)


@pytest.mark.parametrize("sampler", [pytest.param("tpe", marks=pytest.mark.slow), *sorted({*SAMPLERS} - {"tpe"})])
def test_every_evaluated_architecture_is_allowed_and_evaluated_once(tmp_path: Path, sampler: str) -> None:
    study = shared(tmp_path, sampler=sampler)
    limits = Limits(multiply_adds=8_000_000)
    Search(study, problem(limits), batch=3).run(24)
    trials = study.trials()
    done = [trial for trial in trials if trial.user_attrs.get(EVALUATED)]
    assert len(done) == evaluated(study) == 24
    assert len({trial.user_attrs[HASH] for trial in done}) == 24
    for trial in done:
        spec = Spec.from_json(trial.user_attrs[SPEC])
        assert not any(outside(spec).values())
        assert trial.values == [depth_in_percent([spec])[0], cost(spec).multiply_adds]
        assert trial.values[1] <= 8_000_000
    front = study.stored.best_trials
    assert front
    assert all(max(trial.constraints.values()) <= 0 for trial in front)
    for one in front:  # nothing evaluated dominates the front
        assert not any(
            t.values[0] >= one.values[0] and t.values[1] <= one.values[1] and t.values != one.values for t in done
        )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nsga2", "regularized-evolution"])
def test_evolution_finds_better_networks_than_chance(sampler: str) -> None:
    """One objective, 120 evaluations: the best of evolution against the best of chance, means of three seeds."""
    best: dict[str, list[float]] = {"random": [], sampler: []}
    for name, seed in product(best, range(3)):
        stored = optuna.create_study(directions=["maximize"])
        study = SharedStudy(stored, make_sampler(name, SPACE, seed), "memory")
        Search(study, Problem(("accuracy",), sizes, sums_in_percent, Limits())).run(120)
        best[name].append(stored.best_value)
    assert mean(best[sampler]) > mean(best["random"]) + 1


def sums_in_percent(specs: Sequence[Spec]) -> list[float]:
    """The share of sums among the nodes, of which few drawn networks have many."""
    return [100 * cost(spec).ops["sum"] / cost(spec).nodes for spec in specs]


def test_a_search_goes_on_and_draws_other_architectures(tmp_path: Path) -> None:
    Search(shared(tmp_path), problem()).run(5)
    again = shared(tmp_path, resume=True)
    Search(again, problem()).run(12)
    done = [trial for trial in again.trials() if trial.user_attrs.get(EVALUATED)]
    assert len({trial.user_attrs[HASH] for trial in done}) == 12
    assert evaluated(shared(tmp_path, resume=True)) == 12


def test_an_interrupted_evaluation_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(specs: Sequence[Spec]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Search(shared(tmp_path), Problem(("accuracy", "macs"), sizes, interrupted, Limits())).run(5)
    stored = shared(tmp_path, resume=True).stored
    assert not any(trial.user_attrs.get(EVALUATED) or not trial.state.is_finished() for trial in stored.trials)


def run_some(folder: str, url: str | None, seed: int) -> None:
    Search(shared(Path(folder), sampler="nsga2", seed=seed, url=url, resume=True), problem()).run(20)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_one_study(tmp_path: Path, kind: str) -> None:
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/study.db"
    shared(tmp_path, url=url)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_some, args=(str(tmp_path), url, seed)) for seed in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    study = shared(tmp_path, url=url, resume=True)
    assert 20 <= evaluated(study) <= 21
    writers = {trial.user_attrs["writer"] for trial in study.trials()}
    assert len(writers) == 2


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    Search(shared(tmp_path), problem()).run(1)
    storage = open_storage(None, tmp_path)
    with pytest.raises(GhnqError, match="whose objectives is accuracy,macs, not accuracy,bytes"):
        open_study(storage, "here", objectives=("accuracy", "bytes"), settings={"scheme": "w4a8"}, resume=True)
    with pytest.raises(GhnqError, match="whose scheme is w4a8, not w8a8"):
        open_study(storage, "here", objectives=("accuracy", "macs"), settings={"scheme": "w8a8"}, resume=True)
    with pytest.raises(GhnqError, match="already has a study with trials; go on with it"):
        open_study(storage, "here", objectives=("accuracy", "macs"), settings={"scheme": "w4a8"}, resume=False)


def test_limits_that_exclude_nearly_everything_end_with_what_excludes(tmp_path: Path) -> None:
    with pytest.raises(GhnqError, match=r"the last 60 proposed .*--max-params excludes \d+\); raise the limits"):
        Search(shared(tmp_path), problem(Limits(parameters=100)), patience=60).run(1)


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "sqlite:////nowhere/at/all.db", "file.db"])
def test_a_storage_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(GhnqError, match=r"the storage .* cannot be used"):
        shared(tmp_path, url=url)


def test_a_database_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_text("no database")
    with pytest.raises(GhnqError, match="cannot be used"):
        shared(tmp_path, url=f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("select 1 from trials")


@pytest.mark.parametrize(
    ("names", "message"),
    [(["acuracy"], "did you mean 'accuracy'|accuracy"), (["macs", "macs"], "each once"), ([], "give one or more")],
)
def test_objectives(names: list[str], message: str) -> None:
    with pytest.raises(GhnqError, match=message):
        check_objectives(names)


def test_an_unknown_sampler() -> None:
    with pytest.raises(GhnqError, match="nsga2"):
        make_sampler("nsga3", SPACE, 0)


def test_a_generation_without_allowed_members_does_not_end_a_search(tmp_path: Path) -> None:
    """NSGA-II counts generations in the storage: with few allowed members, a search goes on all the same."""
    tight = problem(Limits(multiply_adds=1_000_000))
    Search(shared(tmp_path, sampler="nsga2"), tight).run(2)
    again = shared(tmp_path, sampler="nsga2", resume=True)
    Search(again, tight).run(4)
    assert evaluated(again) == 4
