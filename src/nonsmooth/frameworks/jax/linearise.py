"""The kink linearisation by jax: a run that is cut open at its active kinks, differentiated as a whole, both ways."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from nonsmooth.dictionary.weights import Floats
from nonsmooth.frameworks.framework import ROUNDING, Evaluation
from nonsmooth.frameworks.jax.run import JaxRun, environment
from nonsmooth.frameworks.jax.space import SPACE
from nonsmooth.frameworks.jax.tangents import JaxTangents
from nonsmooth.frameworks.jax.tree import flatten

__all__ = ["LinearisedJax"]


class LinearisedJax:
    """A program cut at its active kinks; see `framework.Linearised`.

    Its nodes (jumps, arguments, what tied guards compare) are numbered; reverse sweeps are pullbacks of all of them at
    once, forward sweeps push tangents over the values of the run.
    """

    def __init__(self, framework: Any, x: Any, evaluation: Evaluation, tol: float) -> None:
        self._framework, self._x, self.evaluation, self._tol = framework, x, evaluation, tol
        cuts = evaluation.cuts
        self._outputs = [u for c in cuts for u in c.outputs]
        self._jumps = [z for c in cuts for z in c.jumps]
        self._given = [a for c in cuts for a in c.arguments]
        self._ties = [t.arguments for t in evaluation.ties]

    @cached_property
    def _pullback(self) -> Any:
        """Record the run once more, its nodes as results: give the result and the pullback."""
        program, trail = self.evaluation.program, self.evaluation.trail
        assert program is not None
        items = [trail.env[v] for v in program.data]

        def nodes(leaves: list[Any], opened: list[Any]) -> tuple[Any, list[Any], list[Any], list[Any]]:
            env = environment(program, leaves, items)
            tangents = JaxTangents(program, {v: lax.stop_gradient(a) for v, a in env.items()}, (), 0, False)
            run = JaxRun(program, env, tangents=tangents, cut_at=self._tol, graph=True, opened=iter(opened))
            found = run.evaluate(leaves)
            jumps = [z for c in found.cuts for z in c.jumps]
            given = [jnp.zeros(()) if a is None else a for c in found.cuts for a in c.arguments]
            return flatten(found.result)[0], jumps, given, [t.arguments for t in found.ties]

        return jax.vjp(nodes, self.evaluation.leaves, self._outputs)

    def start(self) -> tuple[Floats, Floats]:
        """Give J and Y."""
        self._framework.scalar(self.evaluation)
        (result,), jumps, given, ties = self._pullback[0]
        return self._sweep([jnp.ones_like(result)], _zeros(jumps), _zeros(given), _zeros(ties))

    def jacobian(self) -> tuple[Floats, Floats]:
        """Give J and Y of the entries of all results, laid out in a row."""
        results, *others = self._pullback[0]
        sizes, dtype = [r.size for r in results], jnp.result_type(*results)
        starts = np.cumsum([0, *sizes])

        def row(seeds: Any) -> Any:
            parts = [
                seeds[a : a + r.size].reshape(r.shape).astype(r.dtype) for a, r in zip(starts, results, strict=False)
            ]
            return self._pullback[1]((parts, *(_zeros(o) for o in others)))

        point, outputs = jax.vmap(row)(jnp.eye(sum(sizes), dtype=dtype))
        flat = lambda parts: np.concatenate(  # noqa: E731
            [np.zeros((sum(sizes), 0)), *(np.asarray(p, dtype=np.float64).reshape(sum(sizes), -1) for p in parts)],
            axis=1,
        )
        return flat(point), flat(outputs)

    def pull_results(self, seeds: Floats) -> tuple[Floats, Floats]:
        """Give seeds' J and seeds' Y, for seeds of the entries of all results."""
        results, *others = self._pullback[0]
        cotangents, place = [], 0
        for like in results:
            cotangents.append(jnp.asarray(np.reshape(seeds[place : place + like.size], like.shape), dtype=like.dtype))
            place += like.size
        return self._sweep(cotangents, *(_zeros(o) for o in others))

    def pull(self, seeds: Floats, *, arguments: bool = False) -> tuple[Floats, Floats]:
        """Give seeds' Z and seeds' L, by one reverse sweep."""
        results, jumps, given, ties = self._pullback[0]
        jumps, given, place = list(_zeros(jumps)), list(_zeros(given)), 0
        for k, like in enumerate(jumps):
            seed = jnp.asarray(np.reshape(seeds[place : place + like.size], like.shape), dtype=like.dtype)
            place += like.size
            if arguments and self._given[k] is not None:
                given[k] = jnp.asarray(jnp.reshape(seed, given[k].shape), dtype=given[k].dtype)
            else:
                jumps[k] = seed
        return self._sweep(_zeros(results), jumps, given, _zeros(ties))

    def rounding(self, part: slice | None = None) -> float:
        """Estimate the rounding of (a part of) J, from the scale of the tangent of the result along random signs."""
        result = self._framework.scalar(self.evaluation)
        n = sum(leaf.size for leaf in self.evaluation.leaves)
        signs = np.zeros(n)
        signs[part or slice(None)] = np.random.default_rng(0).choice([-1.0, 1.0], len(signs[part or slice(None)]))
        self._move(signs)
        assert self.evaluation.program is not None
        scale = self.evaluation.tangents.scale(self.evaluation.program.result, 0)
        return ROUNDING * float(jnp.finfo(result.dtype).eps) * float(scale)

    def interactions(self, seeds: Floats) -> Floats:
        """Give seeds' L alone."""
        return self.pull(seeds)[1]

    def rows(self, node: Any) -> tuple[Floats, Floats]:
        """Give the derivatives of the entries of a node with respect to the point and to the u."""
        results, jumps, given, ties = self._pullback[0]
        groups = [list(_zeros(g)) for g in (results, jumps, given, ties)]
        places = [(1, k) for k, z in enumerate(self._jumps) if z is node]
        places += [(2, k) for k, a in enumerate(self._given) if a is node]
        places += [(3, k) for k, t in enumerate(self._ties) if t is node]
        group, k = places[0]
        like, found = groups[group][k], []
        for i in range(like.size):
            groups[group][k] = jnp.zeros_like(like).reshape(-1).at[i].set(1).reshape(like.shape)
            found.append(self._sweep(*groups))
        return np.array([row for row, _ in found]), np.array([row for _, row in found])

    def push(self, direction: Floats) -> Floats:
        """Give Z d."""
        self._move(direction)
        calls = [(b, c.call.tangents) for c in self.evaluation.cuts for b in c.blocks]
        parts = [SPACE.flat(b.jumps(tangents(0))) for b, tangents in calls if tangents is not None]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _move(self, direction: Floats) -> None:
        """Set the tangents out along a direction."""
        tree = SPACE.unflatten_flat(self._x, direction)
        self.evaluation.tangents.restart([lambda: flatten(tree)[0]])

    def _sweep(self, results: list[Any], jumps: list[Any], given: list[Any], ties: list[Any]) -> tuple[Floats, Floats]:
        """Sweep back from the nodes to the point and to what the blocks add."""
        point, outputs = self._pullback[1]((results, jumps, given, ties))
        return SPACE.flat(point), SPACE.flat(outputs)


def _zeros(arrays: list[Any]) -> list[Any]:
    """Give cotangents that ask for nothing."""
    return [jnp.zeros_like(a) for a in arrays]
