"""Flows: solutions of differential equations as functions that differentiate, with kinks located.

    y'(t) = f(t, y(t), theta),  y(start) = y0:    (y0, theta, T) -> y(T)

For f Lipschitz and path-differentiable the flow is path-differentiable: with [A B] in the conservative Jacobian of f along
the solution, the sensitivities S' = A S + B form a conservative Jacobian. Where the solution is on kinks at isolated times
only, that is one matrix: the derivative. So it is where f jumps and the solution goes straight through.

Source: MarxPauwels2022, derived, docs/theory/flows.md.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nonsmooth.errors import ImplicitWarning, NoDerivative, PointError, ProofFailed, UsageError
from nonsmooth.frameworks.framework import find_framework
from nonsmooth.implicit.flows.course import Course, Limits
from nonsmooth.implicit.flows.follower import follow_course
from nonsmooth.implicit.flows.piece import Pieces
from nonsmooth.implicit.flows.report import FlowReport, report_of

__all__ = ["Flow", "FlowOptions", "flow"]

OnContact: TypeAlias = Literal["raise", "warn", "ignore"]


@dataclass(frozen=True)
class FlowOptions:
    """How a flow is integrated and checked.

    Attributes:
        start: the time of y0.
        rtol, atol: tolerances of the framework's integrator; None: 1e-7 and 1e-9 in double precision, 1e-4 and 1e-6 in
            single. The crossings are located with tolerances a hundred times smaller (in single precision: ten times).
        method: the integrator: of torchdiffeq a name ("dopri5"), of diffrax a solver (Dopri5()).
        locate: whether the crossings are located; without, the integrator is run on f as it is.
        on_contact: what to do where the solution stays on a kink that matters, so that the derivative is one of several:
            "warn", "raise" `NoDerivative`, or "ignore".
        max_steps: how many steps are made.
        max_crossings: how many crossings are located.
        refinement: into how many times 32 steps the whole time is divided at least: the integrator's own control of its
            steps sees the error of the solution, and not that of the derivative.
    """

    start: float = 0.0
    rtol: float | None = None
    atol: float | None = None
    method: Any = None
    locate: bool = True
    on_contact: OnContact = "warn"
    max_steps: int = 20_000
    max_crossings: int = 1000
    refinement: int = 1

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.on_contact not in get_args(OnContact):
            raise UsageError(f"on_contact={self.on_contact!r} means nothing: choose one of raise, warn, ignore.")
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not 0 < value < float("inf")):
                raise UsageError(f"{name}={value!r}: a tolerance is a positive number.")
        for name in ("max_steps", "max_crossings", "refinement"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"{name}={value!r}: a number of 1 or more is needed.")
        start: Any = self.start
        if isinstance(start, bool) or not isinstance(start, int | float) or not np.isfinite(start):
            raise UsageError(f"start={self.start!r}: the time of y0 is a finite number.")

    def tolerances(self, double: bool) -> tuple[float, float]:
        """Give rtol and atol of the integrator."""
        relative, absolute = (1e-7, 1e-9) if double else (1e-4, 1e-6)
        return self.rtol or relative, self.atol or absolute

    def limits(self, double: bool) -> Limits:
        """Give what a course is followed with."""
        rtol, atol = self.tolerances(double)
        least, factor = (1e-12, 1e-2) if double else (1e-5, 1e-1)
        return Limits(max(rtol * factor, least), max(atol * factor, least * 1e-2), self.max_steps, self.max_crossings)


class Flow:
    """(y0, times, *theta) -> y(times), the solution of y' = f(t, y, *theta); it differentiates in all of them.

    Attributes:
        function: f.
        options: how it is integrated and checked.
        report: what the latest call has met; None before the first, and where nothing was located.
    """

    def __init__(self, function: Callable[..., Any], options: FlowOptions) -> None:
        self.function, self.options = function, options
        self.report: FlowReport | None = None
        self._known: dict[Any, list[Pieces]] = {}

    def __call__(self, y0: Any, times: Any, *theta: Any) -> Any:
        """Give y at a time (like y0), or at increasing times (with one more axis in front)."""
        module, motion, given = self._started(y0, times, theta)
        motion.moving_times = module.moves(times)
        if not self.options.locate or module.traced((y0, times, theta)):
            if self.options.locate:
                _warn(
                    "flow: under jit and vmap the values are not known, so that no kink is located: the integrator runs on f "
                    "as it is. Call the flow outside of them, or pass locate=False to say that this is meant."
                )
            self.report = None
            return module.integrate_plainly(motion, y0, times, motion.theta, self.options)
        course = self._course(motion, given)
        result = module.integrate(motion, course, y0, times, given, motion.theta, self.options)
        self.report = report_of(motion, course, module.numpy(result), np.ndim(given) > 0)
        self._judge(self.report)
        return result

    def diagnose(self, y0: Any, times: Any, *theta: Any) -> FlowReport:
        """Tell what a solution meets: crossings, contacts, the errors of the integration; see `FlowReport`.

        The error of the derivative is the difference to that of an integration with half the steps and a tenth of the
        tolerances: twice to thrice the work of a call with its backward pass.
        """
        module, motion, given = self._started(y0, times, theta)
        if given is None:
            raise UsageError("flow: diagnose needs values; under jit and vmap there are none.")
        course = self._course(motion, given)
        result = module.integrate(motion, course, y0, times, given, motion.theta, self.options)
        rtol, atol = self.options.tolerances(motion.double)
        finer = replace(self.options, rtol=rtol / 10, atol=atol / 10, refinement=2 * self.options.refinement)
        found, better = (
            module.sensitivity(module.again(motion, options), course, y0, given, motion.theta, options)
            for options in (self.options, finer)
        )
        error = float(np.abs(found - better).max(initial=0.0) / (1 + np.abs(better).max(initial=0.0)))
        return replace(report_of(motion, course, module.numpy(result), np.ndim(given) > 0), derivative_error=error)

    def _started(self, y0: Any, times: Any, theta: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Give the module of the framework, the equation, and the times as numbers (None where they are traced)."""
        framework = find_framework(y0)
        if not framework.holds(y0):
            raise PointError(
                f"flow: y0 is one array of {framework.name}; found a {type(y0).__name__}. Concatenate the parts of the state."
            )
        module = import_module(f"nonsmooth.implicit.{framework.name}.flow")
        kind = str(y0.dtype).removeprefix("torch.")
        if kind not in ("float32", "float64"):
            raise PointError(
                f"flow: y0 moves, so that it is made of float32 or float64; found {kind}. Convert it: y0.to(torch.float64), "
                "jnp.asarray(y0, float)."
            )
        if module.traced((y0, times, theta)):
            return module, module.motion_of(*_bound(framework, self.function, y0, theta), self.options), None
        if not np.isfinite(module.numpy(y0)).all():
            raise PointError("flow: y0 has entries that are not finite.")
        motion = module.motion_of(*_bound(framework, self.function, y0, theta), self.options)
        return module, motion, _read_times(module.numpy(times), self.options.start)

    def _course(self, motion: Any, given: Any) -> Course:
        """Follow the solution."""
        limits, times = self.options.limits(motion.double), np.atleast_1d(given).tolist()
        key = motion.key(), getattr(motion.function, "numbers", ())
        motion.known = self._known.setdefault(key, [])
        for _ in range(2):
            course = follow_course(motion, limits, float(self.options.start), times)
            if course.proved:
                return course
            motion.known = self._known[key] = []  # f has changed since: capture it again
        raise ProofFailed(
            f"flow: the captured program of {motion.name} does not give its values along the solution: it depends on something "
            "that changes from call to call. Pass what changes as theta."
        )

    def _judge(self, report: FlowReport) -> None:
        """Say what the theory does not decide."""
        if self.options.on_contact == "ignore" or report.decided:
            return
        text = f"flow: {'; '.join(report.reasons)}. flow.report says more; on_contact='ignore' accepts it."
        if self.options.on_contact == "raise" and any(c.matters for c in report.contacts):
            raise NoDerivative(text)
        _warn(text)


