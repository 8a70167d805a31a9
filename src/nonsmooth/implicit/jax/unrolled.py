"""Iterations of jax arrays as one scan, differentiated through their steps, with tangents pushed beside them.

Over 300 lines: the steps, their tangents and what is measured of both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nonsmooth.errors import UsageError
from nonsmooth.implicit.iteration import MIXED, Iterates, Push, Record, mismatch, name_of, not_finite, random_tangents

__all__ = [
    "alike",
    "detached",
    "gradient",
    "iterate",
    "operators",
    "pusher",
    "settle",
    "shifted",
    "step_residual",
    "stepped",
]

Tree = Any

NO_DERIVATIVE = (TypeError, ValueError, NotImplementedError)
"""What JAX raises where it has no derivative of a kind: of a `jax.custom_vjp` no forward mode, of a `while_loop` no reverse."""


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _floating(tree: Tree) -> list[Any]:
    return [jnp.asarray(leaf) for leaf in jax.tree_util.tree_leaves(tree) if _is_array(leaf)]


def _filled(tree: Tree, values: Any) -> Tree:
    """Put values in the place of the floating leaves."""
    source = iter(values)
    return jax.tree_util.tree_map(lambda leaf: next(source) if _is_array(leaf) else leaf, tree)


def detached(tree: Tree) -> Tree:
    """Give a tree whose derivative is zero."""
    return _filled(tree, [jax.lax.stop_gradient(leaf) for leaf in _floating(tree)])


def _concrete(tree: Tree) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(tree))


def gradient(f: Callable[..., Any], y: Tree, theta: tuple[Any, ...]) -> Tree:
    """Give the gradient of the scalar f(y, *theta) in y, which can be differentiated again."""

    def scalar(moving: Tree) -> Any:
        value = jnp.asarray(f(moving, *theta))
        if value.size != 1:
            raise UsageError(
                f"the objective must give one number; found shape {value.shape}: sum it, or pass gradient=."
            )
        return value.reshape(())

    return jax.grad(scalar)(y)


def _checked(T: Any, y: Tree, theta: tuple[Any, ...]) -> Tree:
    """Refuse what T gives if it is not like y; give the start with the types that stay."""
    if not _floating(y):
        raise UsageError("start: pass a floating array, or a tree of them, like what T returns.")
    y = jax.tree_util.tree_map(jnp.asarray, y)
    alike(T, y, jax.eval_shape(lambda at: T(at, *theta), y))
    return y


def stepped(T: Any, y: Tree, theta: tuple[Any, ...]) -> Tree:
    """Make one step."""
    new = T(y, *theta)
    alike(T, y, new)
    return new


def alike(T: Any, y: Tree, new: Tree) -> None:
    """Refuse what T gives if it is not like y."""
    leaves, structure = jax.tree_util.tree_flatten(y)
    others, other = jax.tree_util.tree_flatten(new)
    if str(structure) != str(other):
        raise mismatch(T, f"the structure {structure}", f"{other}")
    for a, b in zip(leaves, others, strict=True):
        if a.shape != b.shape:
            raise mismatch(T, f"shape {a.shape}", f"{b.shape}")
        if a.dtype != b.dtype:
            raise mismatch(T, f"dtype {a.dtype}", f"{b.dtype}")


def _like(new: Tree, y: Tree) -> Tree:
    """Give new the weak types of y, as a scan asks."""
    return jax.tree_util.tree_map(lambda a, b: jax.lax.convert_element_type(a, b.dtype), new, y)


def _length(leaves: list[Any]) -> Any:
    return (
        jnp.sqrt(sum(jnp.sum(jnp.square(jax.lax.stop_gradient(leaf))) for leaf in leaves)) if leaves else jnp.zeros(())
    )


def _less(new: list[Any], old: list[Any]) -> list[Any]:
    return [a - b for a, b in zip(new, old, strict=True)]


def _moved(T: Any, y: Tree, theta: Any) -> Callable[..., list[Any]]:
    """Give a step as a function of the floating leaves of y and theta."""
    n = len(_floating(y))
    return lambda *values: _floating(T(_filled(y, values[:n]), *_filled(theta, values[n:])))


def _jvp(T: Any, y: Tree, theta: Any, tangent: list[Any], direction: list[Any]) -> tuple[list[Any], list[Any]]:
    """Push a tangent of the floating leaves of y and theta through a step; give value and tangent."""
    leaves = (*_floating(y), *_floating(theta))
    found: tuple[list[Any], list[Any]] = jax.jvp(_moved(T, y, theta), leaves, (*tangent, *direction))
    return found


def _no_push(T: Any, y: Tree, theta: Any) -> str:
    """Say why JAX cannot push a tangent through T, which has a value; nothing if it can.

    Of a `jax.custom_vjp` jax 0.10 finds this when it evaluates, or maps: two tangents are pushed, in shapes alone.
    """
    two = [jnp.zeros((2, *leaf.shape), leaf.dtype) for leaf in [*_floating(y), *_floating(theta)]]
    n = len(_floating(y))
    try:
        jax.eval_shape(jax.vmap(lambda *tangents: _jvp(T, y, theta, [*tangents[:n]], [*tangents[n:]])[1]), *two)
    except NO_DERIVATIVE as error:
        return f"JAX cannot push a tangent through {name_of(T)} ({str(error).splitlines()[0][:120].rstrip('.')})"
    return ""


def _draw(tree: Tree, rng: np.random.Generator) -> list[Any]:
    leaves = _floating(tree)
    drawn = random_tangents([leaf.shape for leaf in leaves], rng)
    return [jnp.asarray(d, dtype=leaf.dtype) for d, leaf in zip(drawn, leaves, strict=True)]


def _strong(tree: Tree) -> Tree:
    """Drop weak types, which a scan would find to change."""
    return jax.tree_util.tree_map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)


def iterate(run: Iterates, start: Tree, theta: tuple[Any, ...]) -> Tree:
    """Make the steps, and record them."""
    if run.mode == "forward":
        return _forward(run, start, theta)
    y = _strong(_checked(run.T, start(*theta) if callable(start) else start, theta))
    last, seen, reason = _scan(run, y, theta)
    _record(run, seen, reason, last, theta)
    return last


def _scan(run: Iterates, y: Tree, theta: tuple[Any, ...]) -> tuple[Tree, Any, str]:
    """Scan the steps; beside the last iterate give what was measured, and why no tangents were pushed."""
    rng, fixed = np.random.default_rng(run.seed), detached(theta)
    reason = _no_push(run.T, detached(y), fixed) if run.tangents else ""
    drawn = [(_draw(y, rng), _draw(theta, rng)) for _ in range(0 if reason else run.tangents)]

    def step(carry: tuple[Tree, list[Any]], _: None) -> tuple[Any, Any]:
        y, tangents = carry
        new = _like(run.T(y, *theta), y)
        moved = _length(_less(_floating(new), _floating(y)))
        if not drawn:
            return (new, tangents), (moved, jnp.zeros((0,)))
        at = detached(y)
        pushed = [_jvp(run.T, at, fixed, t, d)[1] for t, (_, d) in zip(tangents, drawn, strict=True)]
        pushed = [[jax.lax.stop_gradient(leaf) for leaf in t] for t in pushed]
        changes = [_length(_less(new_, old)) for new_, old in zip(pushed, tangents, strict=True)]
        return (new, pushed), (moved, jnp.stack(changes))

    (last, tangents), (moved, changes) = jax.lax.scan(step, (y, [t for t, _ in drawn]), None, length=run.steps)
    size = jnp.max(jnp.stack([_length(t) for t in tangents])) if drawn else jnp.zeros(())
    return last, (moved, _length(_floating(last)), changes, size), reason


def _record(run: Iterates, seen: Any, reason: str, last: Tree, theta: tuple[Any, ...]) -> None:
    """Hand over what was measured: now, or when the compiled function runs."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in _floating(last))
    seen = jax.tree_util.tree_map(jax.lax.stop_gradient, seen)

    def keep(moved: Any, length: Any, changes: Any, size: Any, *, y: Any, values: Any) -> None:
        moved = np.asarray(moved, dtype=np.float64)
        if not np.isfinite(moved).all() and y is not None:
            raise not_finite(run.T, int(np.argmin(np.isfinite(moved))) + 1)
        found = np.asarray(changes, dtype=np.float64).T if run.tangents and not reason else None
        run.record(Record(moved, float(length), found, float(size), eps, reason), y, values, True)

    if _concrete(seen):
        known = last if _concrete((last, theta)) else None
        keep(*seen, y=known, values=theta)
    elif run.tangents:
        jax.debug.callback(partial(keep, y=None, values=None), *seen)


