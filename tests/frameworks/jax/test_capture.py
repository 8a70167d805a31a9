"""What capture makes of JAX's functions, and what it refuses, with the line and what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import nonsmooth as ns
from nonsmooth.errors import CaptureError, PointError, RandomnessError, ResultError, UsageError

PAIR = jnp.array([0.5, -1.0])


def names(program: ns.Program) -> list[str]:
    """List the operations of a program."""
    return [step.operation.name for step in program.steps]


def branches(x: Any) -> Any:
    return lax.cond(x[0] > 0, lambda a: jnp.abs(a[1]), lambda a: jax.nn.relu(a[1]), x)


def switched(x: Any) -> Any:
    return lax.switch(jnp.int32(jnp.sum(x > 0)), [jnp.sum, lambda a: a[0] * a[1], jnp.max], x)


def looped(x: Any) -> Any:
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.maximum(c[1] * 2, -c[1])), (0, x[1]))[1]


def counted(x: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, c: c + jnp.abs(x[i % 2]), 0.0)


def scanned(x: Any) -> Any:
    last, rows = lax.scan(lambda c, a: (jnp.maximum(c, a), c * a), x[0], x, reverse=True)
    return last + rows.sum()


def nested(x: Any) -> Any:
    inner = jax.jit(lambda a: jax.jit(jax.nn.relu)(a) + jax.checkpoint(jnp.abs)(a))
    return jax.jit(lambda a: inner(a).sum())(x)


@jax.custom_jvp
def own_rule(u: Any) -> Any:
    return jnp.abs(u)


@own_rule.defjvp
def own_rule_jvp(primals: Any, tangents: Any) -> Any:
    return own_rule(primals[0]), jnp.sign(primals[0]) * tangents[0]


@jax.custom_vjp
def own_backward(u: Any) -> Any:
    return u * u


own_backward.defvjp(lambda u: (u * u, u), lambda u, g: (2 * u * g,))

CASES: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "cond": (branches, {"abs"}),
    "switch": (switched, {"mul"}),
    "while": (looped, {"maximum"}),
    "fori": (counted, {"abs"}),
    "scan": (scanned, {"maximum", "mul"}),
    "nested": (nested, {"relu", "abs"}),
    "own jvp": (lambda x: own_rule(x).sum(), {"own_rule"}),
    "own vjp": (lambda x: own_backward(x).sum(), {"own_backward"}),
    "several outputs of a sort": (lambda x: lax.sort((x, x * 2, -x), num_keys=1)[1][0], {"sort"}),
    "top k": (lambda x: lax.top_k(x, 1)[0].sum(), {"topk"}),
    "window": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "SAME").sum(), {"max_pool"}),
    "scatter": (lambda x: jnp.zeros(2).at[jnp.array([0, 0])].max(x).sum(), {"amax"}),
    "singular values": (lambda x: jnp.linalg.svd(jnp.outer(x, x) + jnp.eye(2), compute_uv=False).sum(), {"svdvals"}),
}


@pytest.mark.parametrize("name", CASES)
def test_programs_are_their_functions(name: str) -> None:
    """Value and gradient at another point, by the program captured here, are jax's own."""
    f, wanted = CASES[name]
    program = ns.capture(f, PAIR)
    assert wanted <= set(names(program))
    for x in (PAIR, jnp.array([-0.3, 0.7]), jnp.array([1.5, 0.25])):
        value, gradient = ns.value_and_backprop(program, x)
        assert float(value) == pytest.approx(float(f(x)), rel=1e-5, abs=1e-6)
        if name != "while":  # of which jax has no reverse mode
            np.testing.assert_allclose(gradient, jax.grad(f)(x), rtol=1e-5, atol=1e-6)


def test_a_branch_that_turns_is_captured_again() -> None:
    program = ns.capture(branches, PAIR)
    assert [g.kind for g in program.guards] == ["branch"]
    assert ns.backprop(program, jnp.array([-1.0, 2.0])).tolist() == [0.0, 1.0]


def test_lines_are_those_of_the_user() -> None:
    program = ns.capture(lambda x: jnp.linalg.norm(x) + jax.nn.relu(x).sum(), PAIR)
    assert all(step.source.function.endswith("<lambda>") for step in program.steps if step.source)
    assert all(step.source is not None and step.source.file == __file__ for step in program.steps)


@pytest.mark.parametrize("function", [jax.nn.mish, jax.nn.hard_silu, jax.nn.log_sigmoid])
def test_functions_are_known_wherever_they_are_traced(function: Any) -> None:
    x = jnp.ones(7)
    outside = names(ns.capture(function, x))
    with jax.ensure_compile_time_eval():  # traces hold constants in the place of equations
        assert names(ns.capture(function, x)) == outside
    assert len(outside) == 1


