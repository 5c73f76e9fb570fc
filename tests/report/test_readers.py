"""Readers: every kind of result becomes a document; what is damaged, half-written or of another version is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ghnq.errors import DataError, GhnqError
from ghnq.report import read_results
from ghnq.report.document import Document, unique_names
from ghnq.report.graph_file import read_graphs, write_graphs
from ghnq.report.readers import READERS
from ghnq.runs.command_record import record_command
from tests.report import folders


def one(folder: Path) -> Document:
    (document,), left_out = read_results([folder])
    assert left_out == []
    return document


def test_every_kind_is_read(tmp_path: Path) -> None:
    documents, left_out = read_results(folders.every_kind(tmp_path))
    assert left_out == []
    kinds = [document.kind for document in documents]
    assert kinds == ["evaluate", "evaluate", "finetune", "train", "sensitivity", "mixed", "profile", "rank", "search"]
    assert set(kinds) | {"score"} == {reader.kind for reader in READERS}
    assert len({document.name for document in documents}) == len(documents)


def test_an_evaluation_has_its_rows_with_sizes_and_drops(tmp_path: Path) -> None:
    correct = {("test", "float32"): [180, 170], ("test", "w4a8"): [175, 172]}
    document = one(folders.evaluation(tmp_path / "a", correct))
    assert document.accuracies is not None
    assert document.accuracies.setting.images == 200
    rows = document.accuracies.rows
    assert [(row.architecture, row.scheme, row.accuracy, row.drop) for row in rows] == [
        ("convnets/test/0", "float32", 90.0, 0.0), ("convnets/test/1", "float32", 85.0, 0.0),
        ("convnets/test/0", "w4a8", 87.5, 2.5), ("convnets/test/1", "w4a8", 86.0, -1.0),
    ]  # fmt: skip
    assert [row.weight_bytes for row in rows] == [4000, 4040, 500, 505]
    assert document.input_shape == (1, 8, 8)
    assert ("checkpoint", "made-up") in document.facts


def test_rows_of_an_unfinished_evaluation_are_shown_as_such(tmp_path: Path) -> None:
    lines = [folders.ABOUT, {"machine": {"cores": 2}}, folders.row(3, "float32", 100), folders.row(3, "w4a8", 90)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"split": "te'
    document = one(folders.write(tmp_path / "a", "rows.jsonl", text))
    assert document.accuracies is not None
    assert [(row.architecture, row.accuracy) for row in document.accuracies.rows] == [
        ("convnets/test/3", 50.0), ("convnets/test/3", 45.0),
    ]  # fmt: skip
    assert any("2 rows" in note for note in document.notes)
    assert any("cut off" in note for note in document.notes)
    assert (tmp_path / "a" / "rows.jsonl").read_text() == text  # reading changes nothing


def test_the_results_of_the_repository_can_be_read(repo_root: Path) -> None:
    documents, _ = read_results([repo_root / "results" / "digits" / "deploy"])
    assert documents[0].accuracies is not None
    lines = (repo_root / "results" / "digits" / "deploy" / "rows.jsonl").read_text().splitlines()
    assert len(documents[0].accuracies.rows) == sum('"split"' in line for line in lines)
    assert ("checkpoint", "digits") in documents[0].facts  # named by the hash of its weights


def test_sensitivity_has_what_a_layer_saves(tmp_path: Path) -> None:
    layers = one(folders.sensitivity(tmp_path / "a")).layers
    assert layers is not None
    assert [(row.layer, row.alone, pytest.approx(row.saved)) for row in layers.rows] == [
        ("stem.conv", 20.0, 40.0), ("classifier", 1.0, -20.0),
    ]  # fmt: skip


def test_an_overflow_leaves_gaps_not_numbers(tmp_path: Path) -> None:
    folder = folders.sensitivity(tmp_path / "a")
    content = json.loads((folder / "sensitivity.json").read_text())
    content["quantized"]["divergence"] = None
    content["layers"][0]["alone"] = folders.metrics(0.0, None)
    document = one(folders.write(folder, "sensitivity.json", content))
    assert document.layers is not None
    assert [(row.alone, row.saved) for row in document.layers.rows] == [(None, None), (1.0, None)]
    assert "overflows" in document.notes[0]


def test_mixed_has_bits_costs_and_sizes(tmp_path: Path) -> None:
    document = one(folders.mixed(tmp_path / "a"))
    assert document.layers is not None
    assert document.accuracies is not None
    assert [(row.layer, row.bits, row.weights) for row in document.layers.rows] == [
        ("stem.conv", "w8a8", 90), ("classifier", "w4a8", 640),
    ]  # fmt: skip
    assert [(row.scheme, row.drop, row.weight_bytes) for row in document.accuracies.rows] == [
        ("float32", 0.0, 730 * 4), ("w4a8", 5.0, 730 / 2), ("mixed", 2.0, 730 * 4.5 / 8),
    ]  # fmt: skip


def test_fine_tuning_has_before_after_and_curves(tmp_path: Path) -> None:
    document = one(folders.finetune(tmp_path / "a"))
    assert document.accuracies is not None
    assert [(row.split, row.scheme, row.accuracy, row.drop) for row in document.accuracies.rows] == [
        ("before training", "float32", 70.0, 0.0), ("before training", "w4a8", 60.0, 10.0),
        ("after training", "float32", 90.0, 0.0), ("after training", "w4a8", 88.5, 1.5),
    ]  # fmt: skip
    assert {curve.name for curve in document.curves} == {"loss", "accuracy", "lr"}


def test_a_run_that_is_not_finished_has_its_curves(tmp_path: Path) -> None:
    folder = folders.finetune(tmp_path / "a")
    (folder / "result.json").unlink()
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 30, "loss": null}\n{"step": 31, "lo')
    document = one(folder)
    assert document.accuracies is None
    loss = next(curve for curve in document.curves if curve.name == "loss")
    assert (len(loss.steps), loss.values[-1]) == (30, None)
    assert any("not finished" in note for note in document.notes)
    assert any("1 lines" in note for note in document.notes)


def test_commands_are_recorded_each_once(tmp_path: Path) -> None:
    folder = folders.evaluation(tmp_path / "a", {("test", "float32"): [1]})
    assert one(folder).commands == []
    for words in (["evaluate", "my checkpoint"], ["evaluate", "my checkpoint"], ["evaluate", "other"]):
        record_command(folder, ["/usr/bin/ghnq", *words])
    assert one(folder).commands == ["ghnq evaluate 'my checkpoint'", "ghnq evaluate other"]
    (folder / "command.json").write_text('{"commands": 3')
    assert one(folder).commands == []


def test_a_folder_of_folders_is_read_without_what_is_damaged(tmp_path: Path) -> None:
    folders.evaluation(tmp_path / "good", {("test", "float32"): [1]})
    folders.write(tmp_path / "broken", "sensitivity.json", '{"model": ')
    (tmp_path / "empty").mkdir()
    documents, left_out = read_results([tmp_path])
    assert [document.name for document in documents] == ["good"]
    assert len(left_out) == 1
    assert "half-written" in left_out[0]


def test_a_folder_with_several_results_has_all_of_them(tmp_path: Path) -> None:
    folders.evaluation(tmp_path / "a", {("test", "float32"): [1]})
    folders.sensitivity(tmp_path / "a")
    documents, _ = read_results([tmp_path / "a"])
    assert [document.kind for document in documents] == ["evaluate", "sensitivity"]
    assert len({document.name for document in documents}) == 2


def test_names_become_unique() -> None:
    def named(name: str, folder: str) -> Document:
        return Document(name=name, kind="evaluate", folder=folder)

    made = unique_names([named("a", "x/a"), named("a", "y/a"), named("b", "z/b"), named("a", "y/a")])
    assert len({document.name for document in made}) == 4
    assert made[2].name == "b"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sensitivity.json", "{", "half-written"),
        ("sensitivity.json", '{"model": "x"}', "another version"),
        ("sensitivity.json", "[]", "another version"),
        ("mixed.json", '{"model": "x"}', "another version"),
        ("profile.json", '{"file": 3}', "another version"),
        ("result.json", '{"model": "x"}', "another version"),
        ("rows.jsonl", "", "no row"),
        ("rows.jsonl", "{}\n{}\n", "not a row"),
        ("rows.jsonl", "{}\nnonsense\n", "damaged"),
        ("results.parquet", "nonsense", "results"),
        ("log.jsonl", "nonsense\n", "half-written"),
    ],
)
def test_damaged_and_other_results_are_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = folders.write(tmp_path / "a", name, content)
    with pytest.raises(GhnqError, match=message) as error:
        read_results([folder])
    assert "a" in str(error.value)


@pytest.mark.parametrize("key", ["quantized", "layers", "float32", "images"])
@pytest.mark.parametrize("value", [None, 3, "text", [], [3], {}])
def test_other_values_end_in_an_error_or_a_document(tmp_path: Path, key: str, value: object) -> None:
    folder = folders.sensitivity(tmp_path / "a")
    content = json.loads((folder / "sensitivity.json").read_text()) | {key: value}
    folders.write(folder, "sensitivity.json", content)
    try:
        read_results([folder])
    except DataError as error:
        assert "another version" in str(error)  # noqa: PT017


def test_a_table_of_scores_without_its_summary_is_half_written(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a").mkdir()
    pq.write_table(pa.table({"model": ["m"], "scheme": ["w4a8"]}), tmp_path / "a" / "results.parquet")
    with pytest.raises(DataError, match=r"half-written.*summary\.json"):
        read_results([tmp_path / "a"])


def test_rows_of_an_unfinished_score_are_shown_as_such(tmp_path: Path) -> None:
    first = {
        "command": "score",
        "data_sha256": "d" * 64,
        "on": "val",
        "images": 50,
        "protocol": "deploy",
        "steps": "squant",
    }
    common = {"network": "n", "protocol": "deploy", "images": 50, "nonfinite": 0, "parameters": 80, "multiply_adds": 90}
    rows = [{"model": "m.py:Net", "scheme": scheme, "correct": correct, **common} for scheme, correct in
            (("float32", 40), ("w4a8", 35))]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in (first, *rows))
    document = one(folders.write(tmp_path / "a", "rows.jsonl", text))
    assert document.kind == "score"
    assert document.accuracies is not None
    assert [(row.architecture, row.accuracy, row.drop) for row in document.accuracies.rows] == [
        ("m.py:Net", 80.0, 0.0), ("m.py:Net", 70.0, 10.0),
    ]  # fmt: skip
    assert (document.accuracies.setting.protocol, document.accuracies.setting.steps) == ("deploy", "squant")
    assert any("2 rows" in note for note in document.notes)


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for name, message in (
        ("missing", "does not exist"), ("file", "is a file"), ("empty", "it is empty"), ("other", "notes.txt"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_results([tmp_path / name])
    shutil.rmtree(tmp_path / "other")


def test_graphs_are_kept_beside_results(tmp_path: Path) -> None:
    from ghnq import trace
    from ghnq.models import load_model

    graph = trace(load_model("convnets/test/0", input_shape=(1, 8, 8)), (1, 8, 8))
    write_graphs(tmp_path, {"my.py:Net": graph})
    assert read_graphs(tmp_path) == {"my.py:Net": graph}
    (tmp_path / "graphs.json").write_text('{"my.py:Net": "nonsense"}')
    with pytest.raises(DataError, match=r"graphs\.json"):
        read_graphs(tmp_path)


def test_a_ranking_has_every_candidate_and_the_accuracy_of_the_best(tmp_path: Path) -> None:
    document = one(folders.ranking(tmp_path / "a"))
    ranking = document.ranking
    assert ranking is not None
    assert document.accuracies is not None
    best = sorted((row for row in ranking.candidates if row.place), key=lambda row: row.place or 0)
    assert [row.model for row in best] == [row.model for row in ranking.best]
    assert [row.value for row in best] == [row.accuracy["w4a8"] for row in ranking.best]
    assert [row.limit for row in ranking.candidates].count("--max-macs") == 3
    assert [row.round for row in ranking.candidates].count(2) == 6
    assert (ranking.all, len(ranking.candidates), ranking.failures[0][0]) == (13, 12, "nets.py:Wrong")
    setting = document.accuracies.setting
    assert (setting.of, setting.images) == ("val", 143)
    assert {row.drop for row in document.accuracies.rows} == {0.0, 1.5}
    on_test = one(folders.ranking(tmp_path / "b", test_images=360)).accuracies
    assert on_test is not None
    assert (on_test.setting.of, on_test.setting.images) == ("test", 360)
    assert {row.drop for row in on_test.rows} == {0.0, 1.0}


def test_a_search_has_every_architecture_and_the_accuracy_of_its_front(tmp_path: Path) -> None:
    document = one(folders.search(tmp_path / "a", [(90, 2000), (80, 1000), (70, 1500), (95, 9000)]))
    assert document.search is not None
    assert document.accuracies is not None
    assert [row.values for row in document.search.trials] == [[90, 2000], [80, 1000], [70, 1500], [95, 9000]]
    assert [row.accuracy for row in document.accuracies.rows] == [90, 80, 95]
    assert document.search.objectives == {"accuracy": True, "macs": False}
    by_loss = one(folders.search(tmp_path / "b", [(-1.5, 2000)], signal="loss"))
    assert by_loss.accuracies is None  # a loss is no accuracy


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("ranking", "ranking.json", None, "no result"),
        ("ranking", "candidates.jsonl", None, "no candidates.jsonl"),
        ("ranking", "candidates.jsonl", '{"model": "a"}\n', "another version"),
        ("ranking", "candidates.jsonl", "[1]\n", "another version"),
        ("ranking", "candidates.jsonl", '{"mod', "half-written"),
        ("ranking", "ranking.json", "{}", "it lacks data"),
        ("search", "trials.jsonl", None, "no trials.jsonl"),
        ("search", "trials.jsonl", '{"trial": 1}\n', "another version"),
        ("search", "search.json", '{"data": "digits"}', "it lacks"),
    ],
)
def test_rankings_and_searches_that_are_not_whole(
    tmp_path: Path, kind: str, file: str, content: str | None, message: str
) -> None:
    folder = getattr(folders, kind)(tmp_path / "a")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_results([folder])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rows.jsonl", '{"command": "rank"}\n{"candidate": "a"}\n', "1 lines of rows.jsonl, and no ranking.json"),
        ("study.journal", "", "goes on with --resume"),
    ],
)
def test_rankings_and_searches_that_still_run(tmp_path: Path, file: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_results([folders.write(tmp_path / "a", file, content)])