def _forward(run: Iterates, start: Tree, theta: tuple[Any, ...]) -> Tree:
    """Carry the Jacobian in theta along; what differentiates the result uses it, at the first order and above."""
    leaves, place = _floating(theta), callable(start)
    y = _strong(_checked(run.T, start(*theta) if place else start, theta))
    for step in (run.T, lambda _, *t: start(*t)) if place else (run.T,):
        if reason := _no_push(step, detached(y), detached(theta)):
            raise UsageError(
                f"mode='forward': {reason}. Use mode='reverse', or give what it calls a rule of forward mode (jax.custom_jvp)."
            )
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def split(flat: Any) -> list[Any]:
        return [
            p.reshape(leaf.shape).astype(leaf.dtype) for p, leaf in zip(jnp.split(flat, sizes), leaves, strict=True)
        ]

    def primal(at: Tree, values: list[Any]) -> Tree:
        here = _filled(theta, values)
        last, seen, reason = _scan(run, at, here)
        _record(run, seen, reason, last, here)
        return last

    def forward(at: Any, values: Any) -> Any:
        if not place and any(
            leaf.perturbed for leaf in jax.tree_util.tree_leaves(at, is_leaf=_is_marked) if _is_marked(leaf)
        ):
            raise UsageError(
                "mode='forward' differentiates in the parameters, and start is differentiated: pass start as a function of the "
                "parameters, start=lambda *theta: ..., or use mode='reverse'."
            )
        plain = [jax.tree_util.tree_map(lambda m: m.value, t, is_leaf=_is_marked) for t in (at, values)]
        return primal(*plain), _jacobian(run, plain[0], plain[1], theta, start if place else None, split)

    def backward(jacobian: list[Any], cotangent: Any) -> Any:
        found = jax.tree_util.tree_leaves(cotangent, is_leaf=_is_zero)
        parts = [c for c, leaf in zip(found, jax.tree_util.tree_leaves(y), strict=True) if _is_array(leaf)]
        rows = [J.T @ c.reshape(-1) for c, J in zip(parts, jacobian, strict=True) if not _is_zero(c)]
        return jax.tree_util.tree_map(jnp.zeros_like, y), split(sum(rows, jnp.zeros(sum(leaf.size for leaf in leaves))))

    attached = jax.custom_vjp(primal)
    attached.defvjp(forward, backward, symbolic_zeros=True)
    return attached(y, leaves)


