"""The table against JAX's own registry: no primitive with a rule of differentiation is left out, and each row reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.dictionary import OPERATIONS
from nonsmooth.frameworks.jax.equations import Equation, is_inexact
from nonsmooth.frameworks.jax.opening import OPENED, opened
from nonsmooth.frameworks.jax.registry import differentiable, missing
from nonsmooth.frameworks.jax.rows import PLAIN, REFUSED, SPECIAL, STRUCTURAL, read

X = jnp.array([[3.0, 1.0, 2.0], [0.5, 0.25, 4.0]])
A = X[:, :2] @ X[:, :2].T + jnp.eye(2)
PREDICATE = X > 1
BITS = jnp.arange(6).reshape(2, 3)


def window(reducer: Callable[..., Any], init: float, dilated: int = 1) -> Callable[[Any], Any]:
    return lambda u: lax.reduce_window(u, init, reducer, (1, 2), (1, 1), "VALID", (1, dilated))


EXAMPLES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str | None]] = {
    "abs": (jnp.abs, (X,), "abs"),
    "max": (jnp.maximum, (X, 2 * X), "maximum"),
    "min": (jnp.minimum, (X, 2 * X), "minimum"),
    "clamp": (lambda u: lax.clamp(0.0, u, 1.0), (X,), "clamp"),
    "select_n": (lambda u: lax.select_n(PREDICATE, u, 2 * u), (X,), "where"),
    "reduce_max": (lambda u: u.max(1), (X,), "amax"),
    "reduce_min": (lambda u: u.min(), (X,), "amin"),
    "cummax": (lambda u: lax.cummax(u, 1), (X,), "cummax"),
    "cummin": (lambda u: lax.cummin(u, 1), (X,), "cummin"),
    "sort": (lambda u: lax.sort(u), (X,), "sort"),
    "top_k": (lambda u: lax.top_k(u, 2), (X,), "topk"),
    "reduce_window_max": (window(lax.max, -jnp.inf), (X,), "max_pool"),
    "reduce_window_min": (window(lax.min, jnp.inf), (X,), None),
    "reduce_window": (window(lambda a, b: a * b * 1.0, 1.0), (X,), None),
    "reduce": (lambda u: lax.reduce(u, 1.0, lambda a, b: a * b * 1.0, (1,)), (X,), None),
    "div": (lax.div, (X, X), "div"),
    "pow": (lax.pow, (X, X), "pow"),
    "integer_pow": (lambda u: u**-2, (X,), "pow"),
    "cbrt": (lax.cbrt, (X,), "pow"),
    "convert_element_type": (lambda u: u.astype("int32"), (X,), "cast"),
    "and": (lax.bitwise_and, (PREDICATE, PREDICATE), "logic"),
    "or": (lax.bitwise_or, (PREDICATE, PREDICATE), "logic"),
    "xor": (lax.bitwise_xor, (BITS, BITS), "integer"),
    "not": (lax.bitwise_not, (PREDICATE,), "logic"),
    "reduce_and": (lambda p: lax.reduce_and(p, (0,)), (PREDICATE,), "logic"),
    "reduce_or": (lambda p: lax.reduce_or(p, (0,)), (PREDICATE,), "logic"),
    "reduce_xor": (lambda p: lax.reduce_xor(p, (0,)), (BITS,), "integer"),
    "eigh": (lax.linalg.eigh, (A,), "linalg_eigh"),
    "svd": (lambda a: lax.linalg.svd(a, compute_uv=False), (A,), "svdvals"),
    "lu": (lax.linalg.lu, (A,), "lu_factor"),
    "qr": (lax.linalg.qr, (A,), "linalg_qr"),
    "optimization_barrier": (lax.optimization_barrier, (X,), "copy"),
    "regularized_incomplete_beta": (lax.betainc, (X, X, X / 5), "betainc"),
    "approx_top_k": (lambda u: lax.approx_max_k(u, 2), (X,), None),
    "select_and_gather_add": (lambda u: jax.jvp(window(lax.max, -jnp.inf), (u,), (u,)), (X,), None),
    "select_and_scatter_add": (lambda u: jax.vjp(window(lax.max, -jnp.inf), u)[1](u[:, 1:]), (X,), None),
    "scatter-max": (lambda u: u.at[jnp.array([0, 0])].max(u), (X,), None),
    "scatter-min": (lambda u: u.at[jnp.array([0, 0])].min(u), (X,), None),
    "composite": (lax.composite(jnp.sin, "mine.sine"), (X,), None),
    "linear_call": (lambda u: jax.custom_derivatives.linear_call(lambda r, t: 2 * t, lambda r, t: 2 * t, (), u), (X,), None),
}  # fmt: skip
"""A call of each primitive whose parameters are read, with the record that it is; None where it is opened."""


def equations(jaxpr: Any) -> Iterator[Any]:
    """Walk the equations of a jaxpr and of the functions in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def example(name: str) -> Equation:
    """Describe the equation of an example."""
    function, args, _ = EXAMPLES[name]
    eqn = next(q for q in equations(jax.make_jaxpr(function)(*args).jaxpr) if q.primitive.name == name)
    literals = tuple(jnp.asarray(v.val) if isinstance(v, core.Literal) else None for v in eqn.invars)
    moving = tuple(is_inexact(v.aval) and c is None for v, c in zip(eqn.invars, literals, strict=True))
    return Equation(name, eqn.params, tuple(v.aval for v in eqn.invars), moving, literals)


def test_no_primitive_is_missing() -> None:
    """In a fresh interpreter, where no other package has registered primitives of its own."""
    text = "from nonsmooth.frameworks.jax import registry as r; print(len(r.differentiable()) > 150, r.missing())"
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True []"


@pytest.mark.parametrize("table", [PLAIN, SPECIAL, OPENED, REFUSED], ids=["plain", "special", "opened", "refused"])
def test_a_missing_primitive_is_found(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    others: dict[str, Any] = {k: v for t in (PLAIN, SPECIAL, OPENED, REFUSED) if t is not table for k, v in t.items()}
    name = next(k for k in table if k not in others and k in differentiable())
    before = set(missing())
    monkeypatch.delitem(table, name)
    assert set(missing()) == before | {name}


def test_every_row_has_an_example() -> None:
    assert {*SPECIAL, *OPENED} == set(EXAMPLES)
    assert all(record in OPERATIONS for record in PLAIN.values())
    assert all(reason.strip().endswith(".") and len(reason) > 40 for reason in REFUSED.values())
    names = [*PLAIN, *{*SPECIAL, *OPENED}, *REFUSED, *STRUCTURAL]
    assert len(names) == len(set(names)), "one primitive, one place"


@pytest.mark.parametrize("name", EXAMPLES)
def test_rows_read_or_open(name: str) -> None:
    equation, expected = example(name), EXAMPLES[name][2]
    if expected is None:
        assert read(equation) is None and opened(equation) is not None
        return
    reading = read(equation)
    assert opened(equation) is None and reading is not None
    assert reading.operation.name == expected
    assert all(place < len(equation.inputs) for place in reading.operands)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_rows_give_all_inputs(name: str) -> None:
    avals = (jax.ShapeDtypeStruct((2,), "float32"),) * 2
    reading = read(Equation(name, {}, avals, (True, False), (None, None)))
    assert reading is not None and reading.operation.name == PLAIN[name] and reading.operands == (0, 1)
