"""What gradcheck checks: a function and its derivative as numbers, run by the framework alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from nonsmooth.derivatives.paths import draw_vector
from nonsmooth.derivatives.quadrature import default_tolerance
from nonsmooth.derivatives.space import Space, Vector
from nonsmooth.errors import ChangedInput, RandomnessError, ResultError, UsageError
from nonsmooth.program import Program

__all__ = ["Subject"]


class Subject:
    """The function and its derivative as numbers: points, values and gradients are vectors of double precision."""

    def __init__(
        self, f: Any, x: Any, data: tuple[Any, ...], derivative: Any, seed: int, tolerance: float | None
    ) -> None:
        self.space, self.data, self.derivative, self.f = Space(x), data, derivative, f
        self.rng = np.random.default_rng([seed, 12])
        self.tolerance = default_tolerance(self.space.eps) if tolerance is None else tolerance
        self.notes: list[str] = []
        self.rewritten: list[Any] = []
        self.size, self.steepest = 0.0, 1.0
        self.program = self._captured(f, "f")
        if self.program is not None:
            self.rewritten = [self.program.constants[k] for k in self.program.rewritten]
        self.switching = None if derivative is None else self._captured(derivative, "the derivative")
        self._check_use()

    def _captured(self, function: Any, what: str) -> Program | None:
        """Capture a function if that can be done: it helps to find kinks."""
        try:
            return self.space.framework.capture(function, self.space.tree(self.space.x), self.data)
        except (RandomnessError, ChangedInput):
            raise
        except Exception as error:
            if "backward()" in str(error):  # run by itself it would add to `.grad` of the user's tensors
                raise
            self.notes.append(
                f"{what} was not captured, its kinks were not looked for: {str(error).splitlines()[0]:.160}"
            )
            self.rewritten = _held(function) if what == "f" else self.rewritten
            return None

    def _check_use(self) -> None:
        """Run the function once at the point, and refuse what cannot be checked."""
        if not self.space.framework.records_gradients():
            raise UsageError("gradcheck: the framework records no gradients here; call it outside of torch.no_grad().")
        before = self.space.framework.random_generators()
        runs = [self._run(self.space.x, None)[0] for _ in range(2)]
        drawn = before.drawn_since()
        before.put()
        if drawn or not all(
            np.allclose(a, b, 1e3 * self.space.eps, 0, equal_nan=True) for a, b in zip(*runs, strict=True)
        ):
            what = f"draws random numbers from {drawn}" if drawn else "gives two values at one point"
            raise RandomnessError(f"gradcheck: the function {what}; draw them outside and pass them as data.")
        outputs = runs[0]
        self.shapes = [o.shape for o in outputs]
        if not outputs:
            raise ResultError("gradcheck: the function returns no floating array.")
        if not all(np.isfinite(o).all() for o in outputs):
            raise UsageError("gradcheck: the function is not finite at the point.")
        if self.derivative is not None and not self.scalar:
            raise ResultError(
                f"gradcheck: a derivative is the gradient of a scalar function; this one returns shapes {self.shapes}. "
                "Put the backward into a torch.autograd.Function (in JAX a jax.custom_vjp), and check the function itself."
            )

    @property
    def scalar(self) -> bool:
        """Whether the function returns one number."""
        return len(self.shapes) == 1 and int(np.prod(self.shapes[0])) == 1

    def _run(self, z: Vector, cotangent: list[Vector] | None) -> tuple[list[Vector], Vector]:
        """Run the function at a point, by the framework alone: its results, and the pullback of a cotangent."""
        point, copies = self.space.tensors(z), self.space.copies(self.data)
        with self.space.preserved(self.rewritten) if self.rewritten else nullcontext():
            outputs, gradients = self.space.framework.differentiate(
                lambda leaves: self.f(self.space.unflatten(leaves), *copies), point, cotangent, self.derivative is None
            )
        flat = [self.space.numpy(g).ravel() for g in gradients]
        return [self.space.numpy(t) for t in outputs], np.concatenate(flat)

    def at(self, z: Vector, cotangent: list[Vector]) -> tuple[float, Vector]:
        """Give F at a point, weighed by a cotangent, and the derivative that is checked."""
        outputs, gradient = self._run(z, cotangent)
        value = float(sum(np.sum(o * c) for o, c in zip(outputs, cotangent, strict=True)))
        if self.derivative is not None:
            given = self.derivative(self.space.tree(z), *self.space.copies(self.data))
            gradient = self.space.read(given, "the derivative")
        if np.isfinite(value) and np.isfinite(gradient).all():
            self.size = max(self.size, abs(value))
            self.steepest = max(self.steepest, float(np.abs(gradient).max(initial=0.0)))
        return value, gradient

    @property
    def rounding(self) -> float:
        """What rounding may make of an entry of the derivative."""
        return 256 * self.space.eps * self.steepest

    def cotangent(self) -> list[Vector]:
        """Draw a cotangent; 1 for a scalar function."""
        if self.scalar:
            return [np.ones(self.shapes[0])]
        return [draw_vector(self.rng, int(np.prod(s))).reshape(s) for s in self.shapes]


def _held(function: Any) -> list[Any]:
    """Give the tensors and the buffers that a function holds in its closure: what it may write to."""
    cells = [c.cell_contents for c in getattr(function, "__closure__", None) or () if _is_filled(c)]
    found = []
    for item in (function, getattr(function, "__self__", None), *getattr(function, "args", ()), *cells):
        found += [item] if hasattr(item, "detach_") else list(item.buffers()) if hasattr(item, "buffers") else []
    return found


def _is_filled(cell: Any) -> bool:
    """Tell whether a variable of a closure has a value."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
