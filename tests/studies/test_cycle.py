"""The study of the cycle: the orbit, and what the check of the condition says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies import cycle as cycle_study
from nonsmooth.studies.cycle import CycleStudy, study_cycle


@pytest.fixture(scope="module")
def study() -> CycleStudy:
    state = torch.get_rng_state()
    found = study_cycle(steps=260)
    assert torch.equal(torch.get_rng_state(), state)
    return found


def test_the_orbit_is_that_of_the_plain_loop(study: CycleStudy) -> None:
    """The naive transcription: the derivative of s is 0, and s is a corner."""
    x, y = 1.0, 1.0
    for k in range(261):
        assert study.orbit[k] == pytest.approx((x, y), abs=1e-9)
        s = (3.0, 5.0) if -3 * x + y + 2 >= 0 else (0.0, 0.0)
        x, y = x - 0.02 * 2 * (x - s[0]), y - 0.02 * 8 * (y - s[1])


def test_it_cycles_without_a_word(study: CycleStudy) -> None:
    assert study.x_range == pytest.approx((0.66, 2.34), abs=5e-3)
    assert study.derivative == 0 and study.residual == pytest.approx(1)
    assert study.turns >= 1 and study.turn == pytest.approx(62)


def test_the_violated_condition_is_reported(study: CycleStudy) -> None:
    """At every crossing, on the line, by the line of the program; beside it the condition holds."""
    assert study.crossings and study.beside[0] == study.beside[1] > 0
    for c in study.crossings:
        assert c.invertible is False and c.smallest == pytest.approx(0, abs=1e-12)
        assert -3 * c.point[0] + c.point[1] + 2 == pytest.approx(0, abs=1e-12)
        assert "torch.clamp" in c.line and "cycle.py" in c.line
    assert study.refused.startswith("NotInvertible")


def test_a_layer_of_cvxpylayers_cycles_without_a_word(study: CycleStudy) -> None:
    pytest.importorskip("cvxpylayers.torch")
    layer = study.layer
    assert layer is not None and layer.steps == 250 and layer.warned == 0
    assert layer.derivative < 1e-2 and layer.at_start == pytest.approx(0, abs=1e-6)
    assert layer.x_range == pytest.approx(study.x_range, abs=0.02) and layer.refused.startswith("NotInvertible")
    assert "The same layer, checked, at the start: NotInvertible" in str(study)


def test_without_cvxpylayers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle_study, "run_layer", lambda *_: None)
    assert "cvxpylayers is not installed" in str(study_cycle(steps=3))


def test_beside_the_line_nothing_is_refused() -> None:
    found = study_cycle(steps=5, start=(2.0, 1.0))
    assert found.refused == "" and found.residual == 0 and not found.crossings and found.turns == 0
    assert "no turn was completed" in str(found)


def test_the_report(study: CycleStudy, tmp_path: Path) -> None:
    text = str(study)
    assert (
        "without a word" in text and "cycle over x in [0.66, 2.34]" in text and max(map(len, text.splitlines())) <= 100
    )
    assert [p.name for p in study.save(tmp_path)] == ["report.json", "report.txt", "cycle.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["orbit"]) == 261
    assert "<table>" in study._repr_html_()


def test_the_command(monkeypatch: pytest.MonkeyPatch, study: CycleStudy) -> None:
    monkeypatch.setattr(cycle_study, "study_cycle", lambda **options: study)
    ran = CliRunner().invoke(cli.app, ["study", "cycle", "--steps", "3", "--json"], prog_name="nonsmooth")
    assert ran.exit_code == 0 and json.loads(ran.stdout)["setting"]["steps"] == 260


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 0), ("step_size", -1.0), ("start", (1.0,)), ("start", (1.0, float("nan")))]
)
def test_wrong_use(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name}="):
        study_cycle(**{name: value})
