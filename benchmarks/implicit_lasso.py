"""Hyper-gradients of the Lasso: `python benchmarks/implicit_lasso.py [--rounds N] [-o FILE.json]`.

min |y - X b|^2 / 2n + l1 |b|_1, n = 200 samples, 500 features; the derivative in l1 of the mean squared error on 200 other
samples, in double precision. `numpy`: `ns.implicit.hyper_gradient` and sparho, both around scikit-learn's solver; `jax`:
`ns.implicit.argmin` and jaxopt, compiled; `torch`: `ns.implicit.argmin` and cvxpylayers. One tolerance for all. The error is
relative to the closed form on the support, found by homotopy (LARS) and solved densely; times are medians of rounds, in turn,
of the clock and of the processor (which other programs on the machine disturb less).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import has, measured, write
from sklearn.linear_model import lars_path

SAMPLES, FEATURES, SUPPORT, TOLERANCE = 200, 500, 20, 1e-9

Sides = dict[str, Callable[[], float]]


def problem() -> tuple[np.ndarray, ...]:
    """Draw data with correlated features; l1 is a tenth of the value from which on b = 0."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2 * SAMPLES, FEATURES))
    X = 0.7 * X + 0.3 * np.roll(X, 1, 1)
    b = np.zeros(FEATURES)
    b[rng.choice(FEATURES, SUPPORT, replace=False)] = rng.standard_normal(SUPPORT)
    y = X @ b + 0.5 * rng.standard_normal(2 * SAMPLES)
    l1 = 0.1 * np.abs(X[:SAMPLES].T @ y[:SAMPLES]).max() / SAMPLES
    return X[:SAMPLES], y[:SAMPLES], X[SAMPLES:], y[SAMPLES:], np.asarray(l1)


def reference(X: np.ndarray, y: np.ndarray, X_new: np.ndarray, y_new: np.ndarray, l1: np.ndarray) -> float:
    """Give the derivative by its closed form."""
    _, _, path = lars_path(X, y, method="lasso", alpha_min=float(l1))
    S, signs = np.flatnonzero(path[:, -1]), np.sign(path[:, -1][path[:, -1] != 0])
    gram = X[:, S].T @ X[:, S] / SAMPLES
    b = np.zeros(FEATURES)
    b[S] = np.linalg.solve(gram, X[:, S].T @ y / SAMPLES - l1 * signs)
    rest = np.abs(X.T @ (y - X @ b)) / SAMPLES
    rest[S] = 0
    assert (np.sign(b[S]) == signs).all() and rest.max() < l1
    slope = 2 * X_new.T @ (X_new @ b - y_new) / SAMPLES
    return float(-slope[S] @ np.linalg.solve(gram, signs))


def numpy_sides(X: Any, y: Any, X_new: Any, y_new: Any, l1: Any) -> Sides:
    """Give ours and sparho's."""
    import nonsmooth as ns

    lasso = ns.implicit.Lasso(fit_intercept=False)
    sides: Sides = {
        "nonsmooth": lambda: float(
            ns.implicit.hyper_gradient(lasso, X, y, float(l1), X_new, y_new, tolerance=TOLERANCE).gradient[0]
        )
    }
    if has("sparho"):
        import sparho

        whole = sparho.Problem(
            datafit=sparho.SquaredLoss(),
            penalty=sparho.L1(),
            design=np.asfortranarray(np.vstack([X, X_new])),
            target=np.concatenate([y, y_new]),
        )
        criterion = sparho.HeldOutMSE(np.arange(SAMPLES), np.arange(SAMPLES, 2 * SAMPLES))
        solver = sparho.adapters.SklearnLasso(tol=TOLERANCE)
        sides["sparho"] = lambda: float(
            criterion.value_and_hypergrad(whole, float(l1), solver, sparho.implicit_forward).hypergrad
        )
    return sides


