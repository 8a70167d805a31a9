"""The study of convergence: its problems, what lawful and unlawful steps do, the artifact, and the reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import nonsmooth as ns
from nonsmooth import cli
from nonsmooth.errors import UsageError
from nonsmooth.studies.convergence import ConvergenceStudy, study_convergence
from nonsmooth.studies.convergence_problems import METHODS, PROBLEMS, SAMPLINGS, SCHEDULES, problem, schedule
from nonsmooth.studies.convergence_run import AT_ARTIFACT, WEIGHTS, _batches, artifact, run, run_artifact


@pytest.fixture(scope="module")
def study() -> ConvergenceStudy:
    return study_convergence(steps=400, seeds=1, problems=("median",), workers=1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_finite_sums(name: str) -> None:
    task = problem(name)
    theta = task.start(np.random.default_rng(0))
    assert theta.shape == (task.size,) and task.n % task.batch == 0 and all(len(part) == task.n for part in task.data)
    batches = torch.arange(task.n).split(task.batch)
    means = [float(task.loss(theta, *(part[b] for part in task.data))) for b in batches]
    assert sum(means) / len(means) == pytest.approx(float(task.loss(theta, *task.data)), rel=1e-12)
    assert len(batches) == task.steps_per_epoch


def test_the_least_values_are_least() -> None:
    for name in PROBLEMS[:2]:
        task = problem(name)
        assert task.least is not None
        theta = task.start(np.random.default_rng(1)).requires_grad_()
        for k in range(3000):
            (slope,) = torch.autograd.grad(task.loss(theta, *task.data), [theta])
            theta.data.sub_(slope, alpha=0.5 / (1 + k) ** 0.7)
        assert task.least - 1e-9 <= task.loss(theta, *task.data).item() <= task.least + 0.01


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_which_steps_are_lawful(name: str, sampling: str) -> None:
    task = problem(name)
    answers = {s: bool(ns.optim.check_schedule(schedule(s, task, sampling), sampling, steps_per_epoch=task.steps_per_epoch))
               for s in SCHEDULES}  # fmt: skip
    assert answers == {s: s not in ("constant", "summable") for s in SCHEDULES}
    epoch = [schedule("power", task, sampling)(k) for k in range(task.steps_per_epoch)]
    assert (len(set(epoch)) == 1) == (sampling == "without replacement")


@pytest.mark.parametrize("name", PROBLEMS[1:])
def test_batches(name: str) -> None:
    task = problem(name)
    epoch = [
        next(b)
        for b in [_batches(task, "without replacement", np.random.default_rng(0))]
        for _ in range(task.steps_per_epoch)
    ]
    assert sorted(torch.cat(epoch).tolist()) == list(range(task.n))
    draws = _batches(task, "independent", np.random.default_rng(0))
    assert all(len(set(next(draws).tolist())) == task.batch for _ in range(20))


def test_lawful_steps_become_critical_and_others_do_not(study: ConvergenceStudy) -> None:
    for runs in study.runs:
        at_end = runs.criticality(-1)
        assert runs.criticality(0) > 0.5 and runs.point(-1) >= 1 / 9 - 1e-12  # at the point it never vanishes
        if not runs.fails:
            assert at_end <= 1 / 9 + 1e-12 and runs.end - problem("median").least < 0.05
        if runs.schedule == "summable":
            assert at_end > 0.1 and runs.spread < 1e-3
        if runs.schedule == "constant":
            assert runs.spread > 0.2
    assert any(runs.criticality(-1) == 0 for runs in study.runs if not runs.fails)
    assert {(r.schedule, r.sampling, r.method) for r in study.runs} == {
        *((s, p, METHODS[0]) for s in SCHEDULES for p in SAMPLINGS), *(("power", p, METHODS[1]) for p in SAMPLINGS)
    }  # fmt: skip


def test_the_artifact_is_critical_for_the_field_alone(study: ConvergenceStudy) -> None:
    assert study.artifact_field == pytest.approx((0, 2)) and study.artifact_clarke == pytest.approx((1, 1))
    stays, avoids = study.artifact_runs
    assert (stays.runs, stays.at_artifact) == (1, 1)
    assert avoids.at_artifact == 0 and avoids.runs > 10 and avoids.farthest < 0.01
    x = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    for w in WEIGHTS:
        (slope,) = torch.autograd.grad(artifact(x, torch.tensor(w, dtype=torch.float64)), [x])
        assert slope == 0
    assert run_artifact(AT_ARTIFACT, 2, 20, 5)["ends"] == [0, 0]


def test_a_run_depends_on_its_configuration_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    arguments: dict[str, Any] = {
        "name": "median",
        "steps_of": "power",
        "sampling": "independent",
        "seed": 3,
        "steps": 80,
    }
    first = run(method="INNA", **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    assert run(method="INNA", **arguments) == first == json.loads(json.dumps(first))
    assert run(method="subgradient", **arguments)["values"] != first["values"]
    assert run(method="INNA", **{**arguments, "seed": 4})["values"] != first["values"]


def test_one_step_is_the_formula() -> None:
    """The first step of a run, by hand."""
    task = problem("least absolute deviations")
    theta = task.start(np.random.default_rng(7))
    found = run(task.name, "power", "without replacement", "subgradient", 7, 64)
    rng = np.random.default_rng(7)
    task.start(rng)
    chosen = next(_batches(task, "without replacement", rng))
    x, y = (part[chosen] for part in task.data)
    step = schedule("power", task, "without replacement")(0) * (torch.sign(x @ theta - y) @ x) / task.batch
    assert found["values"][1] == pytest.approx(float(task.loss(theta - step, *task.data)), rel=1e-12)


def test_reports(study: ConvergenceStudy, tmp_path: Path) -> None:
    paths = study.save(tmp_path)
    assert [p.name for p in paths] == ["report.json", "report.txt", "convergence.png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    data = json.loads(paths[0].read_text())
    assert data["format_version"] == 1 and len(data["runs"]) == len(study.runs)
    text = paths[1].read_text()
    assert "fails: infinite" in text and "INNA, power" in text and "median" in text
    assert "<table>" in study._repr_html_()


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 10},
        {"seeds": 0},
        {"seed": -1},
        {"problems": "median"},
        {"problems": ()},
        {"problems": ("lasso",)},
        {"steps": True},
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        study_convergence(**arguments)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = CliRunner().invoke(cli.app, ["study", "convergence", "--steps", "3"])
    assert refused.exit_code == 2 and "64 or more" in refused.output


@pytest.mark.slow
def test_the_whole_study() -> None:
    found = study_convergence(steps=2000, seeds=2)
    for name in PROBLEMS:
        lawful = [r for r in found.of(name) if not r.fails]
        stopped = [r for r in found.of(name) if r.schedule == "summable"]
        assert max(r.criticality(-1) for r in lawful) < 0.2 * min(r.criticality(0) for r in lawful)
        assert min(r.criticality(-1) for r in stopped) > 2 * max(r.criticality(-1) for r in lawful)
        hovers = [r for r in found.of(name) if r.schedule == "constant"]
        assert min(r.spread for r in hovers) > 4 * max(r.spread for r in lawful if r.method == METHODS[0])