def _warn(text: str) -> None:
    """Warn at the line of the caller."""
    warnings.warn(text, ImplicitWarning, stacklevel=4)


def _bound(framework: Any, function: Any, y0: Any, theta: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
    """Bind the numbers and whole-number arrays of theta to f: what remains are arrays that move."""
    leaves, structure = framework.flatten(list(theta))
    moving = [framework.holds(leaf) and "float" in str(leaf.dtype) for leaf in leaves]
    if all(moving):
        return function, y0, list(theta)

    @functools.wraps(function, updated=())
    def bound(t: Any, y: Any, *arrays: Any) -> Any:
        given = iter(arrays)
        full = [next(given) if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
        return function(t, y, *framework.unflatten(full, structure))

    fixed = [leaf for leaf, moves in zip(leaves, moving, strict=True) if not moves]
    numbers = [framework.numpy(x).tolist() if framework.holds(x) else x for x in fixed]
    setattr(bound, "numbers", (str(structure), str(numbers)))  # noqa: B010
    return bound, y0, [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]


def _read_times(values: Any, start: float) -> Any:
    """Give the times as numbers, or say why they are none."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or values.ndim > 1 or not values.size:
        raise UsageError(f"flow: times is a number or a row of them; found {values.dtype} of shape {values.shape}.")
    flat = np.atleast_1d(values.astype(float))
    if not np.isfinite(flat).all():
        raise UsageError("flow: the times have entries that are not finite.")
    if flat[0] < start:
        raise UsageError(
            f"flow: time {flat[0]:g} is before the start, {start:g}. To go back in time integrate -f(-t, y) forward."
        )
    if (np.diff(flat) <= 0).any():
        raise UsageError(
            f"flow: the times increase strictly; found {flat.tolist()[:8]}. Sort them, and drop the equal ones."
        )
    return values.astype(float)


def flow(f: Callable[..., Any], **options: Any) -> Flow:
    """Give the solution of y' = f(t, y, theta), y(start) = y0, as a function of y0, times and theta that differentiates.

        S' = A S + B,   [A B] in J_f(t, y(t), theta):   S(T) in a conservative Jacobian of the flow

    At a jump of f that the solution crosses straight through, m(t, y, theta) = 0, S goes on as S + (f_+ - f_-) (m)' / (dm/dt).
    Kinks are located: f is integrated piece by piece, each continued smoothly past its kinks, between times at which the
    solution crosses from one to the next, so that the integrator keeps its order and its derivative is that of the flow.
    Derivatives also reach the parameters that f closes over (torch: modules and leaf tensors). Status: `computed`; where
    the solution stays on a kink that matters the derivative is one element of a set, which is `undecided`, with a warning.

    Args:
        f: f(t, y, *theta) -> like y, Lipschitz but for jumps; t is an array without axes. Theta are arrays or trees of
            them; numbers and whole-number arrays among them are constants.
        options: see `FlowOptions`.

    Returns:
        flow(y0, times, *theta): y0 one floating array of any shape, times a number or a row of increasing ones. The result
        is an ordinary array of the framework, like y0, with one more axis in front for a row of times.

    Raises:
        NoField: f jumps where the solution starts, is asked for, touches, slides, or meets several jumps; the line is named.
        NotConverged: too many steps or crossings, or f is not finite.
        NoDerivative: with on_contact="raise".
        UsageError: times before the start or not increasing; torchdiffeq or diffrax is not installed.

    >>> import torch
    >>> import nonsmooth as ns
    >>> fall = ns.implicit.flow(lambda t, y: -torch.abs(y))            # y(T) = y0 exp(T) for y0 < 0
    >>> y0 = torch.tensor([-1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> y = fall(y0, 1.0)
    >>> [round(float(d), 6) for d in torch.autograd.grad(y.sum(), y0)[0]]
    [2.718282, 0.367879]
    >>> push = ns.implicit.flow(lambda t, y: 1 + torch.relu(y))        # reaches 0 at t = 1, then grows like exp
    >>> start = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    >>> round(float(torch.autograd.grad(push(start, 2.0), start)[0]), 6), round(push.report.crossings[0].time, 6)
    (2.718282, 1.0)

    Source: MarxPauwels2022, derived, docs/theory/flows.md.
    """
    if not callable(f):
        raise UsageError(f"flow: f(t, y, *theta) is a function; found a {type(f).__name__}.")
    try:
        return Flow(f, FlowOptions(**options))
    except TypeError as error:
        raise UsageError(f"flow: {error}; the options are {', '.join(FlowOptions.__dataclass_fields__)}.") from None
