"""Flows in torch: torchdiffeq integrates the pieces, and autograd goes through what it did."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import torch

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.implicit.flows.course import Course, Jump, Segment
from nonsmooth.implicit.flows.flow import FlowOptions
from nonsmooth.implicit.flows.motion import LEAST_STEPS, Motion
from nonsmooth.implicit.flows.piece import Pieces
from nonsmooth.program import Program

__all__ = [
    "TorchMotion",
    "again",
    "integrate",
    "integrate_plainly",
    "motion_of",
    "moves",
    "numpy",
    "sensitivity",
    "traced",
]


ADAPTIVE = ("dopri8", "dopri5", "tsit5", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
"""The methods of torchdiffeq that take options."""


def _torchdiffeq() -> ModuleType:
    """Import the integrator, or say how to get it."""
    try:
        import torchdiffeq
    except ImportError:
        raise UsageError(
            "flow integrates with torchdiffeq, which is not here: pip install 'nonsmooth[flows]'."
        ) from None
    return torchdiffeq  # type: ignore[no-any-return]


class TorchMotion(Motion):
    """An equation of tensors."""

    def __init__(self, function: Callable[..., Any], y0: torch.Tensor, theta: Sequence[Any]) -> None:
        super().__init__(TORCH, function, y0, theta)
        self.double = y0.dtype == torch.float64

    def still(self, array: Any) -> Any:
        """Cut a tensor off from its graph."""
        return array.detach() if isinstance(array, torch.Tensor) else array

    def quiet(self) -> AbstractContextManager[Any]:
        """Record no graph."""
        return torch.no_grad()

    def closed_over(self) -> Any:
        """Give the memory of the leaf tensors that f closes over."""
        return tuple(map(_key, self._closed_over()))

    def attached(self, program: Program) -> Program:
        """Put the leaf tensors that f closes over in the place of the captured ones, which share their memory."""
        found = {_key(t): t for t in self._closed_over()}
        constants = {
            v: found.pop(_key(t), t) if isinstance(t, torch.Tensor) else t for v, t in program.constants.items()
        }
        return replace(program, constants=constants)

    def _closed_over(self) -> list[torch.Tensor]:
        """List the tensors with gradients on which f depends beside its arguments, from the graph of one evaluation."""
        like = self.y0.detach()
        with torch.enable_grad():
            out = self.function(like.new_zeros(()), like.clone(), *[self.still_tree(p) for p in self.theta])
        seen, waiting, leaves = set(), [getattr(out, "grad_fn", None)], []
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                leaves.append(node.variable)
            waiting += [n for n, _ in node.next_functions]
        return leaves

    def compiled(self, run: Callable[[Sequence[Any], Any], Any]) -> Callable[[Sequence[Any], Any], Any]:
        """Give the function as it is."""
        return run

    def gradients(self, pieces: Pieces, leaves: Sequence[Any], pattern: Any, seed: int) -> Any:
        """Give the derivatives of <c, f_s> in the inputs and in what f closes over."""
        with torch.enable_grad():
            moving = [t.detach().clone().requires_grad_() for t in leaves if t.is_floating_point()]
            given = iter(moving)
            value, _ = pieces.run([next(given) if t.is_floating_point() else t for t in leaves], pattern)
            value = TORCH.flatten(value)[0][0]
            cotangent = value.new_tensor(np.random.default_rng(seed).standard_normal(tuple(value.shape)))
            more = [t for t in pieces.original.constants.values() if isinstance(t, torch.Tensor) and t.requires_grad]
            if not value.requires_grad:
                return np.zeros(0)
            found = torch.autograd.grad(
                (value * cotangent).sum(), [*moving, *more], allow_unused=True, materialize_grads=True
            )
        return np.concatenate([numpy(g).ravel() for g in found])


def _key(tensor: torch.Tensor) -> Any:
    """Give what tensors that are the same memory share."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def motion_of(
    function: Callable[..., Any], y0: torch.Tensor, theta: Sequence[Any], options: FlowOptions
) -> TorchMotion:
    """Give the equation at given parameters."""
    return TorchMotion(function, y0, theta)


def again(motion: TorchMotion, options: FlowOptions) -> TorchMotion:
    """Give the equation for other options: the same."""
    return motion


def traced(tree: Any) -> bool:
    """Tell whether values are unknown: never here."""
    return False


def moves(times: Any) -> bool:
    """Tell whether the times are differentiated."""
    return isinstance(times, torch.Tensor) and times.requires_grad


def numpy(array: Any) -> Any:
    """Give values to numpy."""
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def integrate(
    motion: TorchMotion,
    course: Course,
    y0: torch.Tensor,
    times: Any,
    given: Any,
    theta: Sequence[Any],
    options: FlowOptions,
) -> torch.Tensor:
    """Integrate piece by piece, with a graph from y0, theta, the times and what f closes over."""
    leaves, wanted = TORCH.flatten(list(theta))[0], list(np.atleast_1d(given))
    longest = (wanted[-1] - options.start) / LEAST_STEPS / options.refinement
    found: list[torch.Tensor] = []
    y = y0

    def leave(y: torch.Tensor, field: Callable[..., Any]) -> None:
        """Keep y at a time that may itself be differentiated: dy/dT = f(T, y(T))."""
        if isinstance(times, torch.Tensor) and times.requires_grad:
            t = times if times.ndim == 0 else times[len(found)]
            with torch.no_grad():
                slope = field(t.to(y.dtype), y)
            y = y + slope * (t - t.detach()).to(y.dtype)
        found.append(y)

    if wanted[0] <= options.start:
        leave(y0, lambda t, y: motion.function(t, y, *theta))
    for segment in course.segments:
        inner = [t for t in wanted[len(found) :] if segment.start < t <= segment.end]
        nodes = [segment.start, *inner] + ([segment.end] if not inner or inner[-1] < segment.end else [])
        field = _field(motion, segment, leaves)
        for a, b in itertools.pairwise(nodes):
            y = _stretch(field, y, a, b, longest, motion, options)
            if b in inner:
                leave(y, field)
        if segment.jump is not None:
            y = _past_jump(motion, segment, segment.jump, y, leaves)
    return found[0] if np.ndim(given) == 0 else torch.stack(found)


