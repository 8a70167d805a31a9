"""How JAX's primitives and functions are read: openings keep values and derivatives, whole functions are known again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax, nn, scipy
from jax import numpy as jnp
from jax.extend import core

from nonsmooth.frameworks.jax.equations import Equation, is_inexact
from nonsmooth.frameworks.jax.known import KNOWN, known
from nonsmooth.frameworks.jax.opening import opened
from nonsmooth.frameworks.jax.rows import STRUCTURAL, Reading, read

Array = Any


def described(eqn: Any, values: list[Any], moving: list[bool]) -> Equation:
    """Describe an equation of which some inputs move and the others are known."""
    literals = tuple(None if m else v for v, m in zip(values, moving, strict=True))
    return Equation(eqn.primitive.name, eqn.params, tuple(v.aval for v in eqn.invars), tuple(moving), literals)


class Interpreter:
    """Evaluates a jaxpr with every equation opened until the table reads it."""

    def __init__(self, hide: bool) -> None:
        self.hide, self.count = hide, 0  # hide: nothing but literals is known, as under compilation

    def run(self, closed: Any, args: list[Any], moving: list[bool]) -> list[Any]:
        env = {v: (c, False) for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)}
        env |= {v: (a, m) for v, a, m in zip(closed.jaxpr.invars, args, moving, strict=True)}
        for eqn in closed.jaxpr.eqns:
            inputs = [
                (jnp.asarray(v.val, v.aval.dtype), False) if isinstance(v, core.Literal) else env[v] for v in eqn.invars
            ]
            values, moves = [v for v, _ in inputs], [m for _, m in inputs]
            outputs = self.equation(eqn, values, moves)
            env |= {v: (o, any(moves)) for v, o in zip(eqn.outvars, outputs, strict=True)}
        return [v.val if isinstance(v, core.Literal) else env[v][0] for v in closed.jaxpr.outvars]

    def equation(self, eqn: Any, values: list[Any], moves: list[bool]) -> list[Any]:
        if eqn.primitive.name in STRUCTURAL:
            assert eqn.primitive.name == "jit"
            return self.run(eqn.params["jaxpr"], values, moves)
        if not any(moves) and not self.hide:
            with jax.ensure_compile_time_eval():
                found = eqn.primitive.bind(*values, **eqn.params)
            return list(found) if eqn.primitive.multiple_results else [found]
        equation = described(eqn, values, moves)
        if self.hide:
            equation = Equation(
                equation.primitive, equation.params, equation.inputs, equation.moving, (None,) * len(values)
            )
        other = opened(equation)
        if other is None:
            reading = read(equation)
            assert reading is not None, eqn
            if any(moves) and not reading.operation.kind.is_smooth:
                assert all(is_inexact(eqn.outvars[k].aval) for k in reading.results)
            found = eqn.primitive.bind(*values, **eqn.params)
            return list(found) if eqn.primitive.multiple_results else [found]
        self.count += 1
        closed = jax.make_jaxpr(other)(*(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values))
        return self.run(closed, values, moves)


def windows(padding: Any, base: tuple[int, int] = (1, 1), inner: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    return {
        "window_dimensions": (2, 3),
        "window_strides": (1, 2),
        "padding": padding,
        "base_dilation": base,
        "window_dilation": inner,
    }


def reduced(reducer: Callable[..., Any], init: float, **p: Any) -> Callable[[Array], Array]:
    return lambda u: lax.reduce_window(u, init, reducer, **p)


INDICES = np.array([3, 0, 3, 7, 3, -1])
PAIRS = np.array([[0, 1], [2, 0], [0, 1], [9, 9]])
DIMENSIONS = lax.ScatterDimensionNumbers(
    update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, 1)
)


def scattered(scatter: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Scatter rows of two entries, of which some land on the same place and one lands outside."""
    return lambda u, w: scatter(u, jnp.asarray(PAIRS), w[:4, :2], DIMENSIONS, mode=mode)


