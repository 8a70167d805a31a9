"""Diagnoses of equations at kinks: closed forms, and random equations against all selections and nearby solutions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import nonsmooth as ns
from nonsmooth.implicit import diagnosis, large
from tests.adapters import Adapter

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Case:
    """An equation at a solution, whether the condition holds, the least singular value, and the box of dy/dx."""

    name: str
    make: Callable[[Adapter], ns.implicit.ImplicitFunction]
    y: Any
    x: Any
    holds: bool | None
    kinks: int
    smallest: float | None = None
    box: tuple[Any, Any] | None = None


def equation(T: Callable[..., Any]) -> Callable[[Adapter], ns.implicit.ImplicitFunction]:
    """Make a fixed point of T(xp, y, x)."""
    return lambda xp: ns.implicit.fixed_point(lambda y, x: T(xp, y, x))


CASES = (
    Case("2 relu(y) + x", equation(lambda xp, y, x: 2 * xp.relu(y) + x), 0.0, 0.0, False, 1),
    Case("relu(y) / 2 + x", equation(lambda xp, y, x: 0.5 * xp.relu(y) + x), 0.0, 0.0, True, 1, 0.5, ([1.0], [2.0])),
    Case("-3 relu(y) + x", equation(lambda xp, y, x: -3 * xp.relu(y) + x), 0.0, 0.0, True, 1, 1.0, ([0.25], [1.0])),
    Case("off the kink", equation(lambda xp, y, x: 2 * xp.relu(y) + x), -1.0, -1.0, True, 0, 1.0, ([1.0], [1.0])),
    Case(
        "a norm",
        equation(lambda xp, y, x: 0.5 * xp.norm(y) * xp.same([1.0, 0.0], y) + x),
        [0.0, 0.0],
        [0.0, 0.0],
        True,
        1,
    ),
    Case(
        "a norm that is too steep",
        equation(lambda xp, y, x: 2 * xp.norm(y) * xp.same([1.0, 0.0], y) + x),
        [0.0, 0.0],
        [0.0, 0.0],
        False,
        1,
    ),
    Case(
        "a tied maximum",
        equation(lambda xp, y, x: -xp.max(y) * xp.same([1.0, 1.0], y) + x),
        [0.0, 0.0],
        [0.0, 0.0],
        True,
        1,
        None,
        ([0.5, -0.5, -0.5, 0.5], [1.0, 0.0, 0.0, 1.0]),
    ),
    Case(
        "abs inside of relu",
        equation(lambda xp, y, x: xp.relu(0.5 * xp.abs(y)) + x),
        0.0,
        0.0,
        True,
        2,
        0.5,
        ([2 / 3], [2.0]),
    ),
    Case(
        "a kink of the parameter alone",
        equation(lambda xp, y, x: 0.5 * y + xp.relu(x)),
        0.0,
        0.0,
        True,
        0,
        0.5,
        ([0.0], [2.0]),
    ),
    Case(
        "y - x^3 has a singular derivative",
        lambda xp: ns.implicit.root(lambda y, x: y**3 - x),
        0.0,
        0.0,
        False,
        0,
    ),
    Case(
        "a root with a clamp",
        lambda xp: ns.implicit.root(lambda y, x: y + 2 * xp.clip(y, -1.0, 1.0) - x),
        1.0,
        3.0,
        True,
        1,
        1.0,
        ([1 / 3], [1.0]),
    ),
    Case(
        "projection on a half line",
        lambda xp: ns.implicit.argmin(lambda y, x: 0.5 * xp.sum((y - x) ** 2), lambda v, step, x: xp.relu(v), step=0.5),
        [0.0, 2.0],
        [0.0, 2.0],
        True,
        1,
        0.5,
        ([0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_closed_forms(xp: Adapter, case: Case) -> None:
    """The condition, the kinks, the least singular value and the box of implicit Jacobians."""
    with xp.default("double"):
        found = case.make(xp).diagnose(xp.array(case.x), y=xp.array(case.y))
        assert (found.invertible, found.kinks) == (case.holds, case.kinks), str(found)
        assert found.status == ("undecided" if case.holds is None else "computed")
        assert found.linear_residual < 1e-10 or (not case.holds and not case.kinks)
        if case.smallest is not None:
            assert found.attained and found.smallest_singular_value == pytest.approx(case.smallest)
        if not case.holds:
            assert found.element is not None
            assert np.linalg.svd(found.element, compute_uv=False)[-1] < 1e-7
            with pytest.raises(ns.errors.NotInvertible, match="no set of implicit Jacobians"):
                found.jacobian()
        elif case.box is not None:
            jacobian = found.jacobian()
            assert jacobian.exact
            for side, expected in zip(jacobian.set.box(), case.box, strict=True):
                np.testing.assert_allclose(side, expected, atol=1e-12)
        if case.kinks:
            assert found.lines[0].line.startswith(("test_diagnosis.py:", "adapters.py:"))
        assert json.loads(found.to_json())["invertible"] is case.holds


def kinked(rng: np.random.Generator, n: int, at: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Make y = relu(W y + U x) at a solution with some entries exactly at the kink: W, U, x and y."""
    W = rng.standard_normal((n, n))
    W *= 0.9 / np.linalg.norm(W, 2)
    y = np.where(np.arange(n) < at, 0.0, rng.uniform(0.5, 1.0, n) * (rng.random(n) < 0.7))
    before = np.where(np.arange(n) < at, 0.0, np.where(y > 0, y, -rng.uniform(0.5, 1.0, n)))
    return W, np.eye(n), before - W @ y, y


