"""The verdict on a gradient: a Clarke subgradient for certain, an artifact for certain, or undecided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nonsmooth.derivatives.backprop import as_program, backprop
from nonsmooth.derivatives.clarke import Clarke, clarke
from nonsmooth.derivatives.field import LIMIT
from nonsmooth.derivatives.subgradient import subgradient
from nonsmooth.dictionary.weights import Floats
from nonsmooth.errors import NoField, UsageError
from nonsmooth.frameworks.framework import Framework, find_framework
from nonsmooth.kinks.resolution import Reason
from nonsmooth.program import Program
from nonsmooth.sets import Bounded, ConvexSet, Image, MinimumNorm

__all__ = ["GradientVerdict", "judge_gradient", "verdict"]

SEEDS = 4
"""So many certified subgradients a gradient is compared with where the sets leave it open."""

ROUNDING = 2.0**8
"""Vectors this many units of rounding apart, relative to the size of the gradients of each parameter, are equal."""


@dataclass(frozen=True, eq=False)
class GradientVerdict:
    """How a vector stands to Clarke's subdifferential dF(x).

    Attributes:
        word: "certified" (it is in dF(x)), "artifact" (it is not) or "undecided".
        message: the same in a sentence, with what it rests on.
        gradient: the vector that was judged, like the point.
        distance: how far it is from dF(x), as an interval; None where it is not known.
        direction: for an artifact a direction d, like the point, of length 1 with <d, gradient> > max { <d, v> : v in
            dF(x) }; else None.
        gap: the difference of the two: at least so far is the gradient from dF(x); 0 if it is no artifact.
        clarke: what is known of dF(x); None where the program has no field.
        status: "computed", or "undecided".
        reasons: why it is undecided, each with its line.
    """

    word: str
    message: str
    gradient: Any
    distance: Bounded | None
    direction: Any
    gap: float
    clarke: Clarke | None
    status: str = "computed"
    reasons: tuple[Reason, ...] = field(default=())

    def __str__(self) -> str:
        """Say it in a sentence."""
        return f"{self.message} ({self.status})"


def verdict(
    f: Callable[..., Any] | Program,
    x: Any,
    gradient: Any = None,
    *data: Any,
    tol: float | None = None,
    limit: int = LIMIT,
) -> GradientVerdict:
    """Tell whether a vector, by default what backprop returns, is a true subgradient of a program at a point.

    Certified: inside a set that is inside dF(x). Artifact: outside a set that contains dF(x), by more than `tol`, with a
    direction that separates them. Else undecided, never a guess. Status: `computed`.

    Args:
        f: a scalar function f(x, *data), or its captured program.
        x: the point.
        gradient: the vector, like the point or as a flat array; None: what the framework's backprop returns.
        data: what is not differentiated.
        tol: how far from the set a vector may be and still count as inside, relative to the size of the gradients in
            each array of the point; by default their rounding.
        limit: as in `clarke`.

    Raises:
        ResultError: the function is not scalar. UsageError: a gradient of another structure. PointError, CaptureError.

    >>> import torch
    >>> import nonsmooth as ns
    >>> f = lambda t: torch.relu(t) - torch.relu(-t)          # the identity: torch says 0
    >>> found = ns.verdict(f, torch.tensor(0.0))
    >>> found.word, found.direction, round(found.gap, 6)
    ('artifact', tensor(-1.), 1.0)
    >>> ns.verdict(f, torch.tensor(0.0), torch.tensor(1.0)).word
    'certified'

    Source: Clarke1983, BoltePauwels2020, docs/theory/sets.md.
    """
    if gradient is not None and not isinstance(gradient, np.ndarray):
        find_framework(x).flat_like(
            x, gradient, "verdict(f, x, gradient, *data): the gradient comes before the data, and"
        )
    program, framework = as_program(f, x, data)
    own = backprop(program, x, *data) if gradient is None else gradient
    vector = np.asarray(own, dtype=np.float64).ravel() if isinstance(own, np.ndarray) else framework.flat_like(x, own)
    if vector.size != framework.flat(x).size:
        raise UsageError(
            f"verdict was given a vector of {vector.size} numbers for a point of {framework.flat(x).size}."
        )
    shown = framework.unflatten_flat(x, vector)
    try:
        known = clarke(program, x, *data, limit=limit)
    except NoField as error:
        return GradientVerdict(
            "undecided",
            f"undecided: {error}",
            shown,
            None,
            None,
            0.0,
            None,
            "undecided",
            (Reason("no field", str(error)),),
        )
    return judge_gradient(framework, program, x, data, known, vector, tol)


def judge_gradient(
    framework: Framework,
    program: Program,
    x: Any,
    data: tuple[Any, ...],
    known: Clarke,
    vector: Floats,
    tol: float | None,
) -> GradientVerdict:
    """Judge a flat vector by what is known of dF(x)."""
    shown = framework.unflatten_flat(x, vector)
    if not np.all(np.isfinite(vector)):
        return GradientVerdict(
            "artifact", "artifact: the vector holds nan or infinity", shown, None, None, float("inf"), known
        )
    if not known.trusted:  # nothing is known to contain dF(x), nor to lie inside it
        return _undecided(shown, known, known.outer.reasons)
    scales = _scales(framework, x, known, vector)
    shrunk = vector / scales
    inside, near = _place(known, scales, shrunk, ROUNDING * framework.eps(x) if tol is None else tol)
    if inside is None:
        noise = ROUNDING * framework.eps(x) if tol is None else tol
        if _is_a_certified_one(framework, program, x, data, shrunk, scales, noise):
            message = "certified: it equals a certified subgradient, a limit of gradients along a direction"
            return GradientVerdict("certified", message, shown, Bounded(0.0), None, 0.0, known)
        reasons = known.reasons or (Reason("between", "the vector lies between an inner and an outer set of dF(x)"),)
        return _undecided(shown, known, reasons)
    if inside:
        message = f"certified: it lies in {_name(known)}, up to rounding"
        return GradientVerdict("certified", message, shown, Bounded(0.0), None, 0.0, known)
    assert near is not None and near.direction is not None
    direction = near.direction / scales
    length = float(np.linalg.norm(direction))
    gap = float(near.norm.lower) / length
    message = f"artifact: it is outside {_outer_name(known)} by {gap:.3g} or more"
    unit = framework.unflatten_flat(x, direction / length)
    return GradientVerdict("artifact", message, shown, Bounded(gap, float("inf")), unit, gap, known)


def _undecided(shown: Any, known: Clarke, reasons: tuple[Reason, ...]) -> GradientVerdict:
    """Say that a vector cannot be judged, and why."""
    message = f"undecided: {'; '.join(str(r) for r in reasons[:3])}"
    return GradientVerdict("undecided", message, shown, None, None, 0.0, known, "undecided", reasons)


def _scales(framework: Framework, x: Any, known: Clarke, vector: Floats) -> Floats:
    """Give, for each coordinate, the size of the gradients in its array: rounding is relative to it.

    A parameter of small gradients counts beside one of large gradients; gradients that cancel are as large as their terms.
    """
    rng = np.random.default_rng(0)
    elements = [known.outer.support_point(rng.standard_normal(known.space)) for _ in range(2)]
    sizes = np.max(np.abs([vector, *(s.J for s in known.outer.systems), *elements]), axis=0)
    scales, place, eps = np.ones(len(vector)), 0, framework.eps(x)
    for leaf in framework.arrays(x):
        part = slice(place, place + leaf.size)
        place += leaf.size
        terms = max(s.sweeps.rounding(part) for s in known.outer.systems) / (ROUNDING * eps)
        largest = max(float(sizes[part].max(initial=0.0)), terms)
        scales[part] = largest if largest > 0 else 1.0
    return scales


def _place(known: Clarke, scales: Floats, shrunk: Floats, tol: float) -> tuple[bool | None, MinimumNorm | None]:
    """Tell whether a vector is in dF(x), all in coordinates divided by their scales; if not, what separates it."""

    def shrink(v: Floats) -> Floats:
        return v / scales

    whole: ConvexSet = known if known.inner is not None else known.outer
    image = Image(whole, shrink, shrink, known.space)
    inside = image.contains(shrunk, tol)
    if inside is False:
        near = image.nearest(shrunk)
        return (False, near) if near.direction is not None and near.norm.lower > 0 else (None, None)
    return (inside if known.inner is not None else None), None


def _is_a_certified_one(
    framework: Framework,
    program: Program,
    x: Any,
    data: tuple[Any, ...],
    shrunk: Floats,
    scales: Floats,
    noise: float,
) -> bool:
    """Tell whether a vector equals one of a few certified subgradients."""
    for seed in range(SEEDS):
        _, gradient, certificate = subgradient(program, x, *data, seed=seed)
        if not certificate.certified:
            return False
        if float(np.linalg.norm(framework.flat(gradient) / scales - shrunk)) <= noise:
            return True
    return False


def _name(known: Clarke) -> str:
    """Name the set in which the vector lies."""
    return f"dF(x) ({known.equality})" if known.equality else "an inner set of dF(x)"


def _outer_name(known: Clarke) -> str:
    """Name the set outside which the vector is."""
    return f"dF(x) ({known.equality})" if known.equality else "conv D(x), which contains dF(x)"
