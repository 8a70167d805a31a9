"""The study of the ridge method: every figure is recomputed, and the report says what was found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies import ridge as ridge_study
from nonsmooth.studies.ridge import RidgeStudy, study_ridge
from nonsmooth.studies.ridge_problems import problems


@pytest.fixture(scope="module")
def study() -> RidgeStudy:
    state = torch.get_rng_state()
    found = study_ridge(steps=25, batch=32, width=12, samples=6, case_steps=25)
    assert torch.equal(torch.get_rng_state(), state)
    return found


def test_the_known_values_bound_what_is_reached(study: RidgeStudy) -> None:
    for case in study.cases:
        assert case.status == "computed"
        assert case.known - 1e-9 <= case.reached <= case.begin + 1e-9
        assert len(case.ridge_path) == len(case.partial_path) == 25
        assert case.partial_error > 0 if case.kinks else case.reached == pytest.approx(case.partial)
    kinked = {c.name: c for c in study.cases if c.kinks}
    assert set(kinked) == {"shifted", "climbing", "anchored"}
    assert all(c.partial - c.known > 5 * (c.reached - c.known) for c in kinked.values())


def test_the_known_values_are_those_of_the_functions() -> None:
    """The value of f on a grid or at random points never falls below the known one, and comes near it."""
    for problem in problems(3):
        rng = np.random.default_rng(0)
        constraint = problem.constraints.get("x_constraint")
        shape = tuple(problem.x.shape)
        points = [2 * rng.standard_normal(shape) * 0.5 ** rng.integers(0, 4) + problem.x.numpy() for _ in range(400)]
        points = [p if constraint is None else constraint.project(p) for p in points]
        values = [float(problem.F(x, problem.maximise(x, None))) for x in map(torch.as_tensor, points)]
        assert min(values) >= problem.value - 1e-9, problem.name
        x = torch.as_tensor(points[0])
        best = problem.maximise(x, None)
        draws = [torch.as_tensor(best.numpy() + 0.3 * rng.standard_normal(tuple(best.shape))) for _ in range(200)]
        y_set = problem.constraints.get("constraint")
        draws = [d if y_set is None else torch.as_tensor(y_set.project(d.numpy())) for d in draws]
        assert max(float(problem.F(x, d)) for d in draws) <= float(problem.F(x, best)) + 1e-9, problem.name


def test_training_and_its_checks(study: RidgeStudy) -> None:
    plain, robust = study.networks
    assert plain.radii == robust.radii and all(0 <= a <= 1 for n in study.networks for a in n.accuracy)
    assert plain.accuracy[0] > 0.3 and list(plain.accuracy) == sorted(plain.accuracy, reverse=True)
    met = study.directions
    assert met.computed + met.refuted + met.undecided == 25 and met.differing <= met.with_kinks
    assert [c.attack for c in study.checks] == ["as in training", "settled", "settled"]
    assert all(len(c.samples) == 6 and 0 <= c.settled <= 1 for c in study.checks)
    assert (
        study.checks[2].residual <= study.checks[1].residual + 1e-6 and study.checks[2].kinks >= study.checks[1].kinks
    )


def test_the_report(study: RidgeStudy, tmp_path: Path) -> None:
    text = str(study)
    assert "misses the minimum of 3 of 6 problems" in text and max(map(len, text.splitlines())) <= 100
    assert [p.name for p in study.save(tmp_path)] == ["report.json", "report.txt", "ridge.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["cases"]) == 6 and len(data["checks"][0]["samples"]) == 6
    assert "<table>" in study._repr_html_()


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two of the six problems: the others are the study's above."""
    monkeypatch.setattr(ridge_study, "problems", lambda seed: problems(seed)[:2])
    arguments = ["study", "ridge", "--steps", "2", "--batch", "8", "--width", "4", "--samples", "2", "--json"]
    found = CliRunner().invoke(cli.app, arguments, prog_name="nonsmooth")
    assert found.exit_code == 0 and json.loads(found.stdout)["setting"]["steps"] == 2


@pytest.mark.parametrize("name", ["steps", "batch", "width", "samples", "case_steps"])
def test_wrong_use(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=0"):
        study_ridge(**{name: 0})
