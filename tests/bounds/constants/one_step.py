"""One operation as its record sees it: a step of a captured program, operands whose reach is known, and exact constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any

import numpy as np

import nonsmooth as ns
from nonsmooth.bounds.constants import CONSTANTS
from nonsmooth.bounds.constants.record import Called
from nonsmooth.bounds.reach import Local, Reach

BACKENDS = ("torch", "jax")


class Backend:
    """A framework's arrays, vector-Jacobian products and steps as shapes."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "torch":
            import torch

            from nonsmooth.frameworks.torch.shaped import shaped

            self.array: Callable[[Any], Any] = lambda a: torch.tensor(np.asarray(a))
            self.shaped: Any = shaped
        else:
            import jax
            from jax import numpy as jnp

            from nonsmooth.frameworks.jax.shaped import shaped as shaped_jax

            jax.config.update("jax_enable_x64", True)
            self.array, self.shaped = jnp.asarray, shaped_jax

    def pull(self, f: Callable[..., Any], arrays: Sequence[Any], cotangent: Any) -> list[np.ndarray]:
        """Pull a cotangent back through a function of arrays."""
        return [rows[0] for rows in self.pull_all(f, arrays, np.asarray(cotangent)[None])]

    def pull_all(self, f: Callable[..., Any], arrays: Sequence[Any], cotangents: np.ndarray) -> list[np.ndarray]:
        """Pull a stack of cotangents back through a function of arrays, which is run once."""
        values = [self.array(a) for a in arrays]
        if self.name == "torch":
            import torch

            back = torch.func.vjp(f, *values)[1]
            found = zip(*(back(self.array(c)) for c in cotangents), strict=True)
            return [np.array([np.asarray(v) for v in rows]) for rows in found]
        import jax

        back = jax.vjp(f, *values)[1]
        return [np.asarray(v) for v in jax.vmap(back)(self.array(cotangents))]

    def value(self, f: Callable[..., Any], arrays: Sequence[Any]) -> np.ndarray:
        """Evaluate a function of arrays."""
        return np.asarray(f(*(self.array(a) for a in arrays)))


def moving(center: Any, radius: float, block: int, blocks: int, known: bool = True) -> Reach:
    """Give the reach of a block that runs through a ball, or of which the norm alone is known."""
    center = np.asarray(center, float)
    slopes = np.zeros(blocks)
    slopes[block] = 1.0
    norm = float(np.linalg.norm(center)) + radius
    return Reach(
        center.shape,
        norm,
        slopes,
        np.zeros((blocks, blocks)),
        center=center if known else None,
        distance=radius if known else inf,
    )


