"""The deep equilibrium layer as a function of JAX: parameters in, equilibria out, under jit, vmap and both modes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from nonsmooth.errors import ImplicitWarning, NotConverged, NotInvertible, UsageError
from nonsmooth.implicit.implicit_function import fixed_point
from nonsmooth.implicit.jax.arrays import common_type, widened
from nonsmooth.implicit.jax.attached import attached
from nonsmooth.implicit.jax.batched import Found, Split, fixed_rows, length
from nonsmooth.implicit.jax.linear_solve import System, solve_linear
from nonsmooth.implicit.jax.verify import verified
from nonsmooth.implicit.monotone import activation_slopes, check_form, monotone_matrix, singular_value_bound
from nonsmooth.implicit.nearness import NEAR
from nonsmooth.implicit.options import Options

__all__ = ["EquilibriumLayer", "deep_equilibrium"]

STEPS = 100
"""How often a linear system is iterated before the blocks are factorised."""

ROUNDING = 64.0
"""A kink counts within so many units of rounding, times the size of the solution."""

JUMP = 1e-2
"""By how much of the largest slope a slope must change there."""

SLACK = 8.0
"""How many units of rounding, times the size of I - W, its symmetric part must exceed."""


@dataclass(frozen=True)
class EquilibriumLayer:
    """A layer y = s(W y + U x + b): `init` makes its parameters, a call solves and differentiates; see `deep_equilibrium`.

    Attributes:
        inputs, width, activation, parametrisation, margin, slopes, bias: as of `deep_equilibrium`; an activation's name stays a
            name, so that the layer can be pickled.
        options: how it is solved and checked.
    """

    inputs: int
    width: int
    activation: str | Callable[[Any], Any]
    parametrisation: str = "monotone"
    margin: float = 0.1
    slopes: tuple[float, float] = (0.0, 1.0)
    bias: bool = True
    options: Options = field(default_factory=Options)

    def init(self, key: Any, dtype: Any = None) -> dict[str, Any]:
        """Draw parameters, a dict of arrays: V (and S) uniform in [-1, 1]/sqrt(width), U and b in [-1, 1]/sqrt(inputs)."""
        dtype = dtype or jnp.result_type(float)
        keys, n = jax.random.split(key, 4), self.width
        draw = lambda k, shape, size: jax.random.uniform(k, shape, dtype, -1, 1) / math.sqrt(size)  # noqa: E731
        found = {"V": draw(keys[0], (n, n), n), "U": draw(keys[2], (n, self.inputs), self.inputs)}
        if self.parametrisation == "monotone":
            found["S"] = draw(keys[1], (n, n), n)
        if self.bias:
            found["b"] = draw(keys[3], (n,), self.inputs)
        return found

    @property
    def nonlinearity(self) -> Callable[[Any], Any]:
        """The activation, a function."""
        return _function(self.activation)

    @property
    def slope(self) -> float:
        """h: the largest size of a slope."""
        return max(-self.slopes[0], self.slopes[1])

    @property
    def increasing(self) -> bool:
        """Whether s increases, with slopes that are known."""
        return 0 <= self.slopes[0] <= self.slopes[1] < math.inf

    def weight(self, params: dict[str, Any]) -> Any:
        """Give W."""
        V = params["V"]
        if self.parametrisation == "monotone":
            return monotone_matrix(V, params["S"], self.margin, jnp.eye(len(V), dtype=V.dtype), self.slope)
        if self.parametrisation == "contractive":
            return V * ((1 - self.margin) / self.slope) / jnp.maximum(jnp.linalg.norm(V, 2), 1.0)
        return V

    def singular_value_bound(self, params: dict[str, Any]) -> float:
        """Give a bound below the singular values of I - D W for every D, at every input; 0 if none is known.

        Source: derived, docs/theory/equilibrium.md.
        """
        if not math.isfinite(self.slope):
            return 0.0
        W = np.asarray(self.weight(params), dtype=np.float64) * self.slope
        small = max(1 - float(np.linalg.norm(W, 2)), 0.0)
        margin = float(np.linalg.eigvalsh(np.eye(len(W)) - (W + W.T) / 2)[0])
        if not self.increasing or margin <= 0:
            return small
        return max(small, singular_value_bound(margin, float(np.linalg.norm(2 * np.eye(len(W)) - W, 2))))

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        """Give the equilibrium at x, shape (..., inputs)."""
        return self.solve(params, x)[0]

    def solve(self, params: dict[str, Any], x: Any) -> tuple[Any, dict[str, Any]]:
        """Give the equilibrium, and what was done: the number of evaluations and the largest residual, as arrays."""
        x = jnp.asarray(x)
        if not x.ndim or x.shape[-1] != self.inputs:
            raise UsageError(f"the equilibrium layer takes an array of shape (..., {self.inputs}); found {x.shape}.")
        kind = common_type([params, x])
        params, x = jax.tree.map(lambda a: jnp.asarray(a, widened(kind)), (params, x))
        c = x @ params["U"].T
        y, done = equilibrium(self, self.weight(params), c + params["b"] if self.bias else c)
        return y.astype(kind), done


@dataclass(frozen=True)
class CellLayer:
    """A layer y = cell(params, y, x), row by row of a batch."""

    cell: Callable[..., Any]
    width: int | None
    start: Callable[[Any], Any] | None
    options: Options

    def __call__(self, params: Any, x: Any) -> Any:
        """Give the equilibrium at x, a tree of arrays whose first axis is that of the batch."""
        leaves = [jnp.asarray(a) for a in jax.tree.leaves(x)]
        if self.start is not None:
            begin = self.start(x)
        elif not leaves:
            raise UsageError("the equilibrium layer needs an array x that y could be like: pass start=.")
        else:
            first = leaves[0]
            begin = jnp.zeros(first.shape if self.width is None else (len(first), self.width), first.dtype)
        if not jnp.size(begin):
            return begin
        cell, options = self.cell, vars(self.options)

        def row(x: Any, begin: Any) -> Any:
            map_ = lambda y, params, x: cell(params, y, x)  # noqa: E731
            map_.__name__ = getattr(cell, "__name__", type(cell).__name__)
            return fixed_point(map_, **options)(params, x, start=begin)

        return jax.vmap(row)(x, lax.stop_gradient(begin))


def deep_equilibrium(
    inputs: int | Callable[..., Any],
    width: int | None = None,
    *,
    activation: str | Callable[[Any], Any] = "relu",
    parametrisation: str = "monotone",
    margin: float = 0.1,
    slopes: tuple[float, float] | None = None,
    bias: bool = True,
    start: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Any:
    """Make a layer of JAX that gives the equilibrium y of a cell, and differentiates by the implicit function theorem.

        y = s(W y + U x + b),   or   y = cell(params, y, x)          row by row of a batch

    The twin of `DeepEquilibrium`, with the same parametrisations, guarantees and errors. layer.init(key) draws parameters, a dict
    of arrays; layer(params, x) solves, under jit, vmap, and both modes to any order: it is a function of arrays alone, to be
    used from Equinox, Flax or by itself. A free W in a compiled program: where a row lies on kinks and W alone does not
    decide, an `ImplicitWarning` says so.

    Args:
        inputs: the number of features of x, shape (..., inputs); or a function cell(params, y, x) of one row.
        width: the number of features of y; of a cell it may stay out, y is then like x.
        activation: s, a function that acts entry by entry, or its name in `jax.nn`.
        parametrisation, margin, slopes, bias: as of `DeepEquilibrium`.
        start: of a cell, start(x) -> the y of a batch at which the solver begins.
        options: as of `Options`.

    Raises:
        UsageError: what cannot be served, by name. At calls NotConverged, NotInvertible.

    >>> import jax
    >>> from jax import numpy as jnp
    >>> layer = deep_equilibrium(3, 5)
    >>> params, x = layer.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 3))
    >>> y = layer(params, x)
    >>> bool(jnp.allclose(y, jax.nn.relu(y @ layer.weight(params).T + x @ params["U"].T + params["b"]), atol=1e-4))
    True

    Source: BaiKolterKoltun2019, WinstonKolter2020, BolteLePauwelsSilvetiFalls2021, derived, docs/theory/equilibrium.md.
    """
    read = Options(**options)
    if callable(inputs):
        return CellLayer(inputs, width, start, read)
    for name, size in (("inputs", inputs), ("width", width)):
        if type(size) is not int or size < 1:
            raise UsageError(f"deep_equilibrium: {name}={size!r}; pass a whole number of features, at least 1.")
    if isinstance(activation, str) and not callable(getattr(jax.nn, activation, None)):
        raise UsageError(f"activation={activation!r}: jax.nn has no function of this name; pass a function.")
    if slopes is None:
        try:
            slopes = activation_slopes(_function(activation), jnp.zeros(2))
        except UsageError:
            if parametrisation != "free":
                raise
            slopes = (-math.inf, math.inf)
    check_form(parametrisation, margin, slopes)
    assert width is not None
    return EquilibriumLayer(inputs, width, activation, parametrisation, margin, slopes, bias, read)


def _function(activation: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give an activation by its name in `jax.nn`."""
    found: Callable[[Any], Any] = getattr(jax.nn, activation) if isinstance(activation, str) else activation
    return found


