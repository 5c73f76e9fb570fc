"""Scheme files: round trip, use instead of a notation, and messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghnq.errors import SchemeError
from ghnq.quant import POST_TRAINING_STEPS, QuantScheme, dump_scheme, load_scheme, quantize, read_scheme
from tests.quant.nets import CALIBRATION, TEST, network

words = st.sampled_from(["float32", "w8a8", "w4", "w2a16"])


@settings(max_examples=60)
@given(
    st.sampled_from(["w8a8", "w3", "float32"]),
    st.sampled_from(["deploy", "paper"]),
    st.lists(st.tuples(st.sampled_from(["a", "b.conv", "c.*", "stages.0.0"]), words), max_size=5),
    st.sets(st.sampled_from(list(POST_TRAINING_STEPS))),
    st.fixed_dictionaries(
        {},
        optional={
            "weight_range": st.sampled_from(["mse", "percentile"]),
            "weight_symmetric": st.booleans(),
            "fold": st.booleans(),
            "reestimate": st.booleans(),
            "variance_floor": st.sampled_from([0.0, 0.25]),
        },
    ),
)
def test_round_trip(
    word: str, protocol: str, pairs: list[tuple[str, str]], steps: set[str], changes: dict[str, object]
) -> None:
    import tempfile

    scheme = QuantScheme.parse(word, protocol=protocol, steps=tuple(steps), **changes).override(pairs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheme.yaml"
        file.write_text(dump_scheme(scheme, {"note": "über"}), encoding="utf-8")
        back = load_scheme(file)
    names = ["a", "b.conv", "c.d", "stages.0.0", "other"]
    assert [back.bits_for(name) for name in names] == [scheme.bits_for(name) for name in names]
    assert QuantScheme.parse(back, overrides=()) == QuantScheme.parse(scheme, overrides=())


def test_parse_and_quantize_accept_files(tmp_path: Path) -> None:
    file = tmp_path / "mixed.yml"
    file.write_text("scheme: w4a8\nprotocol: paper\noverrides: {'11': w8a8}\nsteps: [squant]\n")
    expected = QuantScheme.parse("w4a8+11=w8a8", protocol="paper", steps=("squant",))
    assert QuantScheme.parse(str(file)) == expected == load_scheme(file)
    assert QuantScheme.parse(str(file), steps=()).steps == ()
    with torch.no_grad():
        a = quantize(network(), str(file), calibration=CALIBRATION)(TEST)
        assert torch.equal(a, quantize(network(), expected, calibration=CALIBRATION)(TEST))


def test_a_requested_protocol_or_step_must_agree_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mixed.yaml"
    file.write_text("scheme: w4a8\nsteps: [squant, equalize]\nweight_range: mse\n")
    assert read_scheme(str(file)) == load_scheme(file)
    assert read_scheme(str(file), protocol="deploy", steps=("equalize", "squant")) == load_scheme(file)
    asked = r"mixed.yaml': its protocol: deploy; requested: paper; leave out --protocol, or change the file"
    with pytest.raises(SchemeError, match=asked):
        read_scheme(str(file), protocol="paper")
    with pytest.raises(SchemeError, match=r"its steps: equalize, squant; requested: squant; leave out --steps"):
        read_scheme(str(file), steps=["squant"])
    file.write_text("scheme: w4a8\nprotocol: paper\n")
    with pytest.raises(SchemeError, match=r"its protocol: paper; requested: deploy"):
        read_scheme(str(file), protocol="deploy")
    with pytest.raises(SchemeError, match=r"its steps: none; requested: squant"):
        read_scheme(str(file), steps=["squant"])
    assert read_scheme("w4a8") == QuantScheme.parse("w4a8")
    assert read_scheme("w4a8", protocol="paper", steps=["squant"]) == QuantScheme.parse(
        "w4a8", protocol="paper", steps=("squant",)
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected keys and values"),
        ("w4a8", "expected keys and values"),
        ("- w4a8", "got list"),
        ("overrides: {a: w4}", "'scheme' is missing"),
        ("scheme: w4a8\nstep: [squant]", "unknown key 'step' .did you mean 'steps'"),
        ("scheme: w4a8\nsteps: squant", "'steps' must be a list"),
        ("scheme: w4a8\nsteps: [squnt]", "did you mean 'squant'"),
        ("scheme: w4a8\nsteps: [1]", "strings only"),
        ("scheme: w4a8\nsteps: [[squant]]", "strings only"),
        ("scheme: w4a8\noverrides: {a: 4}", "strings only"),
        ("scheme: w4a8\noverrides: {1: w4}", "strings only"),
        ("scheme: w4a8\noverrides: {a: w44}", "44 weight bits"),
        ("scheme: w4a8\noverrides: [a]", "must be a mapping"),
        ("scheme: w4a8\noverrides: {a: w4, a: w8}", "duplicate key"),
        ("scheme: w4a8\nscheme: w8a8", "duplicate key"),
        ("scheme: 4", "must be a string"),
        ("scheme: w4b8", "unknown scheme 'w4b8'"),
        ("scheme: other.yaml", "must be bit-widths such as"),
        ("scheme: w4a8\nprotocol: deplyo", "did you mean 'deploy'"),
        ("scheme: w4a8\nfold: 1", "true or false"),
        ("scheme: w4a8\nvariance_floor: true", "a number"),
        ("scheme: w4a8\nvariance_floor: 2", "fraction from 0 to 1"),
        ("scheme: w4a8\nweight_range: msee", "did you mean 'mse'"),
        ("scheme: [w4a8", "cannot be read as YAML"),
        ("scheme: !!python/object:os.system w4", "cannot be read as YAML"),
        ("{[a]: b}", "cannot be read as YAML"),
        ("scheme: w4a8\n<<: 3", "cannot be read as YAML"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "scheme.yaml"
    file.write_text(text)
    with pytest.raises(SchemeError, match=part) as caught:
        load_scheme(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_missing_and_binary_files(tmp_path: Path) -> None:
    (tmp_path / "mixed.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemeError, match="cannot be read"):
        load_scheme(tmp_path / "mixed.yaml")
    with pytest.raises(SchemeError, match=r"did you mean 'mixed\.yaml'"):
        QuantScheme.parse(str(tmp_path / "mxied.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SchemeError, match="not a scheme file"):
        load_scheme(tmp_path / "folder.yaml")
