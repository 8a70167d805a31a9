"""Whether an equation defines its solution as a path-differentiable function: the condition, checked and reported."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from nonsmooth.derivatives.field import AtLeast
from nonsmooth.derivatives.linearisation import Linearisation
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NotConverged, NotInvertible, UsageError
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.implicit.equation import Equation, Trees
from nonsmooth.implicit.invertibility import Invertibility, Lifted, decide_invertibility, vertices
from nonsmooth.implicit.large import decide_large, inverse_norm, transposed
from nonsmooth.implicit.nearness import NEAR, ROUNDING, nearness
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.residual import Residual, Split, lifted
from nonsmooth.kinks.resolution import Reason
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document
from nonsmooth.sets import ConvexSet, Hull

__all__ = ["LIMIT", "Diagnosis", "KinkLine", "diagnose_equation"]

LIMIT = 4096
"""How many extreme weights of kinks that act on each other are enumerated."""

DENSE = 2048
"""How many unknowns an equation may have for its derivative to be laid out: a reverse sweep each."""

BEYOND = "kinks of steep arguments are within the error of the solution, and of flatter arguments that are not"
"""Why a violated condition may be none: a larger set violates it."""

NUMBERS = 50_000_000
"""How many numbers the vertices of a set of Jacobians may hold."""

SAMPLES = 256
"""How many elements of a set are drawn where its vertices cannot be listed."""


@dataclass(frozen=True)
class KinkLine:
    """The kinks of one line of the program at which the solution lies."""

    line: str
    operation: str
    count: int


@dataclass(frozen=True, eq=False)
class Diagnosis(Reported):
    """What is known of the condition at a solution: B invertible for every [A B] in J_H(theta, y).

    Attributes:
        function, kind: the user's function, and which form its equation has.
        unknowns: the number of entries of y.
        invertible: True, False, or None: undecided.
        status: "computed": decided up to rounding; "sampled": the first selection of a large equation solves random systems,
            the rest is computed; or "undecided".
        rule: what decided.
        smallest_singular_value: a lower bound of the singular values of all elements B; 0 where none is known.
        attained: whether an element has it.
        kinks: how many kinks of H are active at the solution, and `lines` where.
        groups: the sizes of the groups of kinks that act on themselves.
        residual: |H(y, theta)|, Euclidean.
        linear_residual: |g - B'l| / |g| of the linear solve for a random cotangent g, with the first selection; nan where
            that is singular.
        error: a first-order bound of the distance to the solution: residual / smallest singular value.
        distance: within which of a kink, in units of y, the solution counts as lying on it: it is known up to its error.
        element: where violated, a singular element B (up to rounding), shape (unknowns, unknowns).
        reasons: what could not be shown, or what is violated, each with its line.

    Source: BolteLePauwelsSilvetiFalls2021, derived, docs/theory/implicit.md.
    """

    format_version: int
    function: str
    kind: str
    unknowns: int
    invertible: bool | None
    status: str
    rule: str
    smallest_singular_value: float
    attained: bool
    kinks: int
    lines: tuple[KinkLine, ...]
    groups: tuple[int, ...]
    residual: float
    linear_residual: float
    error: float
    distance: float
    reasons: tuple[str, ...] = ()
    element: Floats | None = field(default=None, repr=False)
    _set: Callable[[int], ImplicitJacobian] | None = field(default=None, repr=False)

    def document(self) -> Document:
        """Lay the diagnosis out for reading."""
        from nonsmooth.implicit.document import diagnosis_document

        return diagnosis_document(self)

    __repr__ = Reported.__str__

    def jacobian(self, limit: int = LIMIT) -> ImplicitJacobian:
        """Give the set of implicit Jacobians -B^-1 A with respect to all floating parameters.

            conv { -B(W)^-1 A(W) : W } = conv { -B(W)^-1 A(W) : W extreme }

        Status: `computed`; exact where the extreme weights are finitely many, each of one result, and at most `limit`.

        Raises:
            NotInvertible: the condition is violated, or undecided. UsageError: the set is too large to list.

        Source: derived, docs/theory/implicit.md.
        """
        if self._set is None or not self.invertible:
            raise NotInvertible(f"{self.function}: no set of implicit Jacobians is known, since {self._because()}.")
        return self._set(limit)

    def _because(self) -> str:
        """Say why the condition does not hold, or what is not known."""
        return "; ".join(self.reasons) or self.rule

    def message(self) -> str:
        """Say for an error or a warning what was asked, what was found and what to do."""
        where = "; ".join(f"{k.count} at {k.line}" for k in self.lines[:3])
        kinks = f" The solution lies on {self.kinks} kink(s): {where}." if self.kinks else ""
        what = "does not hold" if self.invertible is False else "is undecided"
        advice = (
            "The solution is no function of the parameters there, or none that differentiates: regularise the equation so that "
            "it has one solution, or pass violated='warn' to have an element all the same."
            if self.invertible is False
            else "Pass violated='ignore' to be told no more."
        )
        return (
            f"the derivative of the {self.kind} of {self.function}: the condition of the implicit function theorem {what}: "
            f"{self._because()}.{kinks} {advice}"
        )


@dataclass(frozen=True, eq=False)
class ImplicitJacobian:
    """The implicit Jacobians of a solution, as a convex set of matrices.

    Attributes:
        set: their hull in R^(unknowns * parameters), row by row.
        shape: (unknowns, parameters).
        elements: the vertices that were listed, shape (number, unknowns, parameters).
        structure: puts a vector of the parameters into their structure.
    """

    set: ConvexSet
    shape: tuple[int, int]
    elements: Floats
    structure: Callable[[Floats], Any] = field(repr=False)

    @property
    def exact(self) -> bool:
        """Whether the set is known, and not only a part of it."""
        return self.set.exact

    def gradients(self, cotangent: Any) -> ConvexSet:
        """Give the set of gradients of <cotangent, y> with respect to the parameters.

        Args:
            cotangent: a flat array of numbers, one for each unknown.

        Source: derived, docs/theory/implicit.md.
        """
        row = np.asarray(cotangent, dtype=np.float64).ravel()
        if row.size != self.shape[0]:
            raise UsageError(f"a cotangent of {self.shape[0]} unknowns has as many entries; found {row.size}.")
        found = Hull(np.unique(np.einsum("i,kij->kj", row, self.elements), axis=0))
        return found if self.exact else AtLeast(found)


def diagnose_equation(
    equation: Equation, trees: Trees, y: Any, theta: tuple[Any, ...], options: Options, limit: int = LIMIT
) -> Diagnosis:
    """Tell whether the condition of the theorem holds at a solution; see `Diagnosis`.

    Raises:
        NoField: H jumps, or is not Lipschitz, with the line. CaptureError: H cannot be captured.

    Source: BolteLePauwelsSilvetiFalls2021, derived, docs/theory/implicit.md.
    """
    del options  # what to do with the answer is the caller's
    framework = find_framework(y)
    residual = Residual.capture(framework, equation, trees, y, theta, moving=False)
    reasons = list(residual.reasons())
    unknowns, eps = len(framework.flat(y)), framework.eps(y)
    if unknowns > DENSE:
        return _of_large(equation, residual, unknowns, eps, reasons, limit)
    first, _ = residual.linearised(0.0)
    size = float(np.linalg.norm(framework.flat(first[0].sweeps.evaluation.result)))
    base, _, _ = _checked(equation, first[0], unknowns, eps)
    least = float(np.linalg.svd(base.J, compute_uv=False)[-1]) if np.all(np.isfinite(base.J)) and unknowns else 0.0
    error = size / least if least else math.inf
    scale = 1.0 + float(np.abs(framework.flat(y)).max(initial=0.0))
    distance = max(NEAR * error if math.isfinite(error) else 0.0, ROUNDING * eps * scale)
    near = nearness(residual, error, scale, eps)
    systems, more_reasons = residual.linearised(near.tolerance)
    reasons += more_reasons
    parts = [_checked(equation, s, unknowns, eps)[0] for s in systems]
    found = decide_invertibility(parts[0], limit) if len(parts) == 1 else _of_pieces(parts, limit)
    if found.invertible is False and near.beyond and decide_invertibility(base, limit).invertible is not False:
        found = Invertibility(None, BEYOND)
    return _diagnosis(
        equation, unknowns, found, reasons, systems, parts[0], (size, distance),
        partial(_jacobian, equation, trees, y, theta, near.tolerance),
    )  # fmt: skip


def _checked(equation: Equation, system: Linearisation, unknowns: int, eps: float) -> tuple[Lifted, Floats, Floats]:
    """Lift a system, or say that it is not square."""
    found = lifted(system, unknowns, eps)
    if len(found[0].J) != unknowns:
        raise UsageError(
            f"{equation.name}: an equation for y of {unknowns} entries must have as many; its residual has {len(found[0].J)}."
        )
    return found


def _of_large(
    equation: Equation, residual: Residual, unknowns: int, eps: float, reasons: list[Reason], limit: int
) -> Diagnosis:
    """Diagnose without laying B out: the coupling of the kinks by one linear solve for each of them."""
    scale = 1.0 + float(np.abs(residual.framework.flat(residual.x)).max(initial=0.0))
    first = residual.linearised(0.0)[0][0]
    size = float(np.linalg.norm(residual.framework.flat(first.sweeps.evaluation.result)))
    error = size * inverse_norm(first, unknowns, eps) if size > eps * scale else 0.0
    near = nearness(residual, error, scale, eps)
    distance = max(NEAR * error if math.isfinite(error) else 0.0, ROUNDING * eps * scale)
    systems, more = residual.linearised(near.tolerance)
    found = decide_large(systems[0], unknowns, eps, limit, equation.name)
    if len(systems) > 1:
        found = Invertibility(
            None, f"{len(systems)} programs of an `if` on data meet here, and B is too large to be laid out"
        )
    if found.invertible is False and near.beyond:
        found = Invertibility(None, BEYOND)
    return _diagnosis(equation, unknowns, found, [*reasons, *more], systems, None, (size, distance), None, "sampled")


def _diagnosis(
    equation: Equation,
    unknowns: int,
    found: Invertibility,
    reasons: list[Reason],
    systems: list[Linearisation],
    first: Lifted | None,
    measured: tuple[float, float],
    jacobian: Callable[[int], ImplicitJacobian] | None,
    status: str = "computed",
) -> Diagnosis:
    """Report what was found."""
    invertible = None if reasons and found.invertible else found.invertible
    smallest = found.smallest if invertible else 0.0
    size, distance = measured
    return Diagnosis(
        format_version=FORMAT_VERSION,
        function=equation.name,
        kind=equation.kind,
        unknowns=unknowns,
        invertible=invertible,
        status="undecided" if invertible is None else status,
        rule=found.rule,
        smallest_singular_value=smallest,
        attained=found.exact and invertible is not None,
        kinks=max(s.count for s in systems),
        lines=_lines(systems[0]),
        groups=found.groups,
        residual=size,
        linear_residual=_linear_residual(systems[0], first, unknowns),
        error=size / smallest if smallest else math.inf,
        distance=distance,
        reasons=tuple(map(str, reasons)),
        element=None if found.element is None or first is None else first.element(found.element),
        _set=jacobian,
    )


def _linear_residual(system: Linearisation, first: Lifted | None, unknowns: int) -> float:
    """Solve B'l = g for a random g with the first selection, and put l into the program again."""
    right = np.random.default_rng(1).standard_normal(unknowns)
    try:
        if first is None:
            solved: Floats = transposed(system, unknowns, system.framework.eps(system.sweeps.evaluation.result)).solve(
                right, transposed=True
            )
        else:
            solved = np.asarray(np.linalg.solve(first.J.T, right), dtype=np.float64)
    except (np.linalg.LinAlgError, NotConverged, NotInvertible):
        return math.nan
    again = system.sweeps.pull_results(solved)[0]
    return float(np.linalg.norm(right - again) / np.linalg.norm(right)) if unknowns else 0.0