class OneStep:
    """A function of arrays that is one operation of the dictionary; other steps are said to be `moves`."""

    def __init__(
        self,
        backend: str,
        f: Callable[..., Any],
        arrays: Sequence[Any],
        radius: float = 0.0,
        known: bool = True,
        name: str | None = None,
        operands: Sequence[Reach] | None = None,
        others: Sequence[Any] = (),
    ) -> None:
        self.backend, self.f, self.arrays = Backend(backend), f, [np.asarray(a, float) for a in arrays]
        program = ns.capture(lambda point: f(*point), tuple(self.backend.array(a) for a in self.arrays))
        steps = [s for s in program.steps if name is None or s.operation.name == name]
        shapes = [self.backend.shaped(program, s) for s in steps]
        self.shaped = next(s for s in reversed(shapes) if any(o.moving for o in s.operands))
        count = len(self.arrays)
        taken = iter(operands or [moving(a, radius, i, count, known) for i, a in enumerate(self.arrays)])
        fixed = iter(others)
        places: list[Reach] = []
        self.places: list[int] = []
        for at, o in enumerate(self.shaped.operands):
            if o.moving:
                self.places.append(at)
            places.append(
                next(taken) if o.moving else Reach.constant(np.asarray(next(fixed, np.zeros(o.shape))), count)
            )
        assert len(self.places) == count, [s.operation.name for s in program.steps]
        self.reaches = [places[p] for p in self.places]
        self.call = Called(
            self.shaped.operation,
            tuple(places),
            self.shaped.attributes,
            self.shaped.results,
            lambda *given: self.backend.value(f, self._filled(given)),
            self._pull,
        )

    def _filled(self, given: Sequence[Any]) -> list[np.ndarray]:
        """Put centers in the place of arrays that are left out."""
        chosen = [given[p] if p < len(given) else None for p in self.places]
        return [a if g is None else np.asarray(g, float) for a, g in zip(self.arrays, chosen, strict=True)]

    def _pull(self, given: Sequence[Any], cotangent: Any) -> tuple[np.ndarray, ...]:
        """Pull a cotangent back to all operands, of those that do not move zeros."""
        found = self.backend.pull(self.f, self._filled(given), cotangent)
        whole = [np.zeros(u.shape) for u in self.call.operands]
        for place, value in zip(self.places, found, strict=True):
            whole[place] = value
        return tuple(whole)

    def slopes(self, local: Local) -> list[float]:
        """Give the Lipschitz constants of the operands that are arrays of the function."""
        return [float(local.lipschitz[p]) for p in self.places]

    def local(self) -> Local:
        """Give the constants that the record states."""
        found = CONSTANTS[self.shaped.operation](self.call)
        return found[0] if isinstance(found, list) else found

    def value(self, *arrays: Any) -> np.ndarray:
        """Evaluate the operation."""
        return self.backend.value(self.f, arrays)

    def jacobians(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """Give the dense derivatives to all operands."""
        size = prod(self.shaped.results[0])
        if not size:
            return [np.zeros((0, np.size(a))) for a in arrays]
        rows = self.backend.pull_all(self.f, arrays, np.eye(size).reshape(size, *self.shaped.results[0]))
        return [v.reshape(size, -1) for v in rows]

    def slopes_at(self, arrays: Sequence[Any]) -> list[float]:
        """Give the exact norms of the derivatives to all operands."""
        return [float(np.linalg.norm(j, 2)) if j.size else 0.0 for j in self.jacobians(arrays)]

    def jacobian(self, place: int, arrays: Sequence[Any]) -> np.ndarray:
        """Give the dense derivative to an operand."""
        return self.jacobians(arrays)[place]

    def slope(self, place: int, arrays: Sequence[Any]) -> float:
        """Give the exact norm of the derivative to an operand."""
        return self.slopes_at(arrays)[place]


def sample(rng: np.random.Generator, reach: Reach) -> np.ndarray:
    """Draw a value that a ball about a center, and intervals, allow."""
    low, high = (np.broadcast_to(v, reach.shape) for v in (reach.low, reach.high))
    if np.all(np.isfinite(low)) and np.all(np.isfinite(high)):
        return (
            np.where(rng.random(reach.shape) < 0.3, rng.choice([0.0, 1.0], reach.shape), rng.random(reach.shape))
            * (high - low)
            + low
        )
    assert reach.center is not None
    direction = rng.normal(size=reach.shape)
    return np.asarray(reach.center, float) + reach.distance * direction / max(float(np.linalg.norm(direction)), 1e-300)


def box(low: Any, high: Any, block: int, blocks: int) -> Reach:
    """Give the reach of a block between arrays."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    slopes = np.zeros(blocks)
    slopes[block] = 1.0
    norm = float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high))))
    return Reach(low.shape, norm, slopes, np.zeros((blocks, blocks)), low, high)


def holds(step: OneStep, rng: np.random.Generator, samples: int = 5) -> Local:
    """Assert that the constants hold at samples of what the operands reach: norm, entries, slopes; give them."""
    local = step.local()
    reaches, slopes = step.reaches, step.slopes(local)
    for _ in range(samples):
        arrays = [sample(rng, u) for u in reaches]
        value = step.value(*arrays)
        size = 1e-9 * (1 + float(np.linalg.norm(value)))
        assert np.linalg.norm(value) <= local.norm + size
        assert np.all(value >= np.asarray(local.low) - size)
        assert np.all(value <= np.asarray(local.high) + size)
        assert (
            np.asarray(local.low).shape in ((), value.shape)
            or np.broadcast_shapes(np.asarray(local.low).shape, value.shape) == value.shape
        )
        for place, seen in enumerate(step.slopes_at(arrays)):
            assert seen <= slopes[place] * (1 + 1e-9), (place, slopes)
    return local
