"""A check of derivatives that is right at kinks: it refutes, and never proves.

(a) Along absolutely continuous paths F(g(1)) - F(g(0)) = int_0^1 <v(g(t)), g'(t)> dt. (b) At kinks the value lies in
the hull of the slopes of F nearby, which integrals cannot see. (c) The pullback is linear in its cotangent.

One check is one object, hence a long file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.derivatives.kinked import Kinked, inside_kinks
from nonsmooth.derivatives.nearby import Around
from nonsmooth.derivatives.paths import Path, given_path, random_paths, size_of, special_points
from nonsmooth.derivatives.quadrature import LeftDomain, NotFinite, integrate
from nonsmooth.derivatives.space import Vector
from nonsmooth.derivatives.subject import Subject
from nonsmooth.dictionary import Kind
from nonsmooth.errors import GradcheckError, NonsmoothError, UsageError
from nonsmooth.kinks.kink import find_kinks

__all__ = ["Check", "Gradcheck", "gradcheck"]


WEIGHED = frozenset(kind.value for kind in Kind if kind.has_weights)
"""The kinds of kinks of which one alone leaves the chain rule inside the hull of slopes."""


ENOUGH = 6
"""How many failures along paths, and how many at points, end the search."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        rule: "integral", "hull", "set", "linear" or "finite".
        what: the path or the point.
        discrepancy: what should be zero.
        tolerance: what rounding and quadrature may make of it; 0 where the check was left out.
        note: what was found, or why the check was left out.
        outcome: "passed", "failed" or "left out".
    """

    rule: str
    what: str
    discrepancy: float
    tolerance: float
    outcome: str
    note: str = ""

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"{self.what}: {self.note or self.outcome}"


def _left_out(rule: str, what: str, why: str) -> Check:
    """Say why something was not checked."""
    return Check(rule, what, 0.0, 0.0, "left out", why)


@dataclass(frozen=True)
class Gradcheck:
    """What a check of a derivative has tried; true if it was not refuted.

    Attributes:
        checks: everything that was tried.
        notes: what could not be tried, and why.
        seed: what gives the same paths again.
        status: "sampled": a derivative that passes may be wrong on sets along which no path ran.
    """

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    seed: int = 0
    status: str = "sampled"
    refuted: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Judge."""
        object.__setattr__(self, "refuted", bool(self.failures))

    def __bool__(self) -> bool:
        return not self.refuted

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that refute the derivative."""
        return tuple(c for c in self.checks if c.outcome == "failed")

    @property
    def message(self) -> str:
        """Say the verdict in a few lines."""
        done = [c for c in self.checks if c.outcome != "left out"]
        if not self.refuted:
            return f"not refuted by {len(done)} checks (sampled, seed {self.seed})"
        lines = [f"refuted by {len(self.failures)} of {len(done)} checks:", *(f"  {c}" for c in self.failures[:5])]
        return "\n".join(lines + [f"  and {len(self.failures) - 5} more"] * (len(self.failures) > 5))

    def table(self) -> Any:
        """Give the checks as a plain result that every writer takes."""
        from nonsmooth.report.table import Table

        columns = ("check", "where", "discrepancy", "tolerance", "outcome", "found")
        rows = tuple((c.rule, c.what, c.discrepancy, c.tolerance, c.outcome, c.note) for c in self.checks)
        return Table(f"The derivative is {self.message.splitlines()[0]}", columns, rows, note=" ".join(self.notes))

    def __str__(self) -> str:
        from nonsmooth.report.text import render

        return render(self.table())

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        from nonsmooth.report.text import render_html

        return render_html(self.table())

    def to_json(self) -> str:
        """Write it as JSON."""
        from nonsmooth.report.json_text import to_json

        return to_json({**vars(self), "checks": self.checks})


def gradcheck(
    f: Callable[..., Any],
    x: Any,
    *data: Any,
    derivative: Callable[..., Any] | None = None,
    paths: Sequence[Any] | None = None,
    sets: Any = None,
    hull: bool | None = None,
    samples: int = 2,
    radius: float = 1.0,
    tolerance: float | None = None,
    seed: int = 0,
    raise_exception: bool = True,
) -> Gradcheck:
    """Try to refute a derivative, also at kinks.

        F(g(1)) - F(g(0)) = int_0^1 <v(g(t)), g'(t)> dt   along paths g
        v(z) in conv { lim grad F(z_k) : z_k -> z }       at kinks z
        pull_z(a c + b e) = a pull_z(c) + b pull_z(e)     for cotangents c, e

    A failure refutes, up to floating point; what passes is not proved: status `sampled`. Every element of a
    conservative field passes the integrals. The hull is asked for where composition cannot have left it: see `hull`.

    Args:
        f: the function f(x, *data); one that is not scalar is checked with random cotangents.
        x: the point: a tensor, or a dict, list or tuple of them.
        data: what is not differentiated.
        derivative: a function of (x, *data) that gives the gradient of a scalar f, like x; None for what torch's
            autograd gives for f, with the `autograd.Function`s in it.
        paths: more paths: functions of t in [0, 1] that give points like x, or lists of points, corners of polygons.
        sets: the set in which the value must lie instead of the hull: an object with `contains(v)`, v like x, for the
            point x itself, or a function of points that gives one.
        hull: whether values at kinks must lie in the hull of the slopes nearby. None: for a given `derivative` yes; for
            torch's own where at most one kink is active, since the chain rule over several may leave the hull
            rightly (torch says 0 for relu(t) - relu(-t)); the others are listed as left out.
        samples: how many paths of each kind are drawn.
        radius: the length of the paths, relative to the size of x.
        tolerance: relative to F and its slopes along a path; None: 1e-7 in double, 1e-4 in single precision.
        seed: of the draws; no generator of the user's is touched.
        raise_exception: False returns a result that is refuted, instead of raising.

    Returns:
        What was tried; true if nothing refutes the derivative.

    Raises:
        GradcheckError: the derivative is refuted; an AssertionError too. ResultError: a derivative is given for a
            function that is not scalar. RandomnessError: f draws random numbers. PointError, UsageError.

    >>> import torch
    >>> import nonsmooth as ns
    >>> x = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    >>> bool(ns.gradcheck(lambda x: torch.relu(x).sum() + x.max(), x))
    True
    >>> sign = lambda x: 1.0 - 2.0 * (x < 0)
    >>> ns.gradcheck(lambda x: x.abs().sum(), x, derivative=sign).refuted
    False
    >>> ns.gradcheck(lambda x: x.abs().sum(), x, derivative=lambda x: 17.0 * (x == 0) + sign(x), raise_exception=False).refuted
    True

    Source: BoltePauwels2020.
    """
    if isinstance(samples, bool) or samples < 1 or not radius > 0:
        raise UsageError(f"samples={samples!r}, radius={radius!r}: both must be positive.")
    if derivative is not None and not callable(derivative):
        raise UsageError(
            f"derivative= is a {type(derivative).__name__}; pass a function derivative(x, *data) that gives the gradient."
        )
    subject = Subject(f, x, data, derivative, seed, tolerance)
    checks = list(_Checker(subject, paths or (), sets, hull, samples, radius).run())
    result = Gradcheck(tuple(checks), tuple(subject.notes), seed)
    if result.refuted and raise_exception:
        raise GradcheckError(f"gradcheck: the derivative is {result.message}")
    return result


class _Checker:
    """One run of all checks."""

    def __init__(
        self, subject: Subject, paths: Sequence[Any], sets: Any, hull: bool | None, samples: int, radius: float
    ) -> None:
        self.subject, self.sets, self.hull, self.samples, self.radius = subject, sets, hull, samples, radius
        self.space, self.rng, self.tolerance = subject.space, subject.rng, subject.tolerance
        self.given = [given_path(self.space, p, k + 1) for k, p in enumerate(paths)]
        self.points: dict[bytes, Vector] = {}

    def run(self) -> Iterator[Check]:
        """Try everything."""
        x = self.space.x
        slope = self.subject.at(x, self.subject.cotangent())[1]
        if not np.isfinite(slope).all():
            yield self._not_finite("x", x)
        for point in special_points(x, self.rng, self.samples):
            self.points.setdefault((point + 0.0).tobytes(), point + 0.0)
        yield from self.few(map(self.along, self.paths()), "paths")
        points = list(self.points.values())[: 12 + 4 * self.samples]
        yield from self.few((check for point in points for check in self.at(point)), "points")

    def few(self, checks: Iterator[Check], what: str) -> Iterator[Check]:
        """Pass checks on until enough have failed."""
        failed = 0
        for check in checks:
            failed += check.outcome == "failed"
            yield check
            if failed == ENOUGH:
                self.subject.notes.append(f"After {ENOUGH} failures no more {what} were tried.")
                return

    def paths(self) -> Iterator[Path]:
        """Give the user's paths, random ones, and those inside the kinks of the programs."""
        yield from self.given
        yield from random_paths(self.space.x, self.rng, self.samples, self.radius)
        for program in (self.subject.switching, self.subject.program):
            if program is not None:
                kinked = Kinked(self.space, program, self.subject.data)
                yield from inside_kinks(kinked, self.rng, 2 * self.samples, self.radius)

    def along(self, path: Path) -> Check:
        """Compare the integral of the derivative along a path with the change of F."""
        cotangent = self.subject.cotangent()
        for factor in (1.0, 1 / 8, 1 / 64):
            drawn = path if factor == 1 else path.shrunk(factor)
            try:
                found = integrate(drawn, lambda z: self.subject.at(z, cotangent), self.tolerance, self.space.eps)
                break
            except NotFinite as error:
                if path.special and not path.given:
                    return _left_out("integral", path.name, "the derivative is not finite there")
                return self._not_finite(f"{path.name}, t = {error.t:.6g}", error.point)
            except (LeftDomain, RuntimeError, ValueError, IndexError, ArithmeticError):
                if path.given or factor < 1 / 8:
                    return _left_out("integral", path.name, "f has no finite value along it")
        for t in found.kinks[:4]:
            point = self._snapped(drawn.point(t))
            self.points.setdefault((point + 0.0).tobytes(), point + 0.0)
        allowed = self.tolerance * found.scale + 2 * found.error + found.rounding
        if found.discrepancy <= allowed:
            return Check("integral", path.name, found.discrepancy, allowed, "passed")
        a, b, change, integral = found.worst
        note = (
            f"from {self.space.name(drawn.point(a))} to {self.space.name(drawn.point(b))} F changes by {change:.6g}, and "
            f"the integral of <v, g'> is {integral:.6g}: they differ by {found.discrepancy:.3g}, tolerance {allowed:.2g}"
        )
        return Check("integral", path.name, found.discrepancy, allowed, "failed", note)

    def _snapped(self, z: Vector) -> Vector:
        """Round the entries of a point that are nearly short fractions, or nearly equal."""
        unit = size_of(self.space.x) / 64
        near = np.round(z / unit) * unit
        return np.where(np.abs(near - z) <= 1e-5 * unit, near, z)

    def _not_finite(self, what: str, point: Vector) -> Check:
        note = f"the derivative holds nan or infinity at {self.space.name(point)}, where f is finite"
        return Check("finite", what, float("inf"), 0.0, "failed", note)

    def at(self, z: Vector) -> Iterator[Check]:
        """Check the value at a point: linear in its cotangent, and in the hull of the slopes nearby."""
        cotangent = self.subject.cotangent()
        try:
            value, slope = self.subject.at(z, cotangent)
        except Exception:  # the function need not be defined there
            return
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return
        if self.subject.derivative is None:
            yield self.linear(z, cotangent, slope)
        yield from self.inside(z, cotangent, slope)

    def linear(self, z: Vector, cotangent: list[Vector], slope: Vector) -> Check:
        """Compare pull(a c + b e) with a pull(c) + b pull(e)."""
        other = self.subject.cotangent()
        second = self.subject.at(z, other)[1]
        what, worst, allowed = f"cotangents at {self.space.name(z)}", 0.0, 0.0
        for a, b in ((1e-3, 0.0), (-2.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.5, -3.0)):
            pulled = self.subject.at(z, [a * c + b * e for c, e in zip(cotangent, other, strict=True)])[1]
            wanted = a * slope + b * second
            scale = float(np.abs(a * slope).max(initial=0.0) + np.abs(b * second).max(initial=0.0))
            error = float(np.abs(pulled - wanted).max(initial=0.0))
            allowed = self.tolerance * scale + self.subject.rounding * (abs(a) + abs(b))
            if not error <= allowed:
                k = int(np.argmax(np.abs(pulled - wanted)))
                note = (
                    f"the pullback is not linear in its cotangent: pull({a:g} c + {b:g} e) has entry {k} equal to "
                    f"{pulled[k]:.6g}, {a:g} pull(c) + {b:g} pull(e) has {wanted[k]:.6g}"
                )
                return Check("linear", what, error, allowed, "failed", note)
            worst = max(worst, error)
        return Check("linear", what, worst, allowed, "passed")

    def inside(self, z: Vector, cotangent: list[Vector], slope: Vector) -> Iterator[Check]:
        """Check that the value lies in the user's set, or in the hull of the slopes nearby."""
        what = f"value at {self.space.name(z)}"
        if self.sets is not None:
            if callable(self.sets) or np.array_equal(z, self.space.x):
                allowed = self.sets(self.space.tree(z)) if callable(self.sets) else self.sets
                held = allowed.contains(self.space.tree(slope))
                if held is None:
                    yield _left_out("set", what, "the set cannot tell")
                elif held:
                    yield Check("set", what, 0.0, 0.0, "passed")
                else:
                    note = f"the value {self.space.name(slope)} is not in the given set"
                    yield Check("set", what, float("inf"), 0.0, "failed", note)
            return
        reason = self.reason_against_hull(z)
        if reason:
            yield _left_out("hull", what, reason)
            return
        yield self.near_slopes(z, cotangent, slope, what)

    def reason_against_hull(self, z: Vector) -> str:
        """Say why the value may rightly lie outside the hull of the slopes of F; nothing where it may not."""
        if self.hull is not None:
            return "" if self.hull else "hull=False"
        if self.subject.derivative is not None:
            return ""
        if self.subject.program is None:
            return "f was not captured: its kinks are not known"
        try:
            table = find_kinks(self.subject.program, self.space.tree(z), *self.subject.data)
        except (NonsmoothError, RuntimeError) as error:
            return f"the kinks are not known there: {str(error).splitlines()[0]:.80}"
        opaque = sum(s.operation.kind is Kind.OPAQUE for s in table.program.steps)
        alone = [r for r in table.active if r.count == 1 and r.kind in WEIGHED and r.operation != "where"]
        if not table.active or (len(table.active) == len(alone) == 1 and not opaque):
            return "" if opaque <= 1 else f"{opaque} functions of the user's: their chain rule may leave the hull"
        names = ", ".join(dict.fromkeys(r.operation for r in table.active))
        return f"{sum(r.count for r in table.active)} kinks are active ({names}): the chain rule may leave the hull"

    def near_slopes(self, z: Vector, cotangent: list[Vector], slope: Vector, what: str) -> Check:
        """Measure the distance from the value to the hull of slopes near a point, at several scales."""
        wide, size = self.space.eps < 1e-12, size_of(self.space.x)
        found: list[tuple[float, float, Vector, int]] = []
        for reach in (size * 2.0**-digits for digits in ((20, 28, 36) if wide else (9, 13))):
            if np.abs(slope).max(initial=0.0) * reach > self.subject.size:
                continue  # too steep to be sampled at this distance
            around = Around(z, reach, lambda y: self.subject.at(y, cotangent), self.rng)
            distance, margin = around.distance(slope, 1e-4 if wide else 0.02, self.subject.rounding)
            if distance <= margin or (found and distance < found[0][0] / 2):  # curvature vanishes nearby
                return Check("hull", what, distance, margin, "passed")
            found.append((distance, margin, around.nearest, len(around.slopes)))
        if not found:
            return _left_out("hull", what, "the slopes are too steep to be sampled nearby")
        best = min(found, key=lambda b: b[0])
        note = (
            f"the value {self.space.name(slope)} is {best[0]:.3g} away from the hull of {best[3]} slopes nearby, tolerance "
            f"{best[1]:.2g}; nearest in it {self.space.name(best[2])}"
        )
        return Check("hull", what, best[0], best[1], "failed", note)
