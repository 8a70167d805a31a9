"""Potentials: integrals of fields along paths, with estimates of their errors that hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nonsmooth as ns
from nonsmooth.derivatives.paths import bow, polygon, segment
from nonsmooth.derivatives.quadrature import LeftDomain, NotFinite, integrate, rule
from nonsmooth.errors import NoDerivative, PointError, UsageError
from tests.programs.generator import random_program

DTYPE = torch.float64
EPS = 2.0**-52


def point(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=DTYPE)


def gradient(f: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def native(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(f(x), x, allow_unused=True, materialize_grads=True)
        return found

    return native


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": lambda x: torch.relu(x).sum(),
    "abs": lambda x: x.abs().sum(),
    "max": lambda x: x.max(),
    "sort": lambda x: (x.sort().values * torch.arange(len(x))).sum(),
    "norm": torch.linalg.vector_norm,
    "clamp": lambda x: x.clamp(-0.5, 0.25).sum(),
    "smooth": lambda x: torch.sin(3 * x).prod(),
    "softplus": lambda x: F.softplus(5 * x).sum(),
    "identity by relu": lambda x: (torch.relu(x) - torch.relu(-x)).sum(),
    "if": lambda x: x[0] if x[0] > x[1] else x[1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_conservative_field_gives_its_function_up_to_a_constant(name: str) -> None:
    f, x, start = FUNCTIONS[name], point(1.0, -2.0, 0.5), point(-1.0, 1.0, 0.5)
    found = ns.potential(gradient(f), x, start)
    assert abs(found.value - float(f(x) - f(start))) <= found.error + 1e-10
    assert found.error < 1e-6 and not found.path_dependent and found.path_dependence < 1e-6
    assert [name for name, _, _ in found.paths] == ["segment", "bow 1", "broken line 2", "bow 3"]
    assert float(found) == found.value and found.status == "sampled"


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    program = random_program(seed)
    f, x = program.function(), program.x()
    start = x + torch.linspace(-1, 1.3, len(x), dtype=DTYPE)
    found = ns.potential(gradient(f), x, start)
    assert abs(found.value - float(f(x) - f(start))) <= 2 * found.error + 1e-7 * (1 + abs(found.value))
    assert not found.path_dependent


@pytest.mark.parametrize(
    "field",
    [
        lambda x: torch.stack([-x[1], x[0]]),
        lambda x: torch.stack([x[1].abs(), torch.zeros_like(x[0])]),
        lambda x: torch.stack([torch.sign(x[1]), torch.sign(x[0])]),
        lambda x: x / (1 + x @ x) + 1e-4 * torch.stack([-x[1], x[0]]),
    ],
)
def test_a_field_without_potential_depends_on_the_path(field: Callable[[torch.Tensor], torch.Tensor]) -> None:
    found = ns.potential(field, point(1.0, 0.5), point(-1.0, -1.0))
    assert found.path_dependent and found.path_dependence > found.tolerance


def test_the_rotation_has_its_area() -> None:
    """Two paths of the field (-y, x) differ by twice the area between them."""
    corner = [[point(0, 0), point(1, 0), point(1, 1)], [point(0, 0), point(0, 1), point(1, 1)]]
    found = ns.potential(lambda x: torch.stack([-x[1], x[0]]), point(1, 1), point(0, 0), paths=corner)
    assert abs(found.value) < 1e-12 and abs(found.path_dependence - 2) < 1e-9


def test_a_given_path_may_run_inside_a_set_of_measure_zero() -> None:
    def field(x: torch.Tensor) -> torch.Tensor:
        on = (x[1] == 1) & (x[0] >= 0) & (x[0] <= 1)
        return torch.where(on, torch.zeros_like(x), x / torch.linalg.vector_norm(x))

    ends = point(1, 1), point(0, 1)
    detour = [[point(0, 1), point(0, 2), point(1, 1)], lambda t: point(t, 1 + math.sin(math.pi * t) * (t < 1))]
    found = ns.potential(field, *ends, paths=detour)
    assert found.value == 0 and abs(found.path_dependence - (math.sqrt(2) - 1)) < 1e-6 and found.path_dependent
    (_, first, _), (_, second, _) = found.paths[1:]
    assert abs(first - second) < 1e-6


def test_trees_data_and_single_precision() -> None:
    field = lambda x, w: {"a": w * torch.sign(x["a"]), "b": [2 * x["b"][0]]}  # noqa: E731
    x = {"a": torch.tensor([1.0, -2.0]), "b": [torch.tensor(3.0)]}
    start = {"a": torch.tensor([-1.0, 0.0]), "b": [torch.tensor(1.0)]}
    found = ns.potential(field, x, start, torch.tensor([5.0, 1.0]))
    assert abs(found.value - (0 + 2 + 8)) < 1e-4 and not found.path_dependent


def test_more_paths_and_other_seeds() -> None:
    x, start = point(1.0, 2.0), point(0.0, -1.0)
    runs = [ns.potential(torch.sign, x, start, paths=6, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] and runs[0].paths[1:] != runs[2].paths[1:] and len(runs[0].paths) == 7
    assert ns.potential(torch.sign, x, start, paths=0).path_dependence == 0


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (UsageError, {"from_": point(1.0)}),
        (UsageError, {"from_": point(1.0, math.nan)}),
        (UsageError, {"paths": [[point(0, 0), point(2, 2)]]}),
        (UsageError, {"paths": [3.0]}),
        (UsageError, {"paths": -1}),
        (UsageError, {"derivative": lambda x: x.sum()}),
        (NoDerivative, {"derivative": lambda x: x / 0}),
        (PointError, {"x": torch.tensor([1, 1])}),
    ],
)
def test_wrong_use_is_refused(error: type[Exception], change: dict[str, Any]) -> None:
    use = {"derivative": torch.sign, "x": point(1, 1), "from_": point(0, 0), **change}
    with pytest.raises(error):
        ns.potential(**use)


# --- the quadrature ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [9, 20])
def test_the_rule_integrates_and_differentiates_polynomials(bits: int) -> None:
    parts = rule(bits)
    assert all(float(p) * 2**bits % 2 == 1 for p in parts.places) and (np.diff(parts.places) > 0).all()
    for degree in range(10):
        powers = parts.places**degree
        assert abs((parts.gaps @ powers[1:-1]).sum() - 1 / (degree + 1)) < 1e-9
        slopes = degree * parts.places ** max(degree - 1, 0)
        assert np.abs(parts.velocity @ powers - slopes).max() < 1e-6


def test_kinks_are_found_where_they_are() -> None:
    places = np.array([0.1, 1 / 3, 0.5, 0.90001])
    bends = np.array([1.0, -3.0, 2.0, 0.5])

    def field(z: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return float(bends @ np.maximum(z - places, 0)), np.array([bends @ (z > places)])

    path = segment("segment", np.zeros(1), np.ones(1))
    for known in (True, False):
        found = integrate(path, field, 1e-9, EPS, known=known)
        assert abs(found.value - field(np.ones(1))[0]) <= found.error + 1e-12 and found.error < 1e-7
        inner = [k for k in places if k != 0.5]  # 1/2 is an end of panels
        assert np.allclose(found.kinks, inner, rtol=0, atol=1e-6)


def test_a_bump_between_the_places_is_seen_where_f_is_known() -> None:
    """A slope of 1 on [0.31, 0.311], which no place of the first panels meets."""

    def field(z: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return float(np.clip(z[0] - 0.31, 0, 0.001)), np.array([float(0.31 < z[0] < 0.311)])

    found = integrate(segment("segment", np.zeros(1), np.ones(1)), field, 1e-9, EPS)
    assert abs(found.value - 0.001) < 1e-9 and found.change == 0.001


def test_a_wrong_slope_leaves_its_discrepancy() -> None:
    def field(z: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return float(np.sin(z[0])), np.cos(z) * (1 + 1e-5)

    found = integrate(segment("segment", np.zeros(1), np.ones(1)), field, 1e-7, EPS)
    assert abs(found.change - found.value + 1e-5 * math.sin(1)) < 1e-12
    assert abs(found.change - found.value) > 1e-7 * found.scale + 2 * found.error + found.rounding
    assert found.evaluations < 300


def test_bows_and_broken_lines_have_their_velocities() -> None:
    start, end, w = np.zeros(2), np.array([1.0, 2.0]), np.array([0.5, -1.0])
    for path in (bow("bow", start, end, w), polygon("line", np.array([start, w, end]))):
        assert path.velocity is not None
        assert np.allclose(path.point(0.0), start) and np.allclose(path.point(1.0), end)
        for t in (0.2, 0.7):
            slope = (path.point(t + 1e-6) - path.point(t - 1e-6)) / 2e-6
            assert np.allclose(path.velocity(t), slope, atol=1e-6)
            small = path.shrunk(0.25)
            assert small.velocity is not None and np.allclose(small.velocity(t), slope / 4, atol=1e-6)


def test_what_is_not_finite_is_told() -> None:
    path = segment("segment", -np.ones(1), np.ones(1))
    with pytest.raises(LeftDomain):
        integrate(path, lambda z: (math.nan, z), 1e-9, EPS)
    with pytest.raises(NotFinite, match="not finite at t = "):
        integrate(path, lambda z: (0.0, z * math.nan), 1e-9, EPS)
