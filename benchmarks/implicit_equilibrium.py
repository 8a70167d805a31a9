"""Gradients of a relu equilibrium: `python benchmarks/implicit_equilibrium.py [--rounds N] [-o FILE.json]`.

y = relu(W y + c), width 128, batch 64, gradient of <g, y> in W and c; all sides with the same W, c, g and tolerance, in turn.
`torch`: `DeepEquilibrium`, torchdeq, torchopt; `jax`: `deep_equilibrium`, jaxopt. A peer takes part if Python finds it. The
error is that of the gradient, in W and in c, relative to a dense solve of every row in double precision; times are medians of
rounds, of the clock and of the processor (which other programs on the machine disturb less).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import has, measured, write

WIDTH, BATCH = 128, 64

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
"""Of the residuals, relative; the same for all."""

NORMS = {"contractive": 0.9, "steep": 3.0}
"""The spectral norms of W. The steep one is monotone, but for its skew part no contraction."""

Sides = dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]


def problem(kind: str) -> tuple[np.ndarray, ...]:
    """Draw W, c and g."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((WIDTH, WIDTH))
    if kind == "steep":
        W = (W - W.T) / np.linalg.norm(W - W.T, 2) * NORMS[kind] + 0.4 * np.eye(WIDTH)
    else:
        W = W / np.linalg.norm(W, 2) * NORMS[kind]
    return W, rng.standard_normal((BATCH, WIDTH)), rng.standard_normal((BATCH, WIDTH))


