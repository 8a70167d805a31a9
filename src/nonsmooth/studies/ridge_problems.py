"""Min-max problems whose value is known: from a formula, or from a linear program solved by scipy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["MinMaxProblem", "problems"]


@dataclass(frozen=True, eq=False)
class MinMaxProblem:
    """A problem: F, an exact maximiser, the point to begin at, the constraints, the known value and where it is from."""

    name: str
    text: str
    F: Callable[..., Any]
    maximise: Callable[..., Any]
    x: Any
    value: float
    known_by: str
    constraints: Mapping[str, Any] = field(default_factory=dict)


def problems(seed: int) -> tuple[MinMaxProblem, ...]:
    """Give the problems; the data of some are drawn."""
    return (_shifted(), _climbing(), _anchored(seed), _chebyshev(seed), _game(seed), _robust(seed))


def _tensor(values: Any) -> Any:
    """Make a tensor of double precision."""
    import torch

    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def _shifted() -> MinMaxProblem:
    """The partial derivative is that of another function."""
    return MinMaxProblem(
        "shifted", "x^2/2 + y - 2|y - x|", lambda x, y: x * x / 2 + y - 2 * (y - x).abs(), lambda x, y: x, _tensor(1.0), -0.5,
        "formula: f(x) = x^2/2 + x",
    )  # fmt: skip


def _climbing() -> MinMaxProblem:
    """The partial derivative has the wrong sign."""
    from nonsmooth.optim.constraints import Box

    box = Box(-1.0, 1.0)
    return MinMaxProblem(
        "climbing", "y^2 - x^2/2 - 3|y - x|, |y| <= 1", lambda x, y: y * y - x * x / 2 - 3 * (y - x).abs(), lambda x, y: x,
        _tensor(0.5), 0.0, "formula: f(x) = x^2/2", {"constraint": box, "x_constraint": box},
    )  # fmt: skip


def _anchored(seed: int) -> MinMaxProblem:
    """Four variables each, the maximiser at the kinks of |y - B x|_1."""
    rng = np.random.default_rng(seed)
    a, b, B = _tensor(rng.standard_normal(4)), _tensor(rng.standard_normal(4)), _tensor(rng.standard_normal((4, 4)))
    rho = float(b.abs().max()) + 1
    least = a - B.T @ b
    value = float(((least - a) ** 2).sum() / 2 + b @ B @ least)

    def F(x: Any, y: Any) -> Any:
        return ((x - a) ** 2).sum() / 2 + b @ y - rho * (y - B @ x).abs().sum()

    return MinMaxProblem(
        "anchored", "|x - a|^2/2 + <b, y> - c|y - Bx|_1", F, lambda x, y: B @ x, a.clone(), value, "formula"
    )


def _chebyshev(seed: int) -> MinMaxProblem:
    """The best uniform fit of exp, with errors, by a line."""
    from scipy.optimize import linprog

    from nonsmooth.optim.constraints import L1Ball

    t = np.linspace(-1, 1, 9)
    A, b = np.c_[np.ones(9), t], np.exp(t) + 0.3 * np.random.default_rng(seed).standard_normal(9)
    ones = np.ones((9, 1))
    value = linprog([0, 0, 1], np.r_[np.c_[A, -ones], np.c_[-A, -ones]], np.r_[b, -b], bounds=(None, None)).fun
    A, b = _tensor(A), _tensor(b)

    def maximise(x: Any, y: Any) -> Any:
        rest, corner = A @ x - b, 0 * b
        place = int(rest.abs().argmax())
        corner[place] = 1.0 if rest[place] >= 0 else -1.0
        return corner

    return MinMaxProblem(
        "Chebyshev", "<y, Ax - b>, |y|_1 <= 1", lambda x, y: y @ (A @ x - b), maximise, _tensor([0.0, 0.0]), float(value),
        "linear program", {"constraint": L1Ball(1.0)},
    )  # fmt: skip


def _game(seed: int) -> MinMaxProblem:
    """A matrix game on two simplices."""
    import torch
    from scipy.optimize import linprog

    from nonsmooth.optim.constraints import Simplex

    M = np.random.default_rng(seed).integers(-3, 4, (4, 3)).astype(float)
    bounds = [(0, None)] * 3 + [(None, None)]
    value = linprog([0, 0, 0, 1], np.c_[M, -np.ones(4)], np.zeros(4), [[1, 1, 1, 0]], [1], bounds).fun
    M, eye = _tensor(M), torch.eye(4, dtype=torch.float64)
    return MinMaxProblem(
        "matrix game", "<y, Mx>, two simplices", lambda x, y: y @ M @ x, lambda x, y: eye[int((M @ x).argmax())].clone(),
        _tensor([1 / 3] * 3), float(value), "linear program", {"constraint": Simplex(), "x_constraint": Simplex()},
    )  # fmt: skip


def _robust(seed: int) -> MinMaxProblem:
    """Least absolute deviations, every entry of the data moved by up to 0.1."""
    import torch
    from scipy.optimize import linprog

    from nonsmooth.optim.constraints import Box

    rng, eps = np.random.default_rng(seed), 0.1
    A, b = rng.standard_normal((7, 2)), rng.standard_normal(7)
    side, none, both = (
        np.r_[np.c_[A, -np.eye(7)], np.c_[-A, -np.eye(7)]],
        np.zeros((14, 2)),
        np.r_[np.eye(2), -np.eye(2)],
    )
    rows = np.r_[np.c_[side, none], np.c_[both, np.zeros((4, 7)), -np.r_[np.eye(2), np.eye(2)]]]
    cost = np.r_[0, 0, np.ones(7), 7 * eps * np.ones(2)]
    value = linprog(cost, rows, np.r_[b, -b, np.zeros(4)], bounds=(None, None)).fun
    A, b = _tensor(A), _tensor(b)

    def maximise(x: Any, y: Any) -> Any:
        return eps * torch.outer(2.0 * (A @ x >= b) - 1, 2.0 * (x >= 0) - 1).double()

    return MinMaxProblem(
        "robust regression", "|(A + y)x - b|_1, |y| <= 0.1", lambda x, y: ((A + y) @ x - b).abs().sum(), maximise,
        _tensor([1.0, 1.0]), float(value), "linear program", {"constraint": Box(-eps, eps)},
    )  # fmt: skip