def test_a_rule_of_ones_own_is_trusted_and_said() -> None:
    program = ns.capture(lambda x: own_rule(x).sum(), PAIR)
    assert any("brings its own derivative" in f.message for f in program.findings)
    certificate = ns.subgradient(program, PAIR).certificate
    assert certificate.status == "undecided" and "own_rule" in str(certificate)


def python_if(x: Any) -> Any:
    if x[0] > 0:
        return x.sum()
    return x[1]


REFUSED: dict[str, tuple[Callable[[Any], Any], Any, type[Exception], str]] = {
    "if": (python_if, PAIR, CaptureError, r"jax\.lax\.cond.*test_capture\.py.*if x\[0\] > 0"),
    "float": (lambda x: x * float(x[0]), PAIR, CaptureError, "Python needs the value"),
    "numpy": (lambda x: jnp.sum(x) * np.sum(np.asarray(x)), PAIR, CaptureError, "use jax.numpy"),
    "random": (lambda x: x.sum() * np.random.rand(), PAIR, RandomnessError, r"numpy\.random"),
    "python's random": (lambda x: x.sum() * random.random(), PAIR, RandomnessError, "Python's `random`"),
    "callback": (
        lambda x: jax.pure_callback(lambda a: np.asarray(a), jax.ShapeDtypeStruct((2,), jnp.float32), x).sum(),
        PAIR,
        CaptureError,
        "pure_callback",
    ),
    "whole numbers": (jnp.sum, jnp.array([1, 2]), PointError, "has no derivative"),
    "complex": (lambda x: jnp.abs(x).sum(), jnp.array([1j]), PointError, "complex"),
    "nan": (jnp.sum, jnp.array([0.0, jnp.nan]), PointError, r"nan at index \(1,\)"),
    "a word in the point": (lambda x: x["a"].sum(), {"a": PAIR, "b": "word"}, PointError, "is a str"),
    "no array returned": (lambda x: "word", PAIR, ResultError, "must return arrays"),
    "not finite": (lambda x: jnp.log(-jnp.abs(x)).sum(), PAIR, UsageError, "not finite at the point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_and_nothing_changes(name: str) -> None:
    f, x, kind, text = REFUSED[name]
    state = np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(kind, match=text):
        ns.capture(f, x)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state


def test_a_vector_has_no_gradient() -> None:
    with pytest.raises(ResultError, match="scalar"):
        ns.backprop(jnp.abs, PAIR)


def test_other_shapes_are_refused_by_a_program() -> None:
    program = ns.capture(lambda x, a: (x * a).sum(), PAIR, jnp.ones(2))
    with pytest.raises(UsageError, match="shape"):
        ns.backprop(program, jnp.ones(3), jnp.ones(3))
    with pytest.raises(UsageError, match="data"):
        ns.backprop(program, PAIR)


def test_kinks_are_a_matter_of_values() -> None:
    with pytest.raises(UsageError, match=r"tracer.*ns\.grad"):
        jax.jit(lambda x: ns.subgradient(lambda y: jnp.abs(y).sum(), x).gradient)(PAIR)


def test_plain_data_are_constants_that_are_checked() -> None:
    def f(x: Any, way: str, a: Any) -> Any:
        return (jnp.abs(x) * a).sum() if way == "abs" else (x * a).sum()

    program = ns.capture(f, PAIR, "abs", jnp.ones(2))
    assert ns.backprop(program, PAIR, "abs", jnp.ones(2)).tolist() == [1.0, -1.0]
    assert ns.backprop(program, PAIR, "plain", jnp.ones(2)).tolist() == [1.0, 1.0]


def test_values_that_cancel_are_compared_with_their_terms() -> None:
    """A cross product of parallel vectors is rounding noise, which compiled and single operations make differently."""
    u = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)))
    program = ns.capture(lambda x: jnp.cross(x[0], x[1]).sum(), (u, 3 * u))
    assert program.proof is not None and program.proof.value_error <= program.proof.tolerance


@pytest.mark.parametrize("rounds", [50_001, 1_000_000])
def test_a_loop_that_is_too_long_is_refused_at_once(rounds: int) -> None:
    with pytest.raises(ns.errors.CaptureError, match=f"a loop of {rounds} rounds .*test_capture.py"):
        ns.capture(lambda x: lax.fori_loop(0, rounds, lambda i, c: jnp.abs(c) * 0.5, x), jnp.array(1.0))
