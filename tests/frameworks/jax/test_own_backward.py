"""JAX's own backward: passes, solvers that keep their factors, and what it has no backward of."""

from __future__ import annotations

import jax
import pytest
from jax import lax
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.cost.own_backward import OwnCost, compare_backward


def compared(f: object, x: jax.Array) -> OwnCost:
    """Capture and compare."""
    return compare_backward(ns.capture(f, x), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [lambda g: g, jax.jit], ids=["plain", "jit"])
def test_a_gradient_inside_belongs_to_the_forward_pass(wrap: object) -> None:
    """What the function transposes itself it evaluates; only what JAX transposes is backward."""
    inner = wrap(jax.grad(lambda u: jnp.sum(jnp.sin(u) ** 2)))  # type: ignore[operator]
    own = compared(lambda x: jnp.sum(inner(x) ** 2), jnp.ones(5))
    assert own.evaluation <= own.forward
    assert 0 < own.backward <= own.pull
    assert not own.uncounted


def test_a_solver_keeps_its_factors() -> None:
    """The backward pass solves two triangular systems again, and factors nothing."""
    n = 5
    right = jnp.ones((n, 2))
    program = ns.capture(lambda a: jnp.linalg.solve(a, right).sum(), jnp.eye(n) + 0.1)
    entries = program.framework.own_backward(program, jnp.eye(n) + 0.1, ()).entries
    names = [(e.phase, e.call.operation) for e in entries]
    assert names.count(("forward", "lu_factor")) == 1
    assert names.count(("backward", "lu_factor")) == 0
    assert names.count(("forward", "triangular_solve")) == names.count(("backward", "triangular_solve")) == 2


def test_a_loop_without_a_backward_pass_is_said() -> None:
    """JAX differentiates no `while_loop` backwards: the comparison says so instead of raising."""
    own = compared(lambda x: lax.while_loop(lambda c: c.sum() < 10, lambda c: c * 2, x).sum(), jnp.ones(3))
    assert "JAX has no backward pass" in own.failed
    assert own.ratio is None
    assert "could not be run" in str(own)