def _is_marked(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def _is_zero(leaf: Any) -> bool:
    return type(leaf).__name__ == "SymbolicZero"


def _jacobian(run: Iterates, y: Tree, values: list[Any], theta: Any, start: Any, split: Any) -> list[Any]:
    """Push the tangents of all entries of theta: for each leaf of y an array (entries, entries of theta)."""
    here = _filled(theta, values)
    n = sum(leaf.size for leaf in values)
    basis = jnp.eye(n) if n else jnp.zeros((0, 0))
    zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in _floating(y)]

    def first(d: Any) -> list[Any]:
        if start is None:
            return zeros
        return _jvp(lambda _, *t: start(*t), y, here, zeros, split(d))[1]

    def step(carry: Any, _: None) -> Any:
        at, columns = carry
        pushed = jax.vmap(lambda t, d: _jvp(run.T, at, here, t, split(d))[1])(columns, basis)
        return (_like(run.T(at, *here), at), pushed), None

    (_, columns), _ = jax.lax.scan(step, (y, jax.vmap(first)(basis)), None, length=run.steps)
    return [c.reshape(n, -1).T for c in columns]


def settle(T: Any, start: Tree, theta: tuple[Any, ...], iterations: int, tolerance: float | None) -> Tree:
    """Iterate until the step is within the tolerance; give the last but one iterate."""
    fixed = detached(theta)
    y = _strong(_checked(T, detached(start), fixed))
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in _floating(y))
    allowed = eps**0.5 if tolerance is None else tolerance

    def go_on(carry: Any) -> Any:
        at, new, k = carry
        moved = _length(_less(_floating(new), _floating(at)))
        return (k <= iterations) & (moved > allowed * (1 + _length(_floating(at))))

    def step(carry: Any) -> Any:
        _, new, k = carry
        return new, _like(T(new, *fixed), new), k + 1

    found, _, _ = jax.lax.while_loop(go_on, step, (y, _like(T(y, *fixed), y), 1))
    return detached(found)