def reference(W: np.ndarray, c: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve every row by a semismooth Newton method and its adjoint by a dense solve, in double precision."""
    y, eye = np.zeros_like(c), np.eye(len(W))
    for _ in range(200):
        D = (y @ W.T + c > 0).astype(float)
        moved = np.linalg.solve(eye - D[..., None] * W, (D * c)[..., None])[..., 0]
        if np.abs(moved - y).max() < 1e-14:
            break
        y = 0.5 * (y + moved) if _ % 2 and np.abs(moved - y).max() > 1 else moved
    assert np.abs(y - np.maximum(y @ W.T + c, 0)).max() < 1e-10
    D = (y @ W.T + c > 0).astype(float)
    adjoint = D * np.linalg.solve(np.swapaxes(eye - D[..., None] * W, 1, 2), g[..., None])[..., 0]
    return adjoint.T @ y, adjoint


def torch_sides(data: tuple[np.ndarray, ...], dtype: str, tolerance: float) -> Sides:
    """Give what torch and its peers compute."""
    import torch

    import nonsmooth as ns

    W, c, g = (torch.tensor(a, dtype=getattr(torch, dtype)) for a in data)
    W.requires_grad_(), c.requires_grad_()
    layer = ns.implicit.DeepEquilibrium(
        WIDTH, WIDTH, parametrisation="free", tolerance=tolerance, dtype=W.dtype, bias=False
    )
    with torch.no_grad():
        layer.cell.V.copy_(W)
        layer.cell.U.weight.copy_(torch.eye(WIDTH))
    layer.cell.U = torch.nn.Identity()  # c is given
    layer.cell.U.in_features = WIDTH

    def differentiated(y: torch.Tensor, matrix: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        found = torch.autograd.grad(y, (matrix, c), g)
        return found[0].numpy(), found[1].numpy()

    sides: Sides = {"nonsmooth": lambda: differentiated(layer(c), layer.cell.V)}
    if has("torchdeq"):
        from torchdeq import get_deq

        for solver in ("fixed_point_iter", "anderson"):
            deq = get_deq(
                core="indexing", ift=True, f_solver=solver, b_solver=solver, f_max_iter=400, b_max_iter=400, f_tol=tolerance,
                b_tol=tolerance, f_stop_mode="rel", b_stop_mode="rel",
            )  # fmt: skip

            def torchdeq(deq: Any = deq) -> tuple[np.ndarray, np.ndarray]:
                found, _ = deq(lambda y: torch.relu(y @ W.T + c), torch.zeros_like(c))
                return differentiated(found[-1], W)

            sides[f"torchdeq {solver}"] = torchdeq
    if has("torchopt"):
        sides["torchopt"] = torchopt_side(W, c, g, tolerance)
    return sides


def torchopt_side(W: Any, c: Any, g: Any, tolerance: float) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Give torchopt's: `custom_root` around plain iteration, with its solver for normal equations."""
    import torch
    import torchopt

    @torchopt.diff.implicit.custom_root(
        lambda y, W, c: y - torch.relu(y @ W.T + c),
        argnums=(1, 2),
        solve=torchopt.linear_solve.solve_normal_cg(rtol=tolerance, atol=0.0, maxiter=400),
    )
    def solve(y: torch.Tensor, W: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(400):
                last, y = y, torch.relu(y @ W.T + c)
                if bool((y - last).norm() <= tolerance * (1 + y.norm())):
                    break
        return y

    def side() -> tuple[np.ndarray, np.ndarray]:
        found = torch.autograd.grad(solve(torch.zeros_like(c), W, c), (W, c), g)
        return found[0].numpy(), found[1].numpy()

    return side


def jax_sides(data: tuple[np.ndarray, ...], dtype: str, tolerance: float) -> Sides:
    """Give what JAX and its peer compute, compiled."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    import nonsmooth as ns

    W, c, g = (jnp.asarray(a, dtype=dtype) for a in data)
    layer = ns.implicit.deep_equilibrium(WIDTH, WIDTH, parametrisation="free", tolerance=tolerance, bias=False)
    identity = jnp.eye(WIDTH, dtype=dtype)

    def run(solve: Callable[[Any, Any], Any]) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        compiled = jax.jit(jax.grad(lambda W, c: jnp.sum(g * solve(W, c)), argnums=(0, 1)))

        def side() -> tuple[np.ndarray, np.ndarray]:
            a, b = jax.block_until_ready(compiled(W, c))
            return np.asarray(a), np.asarray(b)

        return side

    sides = {"nonsmooth": run(lambda W, c: layer({"V": W, "U": identity}, c))}
    if has("jaxopt"):
        import jaxopt

        def T(y: Any, W: Any, c: Any) -> Any:
            return jax.nn.relu(y @ W.T + c)

        gmres = partial(jaxopt.linear_solve.solve_gmres, tol=tolerance, maxiter=400)
        for name, solver in {
            "jaxopt FixedPointIteration": jaxopt.FixedPointIteration(
                T, maxiter=400, tol=tolerance * BATCH**0.5, implicit_diff_solve=gmres
            ),
            "jaxopt AndersonAcceleration": jaxopt.AndersonAcceleration(
                T, maxiter=400, tol=tolerance * BATCH**0.5, implicit_diff_solve=gmres
            ),
            "jaxopt FixedPointIteration, its default solve": jaxopt.FixedPointIteration(
                T, maxiter=400, tol=tolerance * BATCH**0.5
            ),
        }.items():
            sides[name] = run(lambda W, c, solver=solver: solver.run(jnp.zeros_like(c), W, c).params)
    return sides


def errors(found: Any, exact: Any) -> dict[str, float]:
    """Give the relative errors of the gradients."""
    names = ("error_W", "error_c")
    return {
        name: float(np.linalg.norm(a - b) / np.linalg.norm(b)) for name, a, b in zip(names, found, exact, strict=True)
    }


def main() -> None:
    """Run, print a line for every side, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows = []
    for kind in NORMS:
        data = problem(kind)
        exact = reference(*data)
        for dtype, tolerance in TOLERANCES.items():
            for framework, make in (("torch", torch_sides), ("jax", jax_sides)):
                found = measured(make(data, dtype, tolerance), partial(errors, exact=exact), options.rounds)
                for name, row in found.items():
                    line = {
                        "W": kind,
                        "dtype": dtype,
                        "tolerance": tolerance,
                        "framework": framework,
                        "side": name,
                        **row,
                    }
                    rows.append(line)
                    print(json.dumps(line), flush=True)
    write(options.output, ("torch", "jax", "jaxopt", "torchdeq", "torchopt"), rows, rounds=options.rounds)


if __name__ == "__main__":
    main()