def torch_sides(X: Any, y: Any, X_new: Any, y_new: Any, l1: Any) -> Sides:
    """Give ours and that of cvxpylayers."""
    import torch

    import nonsmooth as ns

    X, y, X_new, y_new = map(torch.tensor, (X, y, X_new, y_new))

    def prox(v: torch.Tensor, step: float, l1: torch.Tensor) -> torch.Tensor:
        return torch.sign(v) * torch.relu(v.abs() - step * l1)

    lasso = ns.implicit.argmin(
        lambda b, l1: ((X @ b - y) ** 2).sum() / (2 * SAMPLES),
        prox,
        iterations=5000,
        tolerance=TOLERANCE,
        linear="gmres",
    )
    begin = torch.zeros(FEATURES, dtype=X.dtype)

    def derivative(solve: Callable[[torch.Tensor], torch.Tensor]) -> float:
        penalty = torch.tensor(float(l1), dtype=X.dtype, requires_grad=True)
        loss = ((X_new @ solve(penalty) - y_new) ** 2).mean()
        return float(torch.autograd.grad(loss, penalty)[0])

    sides: Sides = {"nonsmooth": lambda: derivative(lambda l1: lasso(l1, start=begin))}
    if has("cvxpylayers"):
        import cvxpy
        from cvxpylayers.torch import CvxpyLayer

        b, penalty = cvxpy.Variable(FEATURES), cvxpy.Parameter(nonneg=True)
        loss = cvxpy.sum_squares(X.numpy() @ b - y.numpy()) / (2 * SAMPLES) + penalty * cvxpy.norm1(b)
        layer = CvxpyLayer(cvxpy.Problem(cvxpy.Minimize(loss)), parameters=[penalty], variables=[b])
        exact = {"eps_abs": TOLERANCE, "eps_rel": TOLERANCE, "max_iters": 100_000, "acceleration_lookback": 0}
        sides["cvxpylayers"] = lambda: derivative(lambda l1: layer(l1, solver_args=exact)[0])
    return sides


def jax_sides(X: Any, y: Any, X_new: Any, y_new: Any, l1: Any) -> Sides:
    """Give ours and jaxopt's."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    import nonsmooth as ns

    X, y, X_new, y_new = map(jnp.asarray, (X, y, X_new, y_new))
    begin = jnp.zeros(FEATURES)

    def smooth(b: Any, *_: Any) -> Any:
        return jnp.sum((X @ b - y) ** 2) / (2 * SAMPLES)

    def prox(v: Any, step: Any, l1: Any) -> Any:
        return jnp.sign(v) * jax.nn.relu(jnp.abs(v) - step * l1)

    lasso = ns.implicit.argmin(smooth, prox, iterations=5000, tolerance=TOLERANCE, linear="gmres", check="solves")

    def run(solve: Callable[[Any], Any]) -> Callable[[], float]:
        compiled = jax.jit(jax.grad(lambda l1: jnp.mean((X_new @ solve(l1) - y_new) ** 2)))
        return lambda: float(compiled(jnp.asarray(l1)))

    sides: Sides = {"nonsmooth": run(lambda l1: lasso(l1, start=begin))}
    if has("jaxopt"):
        import jaxopt

        solver = jaxopt.ProximalGradient(smooth, jaxopt.prox.prox_lasso, maxiter=5000, tol=TOLERANCE)
        sides["jaxopt"] = run(lambda l1: solver.run(begin, hyperparams_prox=l1).params)
    return sides


def main() -> None:
    """Run, print a line for every side, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data, rows = problem(), []
    exact = reference(*data)
    for framework, make in (("numpy", numpy_sides), ("torch", torch_sides), ("jax", jax_sides)):
        found = measured(make(*data), lambda gradient: {"error": abs(gradient / exact - 1)}, options.rounds)
        for name, row in found.items():
            rows.append({"framework": framework, "side": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    packages = ("torch", "jax", "sklearn", "jaxopt", "sparho", "cvxpylayers")
    write(options.output, packages, rows, tolerance=TOLERANCE, rounds=options.rounds)


if __name__ == "__main__":
    main()
