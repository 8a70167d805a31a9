"""Keras on its backends: the same kinks at the same variables, and gradients that differ where the conventions do."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest

from nonsmooth.errors import UsageError
from nonsmooth.studies import keras_backends
from nonsmooth.studies.keras_backends import KerasKinks, KerasModel, KerasStudy, study_keras

PROGRAM = Path(__file__).with_name("program.py")
MISSING = [n for n in ("keras", "torch", "jax", "tensorflow") if importlib.util.find_spec(n) is None]

needs_backends = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def study() -> KerasStudy:
    return study_keras([f"{PROGRAM}:convolutional", f"{PROGRAM}:differing"])


def moved(model: KerasModel, pair: str) -> set[str]:
    return {name for name, change in model.differences[pair].items() if change.size > keras_backends.ROUNDING}


@needs_backends
def test_both_backends_have_the_same_kinks_at_the_same_variables(study: KerasStudy) -> None:
    for model in study.models:
        assert model.kinks and all(kinks.agree for kinks in model.kinks), model.kinks
        assert len(set(model.values)) == 3
        assert max(model.values.values()) == pytest.approx(min(model.values.values()), rel=1e-5)
    first, second = ({(k.layer, k.operation): k for k in model.kinks} for model in study.models)
    assert set(first) == {("net.conv", "relu"), ("net.pool", "max_pool")}
    assert set(second) == {("net.leaky", "leaky_relu"), ("net.maximum", "maximum"), ("", "abs")}
    assert set(second["", "abs"].moves["jax"]) == {"head/bias"} and second["", "abs"].active["torch"] == 10
    assert "conv/bias" in second["net.leaky", "leaky_relu"].moves["torch"]


@needs_backends
def test_the_frameworks_differ_where_their_conventions_do(study: KerasStudy) -> None:
    plain, differing = study.models
    assert not any(moved(plain, pair) for pair in plain.differences)
    assert moved(differing, "jax - torch") == {"conv/bias", "head/bias"}
    assert moved(differing, "tensorflow - torch") == {"left/bias", "right/bias"}


@needs_backends
def test_at_kinks_gives_what_the_other_framework_gives(study: KerasStudy) -> None:
    for model in study.models:
        assert set(model.predicted) == {"torch as jax", "torch as tensorflow", "jax as torch", "jax as tensorflow"}
        for parts in model.predicted.values():
            assert max(change.size for change in parts.values()) < keras_backends.ROUNDING


@needs_backends
def test_the_report(study: KerasStudy, tmp_path: Path) -> None:
    text = str(study)
    assert "net.leaky" in text and "jax - torch: differ in 2 of 8 variables" in text
    data = json.loads(study.to_json())
    assert data["models"][1]["kinks"][0]["active"].keys() == {"torch", "jax"}
    names = {path.name for path in study.save(tmp_path / "out")}
    assert names == {"report.json", "report.txt", "gradients1.png", "gradients2.png"}


@needs_backends
def test_the_seed_and_what_cannot_be_compared(study: KerasStudy, tmp_path: Path) -> None:
    """One process: two targets begin with its seed, to the last bit, and what it cannot compare is written down and raised."""
    right = ["convolutional"] * 2
    wrong = {"unbuilt": "not built", "no_model": "must return", "nothing": "no name", "drawing": "program ns.capture"}
    targets = [f"{PROGRAM}:{name}" for name in (*right, *wrong)]
    kept = patch("tempfile.TemporaryDirectory", return_value=nullcontext(str(tmp_path)))
    with kept, pytest.raises(UsageError, match=r"on the torch backend: .*not built"):
        study_keras(targets, backends=["torch"], seed=1)
    found = json.loads((tmp_path / "torch.json").read_text("utf-8"))["found"]
    first, second, *said = found
    assert first["value"] == second["value"] != study.models[0].values["torch"]  # whose seed is 0
    assert all(words in one["error"] for one, words in zip(said, wrong.values(), strict=True)), said
    assert said[-1]["error"].startswith("capture: `dropout` draws")  # without what Keras' layers write around it


@pytest.mark.parametrize("backends", [(), ("torch", "torch"), ("numpy",)])
def test_wrong_backends_are_refused(backends: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="pass some of torch, jax, tensorflow"):
        study_keras(backends=backends)


def test_a_backend_that_is_not_here_is_named() -> None:
    with patch("importlib.util.find_spec", return_value=None), pytest.raises(UsageError, match=r"nonsmooth\[keras\]"):
        study_keras()


def test_counts_that_differ_are_seen() -> None:
    same = KerasKinks(
        "l", "relu", "0", {"torch": 4, "jax": 4}, {"torch": 2, "jax": 2}, {}, {"torch": {"b": 0.1}, "jax": {"b": 0.2}}
    )
    assert same.agree
    assert not KerasKinks("l", "relu", "0", same.elements, {"torch": 2, "jax": 1}, {}, same.moves).agree
    assert not KerasKinks("l", "relu", "0", same.elements, same.active, {}, {"torch": {"b": 0.1}, "jax": {}}).agree