POOL = reduced(lax.max, -jnp.inf, **windows([(1, 0), (2, 1)]))

OPENINGS: dict[str, Callable[..., Any]] = {
    "sort with a payload": lambda u, w: lax.sort((u, w), dimension=1, num_keys=1),
    "sort with two payloads": lambda u, w: lax.sort((u, w, u * w), dimension=0, num_keys=1),
    "sort by two keys": lambda u, w: lax.sort((jnp.round(u), w, u), dimension=1, num_keys=2),
    "cummax from the end": lambda u, w: lax.cummax(u, 1, reverse=True),
    "cummin from the end": lambda u, w: lax.cummin(u, 0, reverse=True),
    "max pool over a dilated operand": lambda u, w: reduced(lax.max, -jnp.inf, **windows([(1, 0), (2, 1)], (2, 1)))(u),
    "max pool over a cut operand": lambda u, w: reduced(lax.max, -jnp.inf, **windows([(0, 1), (-1, 2)], (1, 1), (2, 1)))(u),
    "min pool": lambda u, w: reduced(lax.min, jnp.inf, **windows([(1, 0), (2, 1)], (1, 2), (1, 2)))(u),
    "reduce by one's own function": lambda u, w: lax.reduce(u, 1.0, lambda a, b: a * b * 1.0, (0,)),
    "windows by one's own function": lambda u, w: reduced(lambda a, b: a * b * 1.0, 1.0, **windows([(1, 0), (2, 1)], (2, 1)))(u),
    "segment max": lambda u, w: u.at[jnp.asarray(INDICES)].max(w),
    "segment min": lambda u, w: u.at[jnp.asarray(INDICES)].min(w),
    "scatter max, dropped": scattered(lax.scatter_max, "drop"),
    "scatter min, clipped": scattered(lax.scatter_min, "clip"),
    "derivative of max pool": lambda u, w: jax.jvp(POOL, (u,), (w,)),
    "derivative of min pool": lambda u, w: jax.jvp(reduced(lax.min, jnp.inf, **windows([(1, 1), (2, 1)])), (u,), (w,)),
    "gradient of max pool": lambda u, w: jax.grad(lambda v: (POOL(v) ** 2).sum())(u),
    "approximate top k": lambda u, w: lax.approx_max_k(u, 3, reduction_dimension=1)[0],
    "approximate bottom k": lambda u, w: lax.approx_min_k(u, 3, reduction_dimension=0)[0],
    "composite": lambda u, w: lax.composite(lambda v: jnp.sort(v * 2), "mine.sorted")(u),
    "linear call": lambda u, w: jax.custom_derivatives.linear_call(lambda r, t: r * t, lambda r, t: r * t, w, u),
}  # fmt: skip


INSTEAD: dict[str, Callable[..., Any]] = {
    # jax has no derivative of a composite, and of a clipped scatter one that forgets the clipping
    "composite": lambda u, w: jnp.sort(u * 2),
    "scatter min, clipped": lambda u, w: lax.scatter_min(u, jnp.asarray(PAIRS.clip(0, (5, 3))), w[:4, :2], DIMENSIONS, mode="drop"),
}  # fmt: skip
"""What an opening is compared with where it is not the original."""

FORWARD = (
    "max pool over a cut operand",
    "min pool",
    "windows by one's own function",
    "derivative of max pool",
    "derivative of min pool",
)
"""Those of which jax itself has no reverse mode."""


HIDDEN = ("segment max", "segment min", "scatter max, dropped", "scatter min, clipped", "sort by two keys")
"""Those that are opened in another way where indices are not known."""