def _lines(system: Linearisation) -> tuple[KinkLine, ...]:
    """Count the active kinks by line."""
    counted: Counter[tuple[str, str]] = Counter()
    for call, block in zip(system.calls, system.blocks, strict=True):
        counted[str(call.step.source or call.step), call.step.operation.name] += len(block)
    return tuple(KinkLine(line, operation, count) for (line, operation), count in counted.most_common())


def _of_pieces(parts: list[Lifted], limit: int) -> Invertibility:
    """Decide for several programs: their union is no convex set, so that all must be near one matrix.

    If |I - C^-1 B| < 1 in the spectral norm for all B, the hull of all B has no singular element.
    """
    sizes: list[float] = []
    bases = [p.J for p in parts]
    for part in parts:
        found = decide_invertibility(part, limit)
        if not found.invertible:
            return found
    listed = [list(itertools.islice(vertices(p), limit + 1)) for p in parts if _listable(p)]
    if len(listed) < len(parts) or any(len(v) > limit for v in listed):
        return Invertibility(
            None, f"{len(parts)} programs of an `if` on data meet here, with too many kinks to enumerate"
        )
    elements = [p.element(v) for p, vs in zip(parts, listed, strict=True) for v in vs]
    middle = np.mean(bases, axis=0)
    if np.linalg.matrix_rank(middle) < len(middle):
        return Invertibility(None, f"{len(parts)} programs of an `if` on data meet here, around a singular matrix")
    inverse = np.linalg.inv(middle)
    sizes = [float(np.linalg.norm(np.eye(len(B)) - inverse @ B, 2)) for B in elements]
    if max(sizes) >= 1:
        return Invertibility(
            None, f"{len(parts)} programs of an `if` on data meet here, too far from each other for a norm"
        )
    smallest = (1 - max(sizes)) / float(np.linalg.norm(inverse, 2))
    return Invertibility(True, "all elements of all programs near one matrix", smallest)