def equilibrium(layer: EquilibriumLayer, W: Any, c: Any) -> tuple[Any, dict[str, Any]]:
    """Solve y = s(W y + c), check the residual, and attach y to W and c."""
    still, here = lax.stop_gradient(W), lax.stop_gradient(c)
    if not c.size:
        return c * 0.0, {"iterations": jnp.zeros((), int), "residual": jnp.zeros((), c.dtype)}
    eps = float(jnp.finfo(c.dtype).eps)
    y, used, rest, size = _solved(layer, still, here)
    (y,) = verified([y], [rest, size, used], _Converged(layer.options.tolerance or eps**0.5))
    return attached(y, [W, c], _Derivative(layer)), {"iterations": used, "residual": jnp.max(rest / (1 + size))}


@partial(jax.jit, static_argnums=0)
def _solved(layer: EquilibriumLayer, W: Any, c: Any) -> tuple[Any, Any, Any, Any]:
    """Run the solver: y, how often the cell was evaluated, and by rows |y - T(y)| and |y|."""
    certified, start = _certified(layer, W), jnp.zeros_like(c)
    goal = layer.options.tolerance or float(jnp.finfo(c.dtype).eps) ** 0.75
    h = layer.slope if math.isfinite(layer.slope) else 1.0
    s = layer.nonlinearity if h == 1 else lambda u: layer.nonlinearity(u) / h
    found = _fixed(s, W * h, c, start, goal, layer.options.iterations, layer, certified, None)
    y = found.y * h
    return y, found.iterations, length(y - layer.nonlinearity(y @ W.T + c)), length(y)


