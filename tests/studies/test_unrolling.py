"""The study of derivatives of iterates: every figure is recomputed, and the report says what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies import unrolling as unrolling_study
from nonsmooth.studies.unrolling import UnrollingStudy, study_unrolling
from nonsmooth.studies.unrolling_problems import contractions, kinked_heavy_ball


@pytest.fixture(scope="module")
def study() -> UnrollingStudy:
    state = torch.get_rng_state()
    found = study_unrolling(steps=60, ball_steps=120, size=6, momenta=(0.5, 0.75))
    assert torch.equal(torch.get_rng_state(), state)
    return found


def test_derivatives_converge_linearly_under_contraction(study: UnrollingStudy) -> None:
    assert [c.name for c in study.cases] == ["tanh", "relu", "Lasso"]
    for case in study.cases:
        assert 0 < case.iterate_rate <= case.rho + 0.02 and 0 < case.derivative_rate <= case.rho + 0.05
        assert case.derivatives[-1] < 1e-4 * case.derivatives[0] and len(case.iterates) == len(case.derivatives) == 61
        assert case.one_step <= case.bound
    tanh, relu, lasso = study.cases
    assert tanh.elements == lasso.elements == 1 and relu.elements > 1
    assert max(tanh.off_hull, lasso.off_hull) < 1e-3
    assert tanh.bound_status == "sampled" and relu.bound_status == lasso.bound_status == "computed"


def test_the_maps_contract_as_they_say() -> None:
    for problem in contractions(3, 6):
        rng = np.random.default_rng(0)
        for _ in range(20):
            y = torch.as_tensor(rng.standard_normal(6))
            B = torch.func.jacrev(problem.T)(y, problem.theta)
            assert float(torch.linalg.matrix_norm(B, 2)) <= problem.rho + 1e-9, problem.name


def test_the_heavy_ball(study: UnrollingStudy) -> None:
    """Iterates fall in both runs; the derivative grows by 9/8 every four steps with momentum 3/4, and only there."""
    ball, mild = study.runs
    assert ball.iterates[-1] < 1e-3 and mild.iterates[-1] < 1e-3
    assert ball.derivatives[100] / ball.derivatives[80] == pytest.approx((9 / 8) ** 5, rel=1e-6)
    assert mild.derivatives[-1] < 1e-5 and "diverge" not in mild.warned and "diverge" in ball.warned
    low, high = study.momenta
    assert low.upper < 1 < high.lower and high.alone < 1 and high.lower >= 1.125**0.25
    assert max(study.largest) == study.largest[-1] > 1.5


def test_the_moving_kink_is_a_gradient_with_its_minimum_at_zero() -> None:
    """x - a g with g nondecreasing in x and 0 at 0, whatever the place of the kink."""
    T = kinked_heavy_ball(0.0)
    xs = torch.linspace(-2, 2, 41, dtype=torch.float64)
    for e in (0.7, -0.3, 0.0):
        slopes = torch.stack([x - T((x, x, torch.tensor(e, dtype=torch.float64), x))[0] for x in xs])
        steps = (slopes[1:] - slopes[:-1]) / (xs[1] - xs[0])
        assert abs(float(slopes[20])) < 1e-15 and float(steps.min()) >= 0.25 - 1e-9 and float(steps.max()) <= 1 + 1e-9


def test_the_report(study: UnrollingStudy, tmp_path: Path) -> None:
    text = str(study)
    assert "within its bound in 3 of 3 cases" in text and "grow at the momenta 0.75" in text
    assert max(map(len, text.splitlines())) <= 100
    assert [p.name for p in study.save(tmp_path)] == ["report.json", "report.txt", "unrolling.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["format_version"] == 1 and len(data["cases"]) == 3 and len(data["runs"][0]["derivatives"]) == 121
    assert "<table>" in study._repr_html_()


def test_the_command(monkeypatch: pytest.MonkeyPatch, study: UnrollingStudy) -> None:
    seen: dict[str, Any] = {}

    def found(**options: Any) -> UnrollingStudy:
        seen.update(options)
        return study

    monkeypatch.setattr(unrolling_study, "study_unrolling", found)
    ran = CliRunner().invoke(cli.app, ["study", "unrolling", "--steps", "9", "--json"], prog_name="nonsmooth")
    assert ran.exit_code == 0 and json.loads(ran.stdout)["setting"]["unknowns"] == 6 and seen["steps"] == 9


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 2), ("ball_steps", True), ("size", 1), ("momenta", (1.5,)), ("momenta", ())]
)
def test_wrong_use(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name}="):
        study_unrolling(**{name: value})