@pytest.mark.parametrize(("name", "hide"), [*((n, False) for n in OPENINGS), *((n, True) for n in HIDDEN)])
def test_openings_keep_values_and_derivatives(name: str, hide: bool) -> None:
    """At random points, where nothing ties, values and jax's own gradients are those of the original."""
    generator, interpreter = np.random.default_rng(len(name)), Interpreter(hide)
    points = [
        tuple(jnp.asarray(generator.permuted(np.arange(30.0)).reshape(6, 5) / 7 - 1.7, jnp.float32) for _ in range(2))
        for _ in range(3)
    ]
    closed, f = jax.make_jaxpr(OPENINGS[name])(*points[0]), INSTEAD.get(name, OPENINGS[name])
    shapes = [a.shape for a in closed.out_avals]
    weights = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]

    def replaced(u: Array, w: Array) -> list[Array]:
        return interpreter.run(closed, [u, w], [True, name != "linear call"])

    def both(function: Callable[..., Any]) -> Callable[..., Any]:
        """Give values and derivatives of the result, weighed."""

        def read_out(u: Array, w: Array) -> Array:
            w = lax.stop_gradient(w) if name == "linear call" else w
            return sum((a * b).sum() for a, b in zip(jax.tree.leaves(function(u, w)), weights, strict=True))

        if name in FORWARD:
            return jax.jit(lambda u, w: (function(u, w), jax.jvp(read_out, (u, w), (w, u))))
        return jax.jit(lambda u, w: (function(u, w), jax.grad(read_out, (0, 1))(u, w)))

    native, own = both(f), both(replaced)
    for point in points:
        for a, b in zip(jax.tree.leaves(native(*point)), jax.tree.leaves(own(*point)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    assert interpreter.count > 0


def test_ties_of_a_scatter_are_one_kink_of_all_that_land() -> None:
    """What lands on a place meets there at once where the indices are known: one largest entry, no chain of maxima."""
    eqn = jax.make_jaxpr(lambda u, w: u.at[jnp.array([0, 0, 0])].max(w))(jnp.zeros(2), jnp.zeros(3)).eqns[-1]
    u, w = jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0, 0.5])
    function = opened(described(eqn, [u, jnp.zeros((3, 1), int), w], [True, False, True]))
    assert function is not None
    names = [q.primitive.name for q in jax.make_jaxpr(function)(u, jnp.zeros((3, 1), int), w).eqns]
    assert names.count("reduce_max") == 1 and "max" not in names
    gradients = jax.grad(lambda u, w: function(u, jnp.zeros((3, 1), int), w)[0], (0, 1))(u, w)
    np.testing.assert_allclose(gradients[0], [1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [1 / 3, 1 / 3, 0], rtol=1e-6)


# --- rows that depend on parameters -----------------------------------------------------------------------------------

U = jnp.array([0.5, 0.25, 2.0])
AB = jnp.array([[2.0, 1.0], [1.0, 3.0]])

READINGS: dict[str, tuple[Callable[..., Any], str, tuple[int, ...], dict[str, Any]]] = {
    "u ** 3": (lambda u: u**3, "power", (0,), {}),
    "u ** 2.5": (lambda u: u**2.5, "power", (0, 1), {}),
    "u ** 0.5": (lambda u: lax.pow(u, 0.5), "pow", (0, 1), {"moving": False}),
    "2 ** u": (lambda u: lax.pow(2.0, u), "exp2", (0, 1), {}),
    "u / 3": (lambda u: u / 3, "mul", (0, 1), {}),
    "3 / u": (lambda u: 3 / u, "div", (0, 1), {"moving": True}),
    "max(u, -inf)": (lambda u: lax.max(u, -jnp.inf), "copy", (0,), {}),
    "max(u, 0)": (lambda u: lax.max(u, 0.0), "maximum", (0, 1), {}),
    "min(inf, u)": (lambda u: lax.min(jnp.inf, u), "copy", (1,), {}),
    "clamp by numbers": (lambda u: lax.clamp(0.0, u, 1.0), "clamp", (1,), {"min": 0.0, "max": 1.0}),
    "clamp by arrays": (lambda u: lax.clamp(u - 1, u, 2 * u), "clamp_tensor", (1, 0, 2), {}),
    "largest over no axes": (lambda u: lax.reduce_max_p.bind(u, axes=(), out_sharding=None), "copy", (0,), {}),
    "choice by a number": (lambda u: lax.select_n(jnp.array([0, 1, 2]), u, 2 * u, 3 * u), "index", (0, 1, 2, 3), {}),
    "largest integer": (lambda u: lax.max(u.astype(int), 0), "integer", (0, 1), {}),
    "indices sorted by known keys": (lambda u: lax.sort((jnp.arange(3), u), num_keys=1), "gather", (0, 1), {}),
    "argsort": (lambda u: lax.sort((u, jnp.arange(3)), num_keys=1), "sort", (0,), {"dim": 0, "descending": False}),
}


@pytest.mark.parametrize("name", READINGS)
def test_readings(name: str) -> None:
    function, record, operands, attributes = READINGS[name]
    closed, moves = jax.make_jaxpr(function)(U), {}
    moves = {v: True for v in closed.jaxpr.invars}
    reading = None
    for eqn in closed.jaxpr.eqns:
        moving = [not isinstance(v, core.Literal) and moves.get(v, False) for v in eqn.invars]
        moves |= {v: any(moving) for v in eqn.outvars}
        values = [jnp.asarray(v.val) if isinstance(v, core.Literal) else None for v in eqn.invars]
        reading = read(described(eqn, values, moving))
    assert reading is not None
    assert (reading.operation.name, reading.operands, dict(reading.attributes)) == (record, operands, attributes)


def test_eigenvectors_count_only_where_something_uses_them() -> None:
    (eqn,) = jax.make_jaxpr(lambda a: lax.linalg.eigh(a, symmetrize_input=False))(AB).eqns
    equation = described(eqn, [None], [True])
    found = [read(equation, wanted) for wanted in (None, (True, True), (False, True))]
    assert [r and (r.operation.name, r.results) for r in found] == [
        ("linalg_eigh", (0, 1)),
        ("linalg_eigh", (0, 1)),
        ("eigvalsh", (1,)),
    ]
    (eqn,) = jax.make_jaxpr(lambda a: lax.linalg.svd(a, full_matrices=False))(AB).eqns
    equation = described(eqn, [None], [True])
    found = [read(equation, wanted) for wanted in (None, (True, False, False))]
    assert [r and r.operation.name for r in found] == ["linalg_svd", "svdvals"]


# --- whole functions --------------------------------------------------------------------------------------------------

P = jnp.array([[0.3, 0.6, 0.2], [0.7, 0.4, 0.9]])
S = AB[:, None] * jnp.eye(2)[None]
B = jnp.eye(4) + 0.1

FUNCTIONS: dict[str, tuple[Callable[..., Any], Array, str, dict[str, Any]]] = {
    "relu": (nn.relu, P, "relu", {}),
    "relu6": (nn.relu6, P, "relu6", {"min_val": 0.0, "max_val": 6.0}),
    "leaky_relu": (nn.leaky_relu, P, "leaky_relu", {"negative_slope": 0.01}),
    "leaky_relu with a slope": (lambda u: nn.leaky_relu(u, 0.25), P, "leaky_relu", {"negative_slope": 0.25}),
    "leaky_relu by name": (lambda u: nn.leaky_relu(u, negative_slope=0.5), P[0], "leaky_relu", {"negative_slope": 0.5}),
    "elu": (lambda u: nn.elu(u, 2.0), P, "elu", {"alpha": 2.0, "scale": 1.0, "input_scale": 1.0}),
    "selu": (nn.selu, P, "selu", {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0}),
    "celu": (nn.celu, P, "celu", {}),
    "hard_tanh": (nn.hard_tanh, P, "hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    "hard_sigmoid": (nn.hard_sigmoid, P, "hardsigmoid", {}),
    "hard_silu": (nn.hard_silu, P, "hardswish", {}),
    "softplus": (nn.softplus, P, "softplus", {}),
    "silu": (nn.silu, P, "silu", {}),
    "mish": (nn.mish, P, "mish", {}),
    "log_sigmoid": (nn.log_sigmoid, P, "log_sigmoid", {}),
    "log_softmax": (nn.log_softmax, P, "log_softmax", {}),
    "log_softmax down": (lambda u: nn.log_softmax(u, axis=0), P, "log_softmax", {}),
    "glu": (lambda u: nn.glu(jnp.concatenate([u, u]), axis=0), P, "glu", {"dim": 0}),
    "log1mexp": (nn.log1mexp, P, "log1mexp", {}),
    "logaddexp": (lambda u: jnp.logaddexp(u, 1.0), P, "logaddexp", {}),
    "logaddexp2": (lambda u: jnp.logaddexp2(u, u), P, "logaddexp2", {}),
    "clip": (lambda u: jnp.clip(u, 0, 1), P, "clamp", {"min": 0.0, "max": 1.0}),
    "clip below": (lambda u: u.clip(0.5), P, "clamp", {"min": 0.5, "max": None}),
    "clip above": (lambda u: u.clip(max=0.5), P, "clamp", {"min": None, "max": 0.5}),
    "norm": (jnp.linalg.norm, P, "vector_norm", {"ord": 2.0, "dim": None}),
    "norm of three axes": (jnp.linalg.norm, S, "vector_norm", {"ord": 2.0, "dim": None}),
    "norm of rows": (lambda u: jnp.linalg.norm(u, axis=1), P, "vector_norm", {"ord": 2.0, "dim": (1,)}),
    "3-norm": (lambda u: jnp.linalg.norm(u, 3, 0, True), P, "vector_norm", {"ord": 3.0, "dim": (0,)}),
    "1-norm": (lambda u: jnp.linalg.norm(u, 1), P[0], "vector_norm", {"ord": 1.0, "dim": None}),
    "maximum norm": (lambda u: jnp.linalg.norm(u, jnp.inf, -1), P, "vector_norm", {"ord": float("inf"), "dim": (1,)}),
    "Frobenius": (lambda u: jnp.linalg.norm(u, "fro", (0, 2)), S, "vector_norm", {"ord": 2.0, "dim": (0, 2)}),
    "std": (jnp.std, P, "std", {"correction": 0.0, "dim": None}),
    "std of rows": (lambda u: jnp.std(u, 1, ddof=1, keepdims=True), P, "std", {"correction": 1.0, "dim": (1,)}),
    "var": (lambda u: jnp.var(u, 0), P, "var", {}),
    "hypot": (lambda u: jnp.hypot(u, 1.0), P, "hypot", {}),
    "copysign": (lambda u: jnp.copysign(u, -1.0), P, "copysign", {}),
    "sign of copysign": (lambda u: jnp.copysign(2.0, u), P, "copysign_sign", {}),
    "heaviside": (lambda u: jnp.heaviside(u, 0.5), P, "heaviside", {}),
    "trunc": (jnp.trunc, P, "trunc", {}),
    "floor_divide": (lambda u: u // 2, P, "floor_divide", {}),
    "remainder": (lambda u: u % u, P, "remainder", {}),
    "fmod": (lambda u: jnp.fmod(u, 2), P, "fmod", {}),
    "frexp": (lambda u: jnp.frexp(u)[0], P, "frexp", {}),
    "sinc": (jnp.sinc, P, "sinc", {}),
    "i0": (jnp.i0, P, "i0", {}),
    "nan_to_num": (jnp.nan_to_num, P, "nan_to_num", {}),
    "det": (jnp.linalg.det, B, "linalg_det", {}),
    "slogdet": (lambda a: jnp.linalg.slogdet(a)[1], B, "linalg_slogdet", {}),
    "inv": (jnp.linalg.inv, B, "linalg_inv", {}),
    "solve": (lambda a: jnp.linalg.solve(a, a[0]), B, "linalg_solve", {}),
    "pinv": (jnp.linalg.pinv, P, "linalg_pinv", {}),
    "expm": (scipy.linalg.expm, B, "linalg_matrix_exp", {}),
    "xlogy": (lambda u: scipy.special.xlogy(u, u), P, "xlogy", {}),
    "xlog1py": (lambda u: scipy.special.xlog1py(u, u), P, "xlog1py", {}),
    "entr": (scipy.special.entr, P, "entr", {}),
    "logit": (scipy.special.logit, P, "logit", {}),
    "zeta": (lambda u: scipy.special.zeta(u + 2, 2.0), P, "special_zeta", {}),
    "log_ndtr": (scipy.special.log_ndtr, P, "special_log_ndtr", {}),
}


def recognised(function: Callable[..., Any], u: Array) -> list[Reading]:
    """Read the functions that a program calls, not looking into those that are known."""
    found: list[Reading] = []

    def walk(jaxpr: Any, moving: list[bool]) -> None:
        moves = dict(zip(jaxpr.invars, moving, strict=True))
        for eqn in jaxpr.eqns:
            own = [not isinstance(v, core.Literal) and moves.get(v, False) for v in eqn.invars]
            moves |= {v: any(own) for v in eqn.outvars}
            if eqn.primitive.name in ("jit", "custom_jvp_call", "custom_vjp_call") and any(own):
                values = [jnp.asarray(v.val, v.aval.dtype) if isinstance(v, core.Literal) else None for v in eqn.invars]
                reading = known(described(eqn, values, own))
                if reading is not None:
                    found.append(reading)
                elif eqn.primitive.name == "jit":
                    walk(eqn.params["jaxpr"].jaxpr, own)

    walk(jax.make_jaxpr(function)(u).jaxpr, [True])
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_known(name: str) -> None:
    function, u, record, attributes = FUNCTIONS[name]
    for point in (u, u.astype("bfloat16")) if record in ("relu", "elu", "hardtanh") else (u,):
        (reading,) = recognised(function, point)
        assert (reading.operation.name, dict(reading.attributes)) == (record, attributes)


def test_every_known_function_is_tried() -> None:
    assert {r for *_, r, _ in FUNCTIONS.values()} == {
        k.record if isinstance(k.record, str) else name for name, ks in KNOWN.items() for k in ks
    } | {"copysign_sign"}


def _own_rule() -> Callable[[Array], Array]:
    """Give jax's relu with another derivative."""
    function = jax.custom_jvp(nn.relu)
    function.defjvp(lambda primals, tangents: (nn.relu(*primals), tangents[0]))
    function.__name__ = "relu"
    return function


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function of the user's that has the name of one of jax's."""
    function.__name__ = name
    return jax.jit(function)


IMPOSTORS: dict[str, Callable[[Array], Array]] = {
    "another formula": _named("elu", lambda u: jnp.where(u > 0, u, jnp.sin(u))),
    "another constant": _named("hard_tanh", lambda u: jnp.where(u > 1, 1, jnp.where(u < -2, -1, u))),
    "another rule": jax.jit(_own_rule()),
    "another norm": _named("norm", lambda u: jnp.sqrt(jnp.sum(u * u) + 1)),
    "clipped the other way round": _named("clip", lambda u, a=0.0, b=1.0: jnp.maximum(jnp.minimum(u, b), a)),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_a_function_of_the_same_name_is_not_known(name: str) -> None:
    assert not [r for r in recognised(IMPOSTORS[name], P) if r.operation.name != "relu" or name == "another rule"]


def test_a_parameter_that_moves_is_no_attribute() -> None:
    """leaky_relu at a slope that depends on the point is opened, as is a copied sign where both move."""
    assert recognised(lambda u: nn.leaky_relu(u, u[0, 0]), P) == []
    assert recognised(lambda u: jnp.copysign(u, u), P) == []
    assert recognised(lambda u: jnp.clip(u, u - 1, 2.0), P) == []


def test_whole_and_complex_numbers_have_no_kinks_of_real_ones() -> None:
    """Indices that depend on the point are clipped without a kink; the norm of a complex vector is opened."""
    assert recognised(lambda u: jnp.clip(jnp.argsort(u), 0, 1), P) == []
    assert recognised(lambda u: jnp.linalg.norm(u + 1j * u), P) == []