def _fixed(
    s: Callable[[Any], Any],
    W: Any,
    c: Any,
    start: Any,
    goal: float,
    limit: int,
    layer: EquilibriumLayer,
    certified: Any,
    scale: Any,
) -> Found:
    """Solve y = s(W y + c) on rows, by splitting where it is known to converge."""

    def T(y: Any) -> Any:
        return s(y @ W.T + c)

    def step(resolvent: Any, z: Any) -> tuple[Any, Any]:
        x = (z + c) @ resolvent
        return x, s(2 * x - z)

    split = Split(lambda: jnp.linalg.inv(2 * jnp.eye(len(W), dtype=W.dtype) - W).T, step, lambda y: 2 * y - y @ W.T - c)
    if layer.parametrisation != "free":
        return fixed_rows(T, start, goal, limit, scale, split if layer.increasing else None)
    if not layer.increasing:
        return fixed_rows(T, start, goal, limit, scale)
    found: Found = lax.cond(
        certified,
        lambda: fixed_rows(T, start, goal, limit, scale, split),
        lambda: fixed_rows(T, start, goal, limit, scale),
    )
    return found


@partial(jax.jit, static_argnums=0)
def _certified(layer: EquilibriumLayer, W: Any) -> Any:
    """Tell whether W alone shows that I - D W is invertible for all D, beyond rounding."""
    if layer.parametrisation != "free" or not math.isfinite(layer.slope):
        return jnp.full((), layer.parametrisation != "free")
    W, n = W * layer.slope, len(W)
    eps = float(jnp.finfo(W.dtype).eps)
    if not layer.increasing:
        return jnp.linalg.norm(W, 2) < 1 - SLACK * eps * n
    part = -(W + W.T) / 2
    slack = SLACK * eps * n * (1 + jnp.sqrt(jnp.sum(part * part)))
    return jnp.all(jnp.isfinite(jnp.linalg.cholesky(part + (1 - slack) * jnp.eye(n, dtype=W.dtype))))