@pytest.mark.parametrize("seed", range(4))
def test_random_equilibria(xp: Adapter, seed: int) -> None:
    """The set is the hull over all selections, and holds the Jacobians of the solutions nearby."""
    rng = np.random.default_rng(seed)
    n, at = 4, 1 + seed % 3
    W, U, x, y = kinked(rng, n, at)
    with xp.default("double"):
        w = xp.array(W)
        found = ns.implicit.fixed_point(lambda y, x: xp.relu(w @ y + x)).diagnose(xp.array(x), y=xp.array(y))
        assert found.invertible and found.kinks == at
        jacobian = found.jacobian()
    assert jacobian.exact and jacobian.shape == (n, n)
    own = (y > 0).astype(float)
    listed = []
    for picks in itertools.product((0.0, 1.0), repeat=at):
        D = np.diag(np.concatenate([picks, own[at:]]))
        listed.append(np.linalg.solve(np.eye(n) - D @ W, D @ U))
        assert jacobian.set.contains(listed[-1].ravel(), 1e-9)
    least = min(np.linalg.svd(np.eye(n) - np.diag(d) @ W, compute_uv=False)[-1] for d in _signs(own, at))
    assert found.smallest_singular_value == pytest.approx(least)
    for _ in range(20):
        d, c = rng.standard_normal((2, n * n))
        assert jacobian.set.support(d) == pytest.approx(max(d @ L.ravel() for L in listed))
        near = x + 1e-6 * c[:n]
        z = y.copy()
        for _ in range(400):
            z = np.maximum(W @ z + near, 0)
        D = np.diag((W @ z + near > 0).astype(float))
        assert jacobian.set.contains(np.linalg.solve(np.eye(n) - D @ W, D).ravel(), 1e-6)
    row = rng.standard_normal(n)
    gradients = jacobian.gradients(row)
    assert gradients.support(d[:n]) == pytest.approx(max(row @ L @ d[:n] for L in listed))


def _signs(own: Floats, at: int) -> list[Floats]:
    return [np.concatenate([p, own[at:]]) for p in itertools.product((0.0, 1.0), repeat=at)]


def test_the_accuracy_of_the_solution_widens_the_kinks(xp: Adapter) -> None:
    """A solution that misses its kink by its own error is diagnosed at the kink."""
    with xp.default("double"):
        function = ns.implicit.fixed_point(lambda y, x: 2 * xp.relu(y) + x)
        assert function.diagnose(xp.array(-1e-9), y=xp.array(-2e-9)).invertible is False
        assert function.diagnose(xp.array(-1e-3), y=xp.array(-1e-3 - 1e-9)).invertible is True


