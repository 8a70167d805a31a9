"""The abs-normal form: against the exact transcription, against ADOL-C's answers, and as a model of the function."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nonsmooth as ns
from tests.references.abs_normal import abs_normal as exact_form
from tests.references.abs_normal import model as exact_model
from tests.references.field import native, random_program
from tests.shortened import shortened

SWITCHES = ("relu", "abs", "max", "min", "sort")
ADOLC = json.loads((Path(__file__).parents[1] / "cases" / "adolc.json").read_text(encoding="utf-8"))["cases"]


def as_switches(program: Any) -> Any:
    """Run a program of the references with maxima as folds of `torch.maximum`, which is a switch."""

    def f(x: torch.Tensor) -> torch.Tensor:
        results: list[Any] = []
        for step in program:
            name, *terms = step
            if name in ("max", "min"):
                fold = torch.maximum if name == "max" else torch.minimum
                total = results[terms[0]]
                for a in terms[1:]:
                    total = fold(total, results[a])
                results.append(total)
            elif name == "sort":
                results.append(exchanged([results[a] for a in terms]))
            else:
                results.append(native(tuple(step), results, x))
        return results[-1]

    return f


def exchanged(terms: list[torch.Tensor]) -> list[torch.Tensor]:
    """Sort by exchanges of neighbours, each a minimum and a maximum."""
    terms = list(terms)
    for last in range(len(terms) - 1, 0, -1):
        for k in range(last):
            terms[k], terms[k + 1] = torch.minimum(terms[k], terms[k + 1]), torch.maximum(terms[k], terms[k + 1])
    return terms


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


@pytest.mark.parametrize("number", range(0, len(ADOLC), 4))
def test_increments_are_those_of_adolc(number: int) -> None:
    """y(d) - y(0) of the piecewise linear model, along the directions of the file; and F'(x; d) is ADOL-C's."""
    case = ADOLC[number]
    form = ns.abs_normal(as_switches(case["program"]), tensor(case["point"]))
    assert form(tensor([0] * len(case["point"]))) == pytest.approx(case["y"], rel=1e-12, abs=1e-12)
    for along in case["along"]:
        d = tensor(along["d"])
        assert form(d) == pytest.approx(case["y"] + along["increment"], rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("seed", shortened(range(60), 20))
def test_models_are_those_of_the_transcription(seed: int) -> None:
    """At points with and without active kinks, near and far."""
    program, point = random_program(seed, variables=4, kinks=8, operations=SWITCHES, homogeneous=bool(seed % 2))
    rng = random.Random(seed)
    exact, form = exact_form(program, point), ns.abs_normal(as_switches(program), tensor(point))
    for scale in (1, 8):
        change = [rng.randint(-16, 16) * scale for _ in point]
        fractions = [type(point[0])(c) / 16 for c in change]
        assert form(tensor(fractions)) == pytest.approx(float(exact_model(exact, fractions)[0]), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", shortened(range(40), 15))
def test_the_model_is_value_plus_directional_derivative(seed: int) -> None:
    """For small v the model is F(x) + F'(x; v); `directional` gives the second term."""
    program, point = random_program(seed + 100, variables=4, kinks=8, homogeneous=False)
    f, x = as_switches(program), tensor(point)
    form = ns.abs_normal(f, x)
    for k in range(3):
        v = torch.randn(len(x), generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        slope = float(ns.directional(f, x, v))
        assert form.directional(v) == pytest.approx(slope, rel=1e-9, abs=1e-9)
        assert form(1e-6 * v) == pytest.approx(float(f(x)) + 1e-6 * slope, rel=1e-12, abs=1e-9)


def test_smooth_parts_are_linearised() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x[0]) * torch.relu(x[1] - 1.0) + torch.sin(x[0].abs())

    x = tensor([0.0, 2.0])
    form = ns.abs_normal(f, x)
    assert form(tensor([0.0, 0.0])) == pytest.approx(1.0)
    assert form(tensor([-0.5, 0.0])) == pytest.approx(1.0 - 0.5 + 0.5)
    assert form(tensor([0.0, -3.0])) == pytest.approx(0.0)  # the model switches where relu does


def test_a_nested_absolute_value_in_the_form_of_the_papers() -> None:
    """||x| - 1|: z1 = x, z2 = |z1| - 1."""
    form = ns.abs_normal(lambda x: ((x[0].abs()) - 1).abs(), tensor([0.5]))
    assert form.Z.tolist() == [[1.0], [0.0]] and form.L.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert form.c.tolist() == [0.5, -1.0] and form.Y.tolist() == [0.0, 1.0] and form.b == 0.0
    assert [s.operation.name for s in form.steps] == ["abs", "abs"]


def test_where_at_a_tie_is_a_switch() -> None:
    form = ns.abs_normal(lambda x: torch.where(x[0] > 0, 3 * x[0], x[0]), tensor([0.0]))
    assert [form(tensor([d])) for d in (2.0, -2.0)] == [6.0, -2.0]


def test_vectors_come_in_the_structure_of_the_point() -> None:
    x = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.ones((), dtype=torch.float64)}
    form = ns.abs_normal(lambda p: p["a"].abs().sum() + p["b"], x)
    assert form({"a": torch.tensor([1.0, -1.0]), "b": torch.tensor(0.5)}) == form(np.array([1.0, -1.0, 0.5])) == 3.5
    with pytest.raises(ns.errors.UsageError, match="3 coordinates"):
        form(np.zeros(2))


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: x.max(), "no switch"),
        (lambda x: torch.linalg.norm(x), "no switch"),
        (lambda x: x.sum() if x[0] > 0 else 2 * x.sum() - x[1] - x[2], "ties"),
    ],
)
def test_other_kinks_are_refused(f: Any, match: str) -> None:
    with pytest.raises(ns.errors.UsageError, match=match):
        ns.abs_normal(f, torch.zeros(3, dtype=torch.float64))


def test_a_tie_away_from_its_kink_is_no_kink() -> None:
    """An inactive maximum of many is smooth: it is no switch, and needs none."""
    form = ns.abs_normal(lambda x: x.max() + x[1].abs(), tensor([3.0, 0.0, 1.0]))
    assert form.switches == 1 and form(tensor([1.0, -1.0, 0.0])) == 5.0