@dataclass(frozen=True)
class _Derivative:
    """The derivative of an equilibrium in W and c."""

    layer: EquilibriumLayer

    def moves(self, place: int) -> bool:
        """Tell that it differentiates in both."""
        return True

    def residual(self, y: Any, W: Any, c: Any) -> Any:
        """Give y - s(W y + c)."""
        return y - self.layer.nonlinearity(y @ W.T + c)

    def slope(self, moving: tuple[int, ...], y: Any, inputs: list[Any], along: tuple[Any, ...]) -> Any:
        """Give dy = (I - D W)^-1 D (dW y + dc)."""
        layer, (W, c) = self.layer, inputs
        before = y @ W.T + c
        _, D = jax.jvp(layer.nonlinearity, (before,), (jnp.ones_like(before),))
        certified = _certified(layer, lax.stop_gradient(W))
        if layer.parametrisation == "free" and layer.options.violated != "ignore":
            (D,) = _looked_at(layer, D, y, W, c, certified)
        right = D * sum(d if k else y @ d.T for k, d in zip(moving, along, strict=True))
        eps = float(jnp.finfo(y.dtype).eps)
        goal = layer.options.linear_tolerance or layer.options.tolerance or eps**0.75
        allowed = max(layer.options.linear_tolerance or eps**0.5, goal)
        system = RowSystem(jax.tree.structure((W, D)), "dense", allowed, STEPS, layer=layer, goal=goal)
        return solve_linear((W, D), (certified,), right, system)


@dataclass(frozen=True)
class RowSystem(System):
    """The systems (I - D W) v = r of the rows: iterated, by splitting where it converges; else by their factors."""

    layer: Any = None
    goal: float = 0.0

    def product(self, *args: Any) -> Any:
        """Give B v, or B' v, from W, D and v."""
        W, D, v = args
        return v - ((v * D) @ W if self.transposed else D * (v @ W.T))

    def solution(self, *args: Any) -> tuple[Any, ...]:
        """Give v, and by rows |r - B v| and |r|; nothing more is known of a failure."""
        W, D, certified, right = args
        h = self.layer.slope if math.isfinite(self.layer.slope) else 1.0
        still, slopes, size = W * h, D / h, length(right)
        scale = jnp.where(size > 0, size, 1)
        A, b = (still.T, right) if self.transposed else (still, right @ still.T)
        found = _fixed(
            lambda u: slopes * u, A, b, jnp.zeros_like(right), self.goal, self.iterations, self.layer, certified, scale
        )

        def dense() -> Any:
            blocks = jnp.eye(len(W), dtype=W.dtype) - D[..., None] * W
            blocks = jnp.swapaxes(blocks, -1, -2) if self.transposed else blocks
            return jnp.linalg.solve(blocks, right[..., None])[..., 0]

        answer = right + (found.y @ still if self.transposed else found.y)
        solved = jnp.all(length(right - self.product(W, D, answer)) <= self.tolerance * size)
        answer = lax.cond(solved & (found.error <= self.goal), lambda: answer, dense)
        unknown = jnp.full_like(size, jnp.nan)
        return answer, length(right - self.product(W, D, answer)), size, unknown, unknown


def _looked_at(layer: EquilibriumLayer, D: Any, y: Any, W: Any, c: Any, certified: Any) -> list[Any]:
    """Let a look at the condition stand before a derivative: which rows lie on kinks, and which are singular."""
    seen = [lax.stop_gradient(a) for a in (y, W, c)]
    kinked, singular = _numbers(layer, *seen, lax.stop_gradient(D), certified)
    return verified([D], [kinked, singular, *seen], _Condition(layer))