def test_an_if_on_data(xp: Adapter) -> None:
    """The programs of both branches count."""
    if xp.name != "torch":
        pytest.skip("an `if` on data is a guard in torch alone")

    def T(y: Any, x: Any) -> Any:
        return 0.5 * y + x if y > 0 else 0.25 * y + x

    found = ns.implicit.fixed_point(T).diagnose(xp.array(0.0), y=xp.array(0.0))
    assert found.invertible and "programs" in found.rule and not found.attained
    assert found.smallest_singular_value <= 0.5
    bad = ns.implicit.fixed_point(lambda y, x: 3 * y + x if y > 0 else 0.5 * y + x)
    assert bad.diagnose(xp.array(0.0), y=xp.array(0.0)).invertible is None


def test_a_jump_is_named(xp: Adapter) -> None:
    """No theorem holds where H jumps."""
    with xp.default("double"), pytest.raises(ns.errors.NoField, match=r"floor.*jumps"):
        ns.implicit.fixed_point(lambda y, x: 0.5 * xp.floor(y) + x).diagnose(xp.array(0.5), y=xp.array(1.0))


def test_an_equation_that_is_not_square(xp: Adapter) -> None:
    """A residual of another size is refused."""
    with (
        xp.default("double"),
        pytest.raises(ns.errors.UsageError, match="2 entries must have as many; its residual has 1"),
    ):
        ns.implicit.root(lambda y, x: xp.sum(y) - x).diagnose(xp.array(1.0), y=xp.array([0.5, 0.5]))


def test_large_equations(xp: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without laying B out: the same answers, sampled."""
    rng = np.random.default_rng(0)
    W, _, x, y = kinked(rng, 30, 4)
    with xp.default("double"):
        w, shape = xp.array(W), (xp.array(x), xp.array(y))
        good = ns.implicit.fixed_point(lambda y, x: xp.relu(w @ y + x))
        first = xp.array(np.where(np.arange(30) == 0, 1.5, 0.0))
        bad = ns.implicit.fixed_point(lambda y, x: xp.relu(w @ y + x) + first * xp.relu(y))
        dense = good.diagnose(shape[0], y=shape[1])
        monkeypatch.setattr(diagnosis, "DENSE", 8)
        found = good.diagnose(shape[0], y=shape[1])
        assert found.invertible and found.status == "sampled" and found.linear_residual < 1e-9
        assert (found.kinks, found.groups) == (dense.kinks, dense.groups)
        assert bad.diagnose(shape[0], y=shape[1]).invertible is False
        singular = ns.implicit.fixed_point(lambda y, x: y - xp.sum(y) + x)
        answer = singular.diagnose(xp.array(np.zeros(30)), y=xp.array(np.zeros(30)))
        assert answer.invertible is None and "does not solve" in answer.rule
        monkeypatch.setattr(large, "ROWS", 2)
        assert "too many" in good.diagnose(shape[0], y=shape[1]).rule


def test_trees_and_parameters_that_do_not_move(xp: Adapter) -> None:
    """Structures, integers and constants among the parameters."""
    with xp.default("double"):

        def T(y: Any, theta: Any, power: int) -> Any:
            return {"a": 0.5 * xp.relu(y["a"]) ** power + theta["x"], "b": [0.1 * xp.sum(y["a"]) + y["b"][0] * 0.0]}

        y = {"a": xp.array([0.0, 1.0]), "b": [xp.array(0.1)]}
        found = ns.implicit.fixed_point(T).diagnose({"x": xp.array([0.0, 0.5])}, 1, y=y)
        assert found.unknowns == 3 and found.kinks == 1 and found.invertible
        jacobian = found.jacobian()
        assert jacobian.shape == (3, 2)
        np.testing.assert_allclose(jacobian.set.box()[0].reshape(3, 2), [[1, 0], [0, 2], [0.1, 0.2]], atol=1e-12)
        np.testing.assert_allclose(jacobian.set.box()[1].reshape(3, 2), [[2, 0], [0, 2], [0.2, 0.2]], atol=1e-12)
        with pytest.raises(ns.errors.UsageError, match="a cotangent of 3 unknowns"):
            jacobian.gradients([1.0])


def test_the_message_names_the_line(xp: Adapter) -> None:
    """What is raised says what was asked, what was found, where, and what to do."""
    with xp.default("double"):
        found = ns.implicit.fixed_point(lambda y, x: 2 * xp.relu(y) + x).diagnose(xp.array(0.0), y=xp.array(0.0))
    for words in ("fixed point", "does not hold", "test_diagnosis.py", "violated='warn'"):
        assert words in found.message()