def step_residual(x: Tree, y: Tree) -> tuple[float, float, float] | None:
    """Give |y - x|, |x| and the unit of rounding; None where there are no values."""
    before, after = _floating(x), _floating(y)
    moved, size = _length(_less(after, before)), _length(before)
    if not _concrete((moved, size)):
        return None
    return float(moved), float(size), max(float(jnp.finfo(leaf.dtype).eps) for leaf in before)


def pusher(T: Any, x: Tree, theta: tuple[Any, ...], tangent: Any) -> tuple[Any, Push] | None:
    """Give a tangent of x, near the one passed if that fits, and what pushes it through T or pulls it back; None without values."""
    at, *fixed = detached((x, *theta))
    if not _concrete((at, fixed)):
        return None
    drawn = _draw(at, np.random.default_rng(0))
    if tangent is not None and [(t.shape, t.dtype) for t in tangent] == [(d.shape, d.dtype) for d in drawn]:
        drawn = [t + MIXED * d for t, d in zip(tangent, drawn, strict=True)]
    step, leaves = lambda *values: _floating(T(_filled(at, values), *fixed)), _floating(at)
    linear = (_pulled if _no_push(T, at, tuple(fixed)) else _pushed)(step, leaves)
    if linear is None:
        return None

    def push(moved: Any) -> tuple[float, Any]:
        before = _length(moved)
        moved = linear(*moved)
        size = float(_length(moved))
        return size / float(before), [t / size for t in moved] if size else moved

    return drawn, push


def _pushed(step: Callable[..., list[Any]], leaves: list[Any]) -> Callable[..., list[Any]]:
    """Give t -> B t."""
    push: Callable[..., list[Any]] = jax.linearize(step, *leaves)[1]
    return push


def _pulled(step: Callable[..., list[Any]], leaves: list[Any]) -> Callable[..., list[Any]] | None:
    """Give c -> B' c, which grows as B does; None where there is no reverse mode either, and nothing to differentiate by."""
    try:
        result, pull = jax.vjp(step, *leaves)
        jax.eval_shape(pull, result)
    except NO_DERIVATIVE:
        return None
    return lambda *moved: list(pull([*moved]))


def operators(T: Any, y: Tree, theta: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the sizes of y and theta, t -> [A B] t and c -> c'[B A] on flat arrays of numpy, and T(y) - y."""
    at, fixed = _floating(y), _floating(theta)
    leaves, n = [*at, *fixed], len(at)
    sizes = [leaf.size for leaf in leaves]
    result, pull = jax.vjp(_moved(T, y, theta), *leaves)
    _, turned = jax.vjp(pull, [jnp.zeros_like(leaf) for leaf in result])  # the pullback of a pullback pushes

    def split(flat: Any, like: list[Any]) -> list[Any]:
        parts = np.split(flat, np.cumsum([leaf.size for leaf in like])[:-1])
        return [jnp.asarray(p.reshape(leaf.shape), dtype=leaf.dtype) for p, leaf in zip(parts, like, strict=True)]

    def join(found: Any) -> Any:
        return np.concatenate([np.asarray(t, dtype=np.float64).ravel() for t in found] or [np.zeros(0)])

    def push(flat: Any) -> Any:
        return join(turned(tuple(split(flat, leaves)))[0])

    def pulled(flat: Any) -> Any:
        return join(pull(split(flat, result)))

    return sum(sizes[:n]), sum(sizes[n:]), push, pulled, join(result) - join(at)


def shifted(tree: Tree, flat: Any) -> Tree:
    """Add a flat array to the floating leaves."""
    leaves = _floating(tree)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    moved = [leaf + jnp.asarray(p.reshape(leaf.shape), dtype=leaf.dtype) for p, leaf in zip(parts, leaves, strict=True)]
    return _filled(tree, moved)