def _listable(system: Lifted) -> bool:
    """Tell whether the vertices of the weights can be listed, and the elements' hull is theirs."""
    return all(w.outputs == 1 and w.count < math.inf for w in system.weights)


def _jacobian(
    equation: Equation, trees: Trees, y: Any, theta: tuple[Any, ...], distance: float, limit: int
) -> ImplicitJacobian:
    """List the implicit Jacobians at the vertices of the weights."""
    framework: Framework = find_framework(y)
    residual = Residual.capture(framework, equation, trees, y, theta, moving=True)
    unknowns, split = len(framework.flat(y)), Split(framework, theta)
    systems, _ = residual.linearised(distance)
    elements, exact = [], len(systems) == 1
    for system in systems:
        part, A, Z = lifted(system, unknowns, framework.eps(y))
        count = math.prod(w.count for w in part.weights) if _listable(part) else math.inf
        exact = exact and count <= limit
        if min(count, SAMPLES) * A.size > NUMBERS or (exact and count * A.size > NUMBERS):
            raise UsageError(
                f"{equation.name}: a Jacobian has {A.size} entries, too many for {count} vertices: "
                "fix some parameters (pass them as constants of the function)."
            )
        chosen = vertices(part) if count <= limit else _drawn(part)
        elements += [_implicit(part, A, Z, v) for v in chosen]
    listed = np.array(elements)
    hull = Hull(np.unique(listed.reshape(len(listed), -1), axis=0))
    return ImplicitJacobian(
        hull if exact else AtLeast(hull),
        (unknowns, listed.shape[2]),
        listed,
        lambda vector: framework.unflatten_flat(split.floats, vector),
    )


def _implicit(part: Lifted, A: Floats, Z: Floats, weights: list[Floats]) -> Floats:
    """Give -B(W)^-1 A(W)."""
    W = part.whole(weights)
    through = part.Y @ np.linalg.inv(np.eye(len(W)) - W @ part.L) @ W
    return np.asarray(-np.linalg.solve(part.J + through @ part.Z, A + through @ Z))


def _drawn(part: Lifted) -> list[list[Floats]]:
    """Draw extreme weights."""
    rng = np.random.default_rng(0)
    draw = lambda w: w.choose(rng.standard_normal((1, w.outputs)), rng.standard_normal((1, w.compared)))[0]  # noqa: E731
    return [part.nothing(), *([draw(w) for w in part.weights] for _ in range(SAMPLES - 1))]