def _field(motion: TorchMotion, segment: Segment, theta: Sequence[Any]) -> Callable[..., torch.Tensor]:
    """Give the right-hand side of a piece."""
    pattern = motion.arrays(segment.pattern)

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        value, _ = segment.pieces.run([t.to(y.dtype), y, *theta], pattern)
        return TORCH.flatten(value)[0][0]  # type: ignore[no-any-return]

    return field


def _past_jump(
    motion: TorchMotion, segment: Segment, jump: Jump, y: torch.Tensor, theta: Sequence[Any]
) -> torch.Tensor:
    """Give y with the derivative that it has after a jump: S + factor (m)'."""
    pattern, slope = motion.arrays(segment.pattern), y.new_tensor(jump.before)
    factor, found = y.new_tensor(jump.factor), y
    for weight, back in jump.looks:
        leaves = [y.new_tensor(segment.end - back), y - back * slope, *theta]
        margin = torch.cat([m.ravel() for m in segment.pieces.margins(leaves, pattern)])[jump.number]
        found = found + weight * factor * (margin - margin.detach())
    return found


def _stretch(
    field: Callable[..., torch.Tensor],
    y: torch.Tensor,
    a: float,
    b: float,
    longest: float,
    motion: TorchMotion,
    options: FlowOptions,
) -> torch.Tensor:
    """Integrate a piece from a to b; a stretch that is too short for an integrator is one step of Heun's method."""
    if b - a < motion.shortest * max(1.0, abs(b)):
        k = field(y.new_tensor(a), y)
        return y + (b - a) / 2 * (k + field(y.new_tensor(b), y + (b - a) * k))
    rtol, atol = options.tolerances(motion.double)
    t = torch.tensor([a, b], dtype=y.dtype, device=y.device)
    return _odeint(field, y, t, rtol, atol, options, longest)[1]  # type: ignore[no-any-return]


def sensitivity(
    motion: TorchMotion, course: Course, y0: torch.Tensor, given: Any, theta: Sequence[Any], options: FlowOptions
) -> Any:
    """Give the derivative of <c, y> in y0 and theta for a drawn c, as one flat array of numpy."""
    leaves, structure = TORCH.flatten(list(theta))
    fresh = [t.detach().clone().requires_grad_() if t.is_floating_point() else t for t in leaves]
    start = y0.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = integrate(motion, course, start, given, given, TORCH.unflatten(fresh, structure), options)
        cotangent = out.new_tensor(np.random.default_rng(0).standard_normal(tuple(out.shape)))
        moving = [start, *(t for t in fresh if t.requires_grad)]
        found = torch.autograd.grad((out * cotangent).sum(), moving, allow_unused=True, materialize_grads=True)
    return np.concatenate([numpy(g).ravel() for g in found])


def _odeint(
    field: Callable[..., Any],
    y: Any,
    t: Any,
    rtol: float,
    atol: float,
    options: FlowOptions,
    longest: float | None = None,
) -> Any:
    """Run torchdiffeq, and say what became of it."""
    more: dict[str, Any] = {"method": options.method or "dopri5"}
    if more["method"] in ADAPTIVE:
        more["options"] = {"max_num_steps": options.max_steps} | ({"max_step": longest} if longest else {})
    elif longest:
        more["options"] = {"step_size": longest} if more["method"] in FIXED else {}
    try:
        return _torchdiffeq().odeint(field, y, t, rtol=rtol, atol=atol, **more)
    except AssertionError as error:
        raise NotConverged(
            f"flow: torchdiffeq gave up between t = {float(t[0]):.6g} and {float(t[-1]):.6g}: {error}. The equation is stiff, "
            "or its solution grows without bound: loosen rtol and atol, or integrate to an earlier time."
        ) from None
    except ValueError as error:
        raise UsageError(f"flow: method={options.method!r}: {error}") from None


def integrate_plainly(
    motion: TorchMotion, y0: torch.Tensor, times: Any, theta: Sequence[Any], options: FlowOptions
) -> torch.Tensor:
    """Run the integrator on f as it is."""
    rtol, atol = options.tolerances(motion.double)
    row = torch.as_tensor(times, dtype=y0.dtype, device=y0.device)
    nodes = [float(options.start), *row.detach().reshape(-1).tolist()]
    longest = (nodes[-1] - nodes[0]) / LEAST_STEPS if options.method in FIXED else None

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return motion.function(t, y, *theta)  # type: ignore[no-any-return]

    if nodes[1] > nodes[0]:
        states = _odeint(field, y0, y0.new_tensor(nodes), rtol, atol, options, longest)[1:]
    else:  # the first time is that of y0
        states = (
            y0[None] if len(nodes) == 2 else _odeint(field, y0, y0.new_tensor(nodes[1:]), rtol, atol, options, longest)
        )
    if row.requires_grad:
        with torch.no_grad():
            slopes = torch.stack([field(t, y) for t, y in zip(y0.new_tensor(nodes[1:]), states, strict=True)])
        states = states + slopes * (row - row.detach()).reshape(-1, *(1,) * y0.ndim)
    return states[0] if row.ndim == 0 else states  # type: ignore[no-any-return]