@partial(jax.jit, static_argnums=0)
def _numbers(layer: EquilibriumLayer, y: Any, W: Any, c: Any, slopes: Any, certified: Any) -> tuple[Any, Any]:
    """Tell the rows that lie on kinks, up to the error |B^-1| |H|, and those whose matrix is singular; none where W decides."""
    eps = float(jnp.finfo(y.dtype).eps)

    def numbers() -> tuple[Any, Any]:
        before = y @ W.T + c
        blocks = jnp.eye(len(W), dtype=W.dtype) - slopes[..., None] * W
        probe = jax.random.normal(jax.random.key(0), (len(W), 1), y.dtype)
        found = jnp.linalg.solve(blocks, jnp.broadcast_to(probe, (*blocks.shape[:-1], 1)))[..., 0]
        inverse, norm = length(found) / length(probe[:, 0]), jnp.sqrt(jnp.sum(W * W))
        error = NEAR * inverse * norm * length(y - layer.nonlinearity(before))
        step = (error + ROUNDING * eps * (1 + jnp.max(jnp.abs(before))))[..., None]
        ends = [jax.jvp(layer.nonlinearity, (before + t,), (jnp.ones_like(before),))[1] for t in (-step, step)]
        bound = JUMP * (layer.slope if math.isfinite(layer.slope) else 1.0)
        kinked = jnp.any(jnp.abs(ends[0] - ends[1]) > bound, axis=-1)
        size = inverse * jnp.sqrt(jnp.sum(blocks * blocks, axis=(-2, -1)))
        return kinked & (layer.options.check == "kinks"), ~(size * ROUNDING * eps < 1)

    none = jnp.zeros(y.shape[:-1], bool)
    return lax.cond(certified, lambda: (none, none), numbers)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Converged:
    """The judge of equilibria, row by row."""

    tolerance: float
    one_by_one = False

    def measure(self, rest: Any, size: Any, used: Any) -> tuple[Any, ...]:
        """Look at the residuals, the sizes, and the number of evaluations."""
        return rest, size, used + jnp.zeros(rest.shape, int)

    def failed(self, rest: Any, size: Any, used: Any) -> Any:
        """Compare them; nan and infinity fail."""
        return ~((rest <= self.tolerance * (1 + size)) & (size < np.inf))

    def tell(self, rest: Any, size: Any, used: Any) -> None:
        """Say what was found."""
        raise NotConverged(
            f"the equilibrium layer: a row of the batch has the residual |y - T(y)| = {float(rest):.3g} after {int(used)} "
            f"evaluations, asked was {self.tolerance:.2g} (1 + |y|). Make more iterations=, allow a larger tolerance=, or take "
            "parametrisation='monotone', which has one solution."
        )

    def look(self, *seen: Any) -> None:
        """Judge by numbers alone."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Condition:
    """The judge of the condition where W alone does not show it."""

    layer: EquilibriumLayer
    one_by_one = True

    def measure(self, kinked: Any, singular: Any, *_: Any) -> tuple[Any, ...]:
        """Look at the rows on kinks and the singular ones."""
        return kinked, singular

    def failed(self, kinked: Any, singular: Any) -> Any:
        """Ask for none."""
        return kinked | singular

    def tell(self, kinked: Any, singular: Any) -> None:
        """Say what was found in a compiled program."""
        if singular:
            self._report(
                "the derivative of the equilibrium layer is singular in a row of the batch: the equilibrium is then no function of "
                "the parameters that could be differentiated."
            )
        elif kinked:
            self._warn(
                "a row of the equilibrium layer lies on a kink, and W alone does not show that the derivative of the equation "
                "is invertible for every element of its conservative Jacobian, which is not decided in a compiled program: "
                "differentiate outside of jax.jit, take parametrisation='monotone', or choose check='solves'."
            )

    def look(self, kinked: Any, singular: Any, y: Any, W: Any, c: Any) -> None:
        """Diagnose the rows that lie on kinks."""
        rows = np.asarray(kinked).reshape(-1)
        if np.any(singular):
            self.tell(False, True)
        y, c, s = jnp.reshape(y, (-1, y.shape[-1])), jnp.reshape(c, (-1, c.shape[-1])), self.layer.nonlinearity

        def cell(y: Any, W: Any, c: Any) -> Any:
            return s(W @ y + c)

        for row in np.flatnonzero(rows):
            found = fixed_point(cell, violated="ignore").diagnose(W, c[row], y=y[row])
            if found.invertible is False:
                self._report(f"row {row} of the batch: {found.message()}")
            elif found.invertible is None:
                self._warn(f"row {row} of the batch: {found.message()}")

    def _report(self, message: str) -> None:
        """Raise or warn, as was chosen."""
        if self.layer.options.violated == "raise":
            raise NotInvertible(message)
        self._warn(message)

    @staticmethod
    def _warn(message: str) -> None:
        """Warn."""
        warnings.warn(message, ImplicitWarning, stacklevel=2)
