"""The study of the digits, with two steps of training: what issue and design say of the initialisation is found."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nonsmooth.errors import UsageError
from nonsmooth.studies import digits
from nonsmooth.studies.digits import study_digits
from nonsmooth.studies.training import TrainingStudy

AUDITED = 64
"""The images of an audit here; a study has 256."""


@pytest.fixture(autouse=True, scope="module")
def fewer_images() -> Iterator[None]:
    """Audit over fewer images; the initialisations run in this process, so that it holds for them too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "AUDITED", AUDITED)
        yield


@pytest.fixture(scope="module")
def study(fewer_images: None) -> TrainingStudy:
    return study_digits(steps=2, initialisations=2, workers=1)


def test_the_first_relu_is_found_by_itself(study: TrainingStudy) -> None:
    start = study.points[0]
    effect = start.strongest
    assert effect is not None
    assert (effect.operation, effect.module, effect.moves_most) == ("relu", "relu1", "conv1.bias")
    assert effect.largest.relative is not None and 0.3 <= effect.largest.relative <= 0.8
    row = next(r for r in start.audit.kinks if r.step == effect.step)
    assert 0.10 <= row.share <= 0.20 and row.elements == AUDITED * 16 * 8 * 8
    assert start.audit.moved_most["conv1.bias"][0] == effect.group
    (finding,) = start.audit.find("kink")
    assert "conv1.bias is all zero" in finding.message and finding.fix.startswith(
        "give conv1.bias a small random value"
    )
    assert finding.source is not None and finding.source.text == "hidden = self.relu1(hidden)"


def test_the_figures_agree_with_the_network_by_hand(study: TrainingStudy) -> None:
    from nonsmooth.studies.data import load, split
    from nonsmooth.studies.digits import _Task

    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = _Task(*split(load("digits"), 0))
    images, labels = task.images[:AUDITED], task.labels[:AUDITED]
    hidden = task.model.conv1(images)
    assert study.points[0].audit.kinks[0].active == int((hidden == 0).sum())
    assert study.points[0].loss == pytest.approx(task.loss(task.model(images), labels).item(), rel=1e-5)

    def bias_gradient(slope: float) -> torch.Tensor:
        hidden = task.model.conv1(images)
        relu = torch.where(hidden == 0, slope * hidden, torch.relu(hidden))
        scores = task.model.linear(task.model.pool2(torch.relu(task.model.conv2(task.model.pool1(relu)))).flatten(1))
        return torch.autograd.grad(task.loss(scores, labels), task.model.conv1.bias)[0]

    low, high = bias_gradient(0.0), bias_gradient(1.0)
    effect = study.points[0].strongest
    assert effect is not None
    assert effect.largest.relative == pytest.approx(((high - low).norm() / low.norm()).item(), rel=1e-4)


def test_the_points_are_along_the_run(study: TrainingStudy) -> None:
    assert [p.name for p in study.points] == ["initialisation", "half-way (step 1)", "end (step 2)"]
    assert [p.step for p in study.points] == [0, 1, 2]
    assert study.points[1].audit.kinks[0].active == 0
    assert [i.seed for i in study.initialisations] == [0, 1]
    assert study.initialisations[0].change == study.points[0].strongest.largest.relative  # type: ignore[union-attr]


def test_the_summary_says_it(study: TrainingStudy) -> None:
    text, effect = str(study), study.points[0].strongest
    assert effect is not None and effect.largest.relative is not None
    flat = " ".join(text.split())
    assert f"changes the gradient of conv1.bias by {100 * effect.largest.relative:.1f} % of its norm" in flat
    assert "Over 2 initialisations" in flat and max(map(len, text.splitlines())) <= 100


def test_the_report_is_a_folder(study: TrainingStudy, tmp_path: Path) -> None:
    names = [p.name for p in study.save(tmp_path / "audit")]
    assert names == ["report.json", "report.txt", "report.html", "kinks.png", "margins.png", "effects.png"]
    data = json.loads((tmp_path / "audit" / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["points"]) == 3
    assert data["points"][0]["audit"]["effects"][0]["moves_most"] == "conv1.bias"
    text = (tmp_path / "audit" / "report.txt").read_text()
    assert text.startswith(str(study)) and "at half-way (step 1)" in text


def test_training_lowers_the_loss() -> None:
    state = torch.get_rng_state()
    points = study_digits(steps=60, initialisations=0).points
    assert points[2].loss < points[1].loss < points[0].loss and points[2].accuracy > 0.5
    assert torch.equal(torch.get_rng_state(), state)


def test_the_run_is_repeated_by_its_seed(study: TrainingStudy) -> None:
    again = study_digits(steps=2, initialisations=0)
    assert [p.loss for p in again.points] == [p.loss for p in study.points]


def test_mnist_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    with pytest.raises(UsageError, match=r"MNIST could not be fetched.*no network.*--data digits"):
        study_digits("mnist")
