"""Suprema of derivatives of a function of arrays, sought by ascent from many starts: what constants are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np
import torch

import nonsmooth as ns
import nonsmooth.bounds.constants.attention
import nonsmooth.bounds.constants.losses
import nonsmooth.bounds.constants.normalisation
import nonsmooth.bounds.constants.norms
import nonsmooth.bounds.constants.softmax
from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Local, Reach
from nonsmooth.frameworks.torch.shaped import shaped

__all__ = ["anywhere", "ball", "both_sides", "called", "constants", "fixed", "sampled", "supremum"]

Function = Callable[..., torch.Tensor]


def _reach(shape: tuple[int, ...], norm: float, **known: Any) -> Reach:
    """Give a value that is a block of its own."""
    return Reach(shape, norm, np.ones(1), np.zeros((1, 1)), **known)


def ball(center: Any, radius: float) -> Reach:
    """Give a ball about a center."""
    center = np.asarray(center, float)
    return _reach(center.shape, float(np.linalg.norm(center)) + radius, center=center, distance=radius)


def anywhere(*shape: int, norm: float = inf) -> Reach:
    """Give all arrays of a shape, or those of a bounded norm."""
    return _reach(shape, norm)


def fixed(value: Any) -> Reach:
    """Give data."""
    return Reach.constant(np.asarray(value), 1)


def called(f: Function, reaches: Sequence[Reach], name: str | None = None) -> Called:
    """Give the one step of a function as its record sees it; the function takes the operands in the record's order."""
    rng = np.random.default_rng(0)
    rng = np.random.default_rng(0)
    values = [torch.as_tensor(rng.random(r.shape) if r.moves else np.asarray(r.center)) for r in reaches]
    program = ns.capture(f, *values)
    (step,) = [s for s in program.steps if name is None or s.operation.name == name]
    call = shaped(program, step)
    assert [o.shape for o in call.operands] == [r.shape for r in reaches]

    def evaluate(*arrays: Any) -> np.ndarray:
        given = [torch.as_tensor(a) if a is not None else v for a, v in zip(arrays, values, strict=True)]
        return f(*given).numpy()

    return Called(call.operation, tuple(reaches), call.attributes, call.results, evaluate)


def constants(f: Function, *reaches: Reach, name: str | None = None) -> Local:
    """Give the constants of the one step of a function."""
    call = called(f, reaches, name)
    found = CONSTANTS[call.operation](call)
    return found[0] if isinstance(found, list) else found


def _point(z: torch.Tensor, reach: Reach, scale: float = 1.0) -> torch.Tensor:
    """Put a free array, of which 1 is the radius or the scale of what is not bounded, into what an operand reaches."""
    if not reach.moves:
        return torch.as_tensor(np.asarray(reach.center))
    inside = z / torch.clamp(z.norm(), min=1.0)
    if reach.center is not None:
        return torch.as_tensor(np.asarray(reach.center)) + inside * reach.distance
    return inside * reach.norm if reach.norm < inf else z * scale


def _derivative(phi: Function, points: list[torch.Tensor], ways: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Give the derivative along directions of operands, one after the other."""
    if not ways:
        return phi(*points)
    (place, way), *rest = ways

    def inner(u: torch.Tensor) -> torch.Tensor:
        return _derivative(phi, [*points[:place], u, *points[place + 1 :]], rest)

    found: torch.Tensor = torch.func.jvp(inner, (points[place],), (way,))[1]
    return found


def supremum(
    phi: Function,
    reaches: Sequence[Reach],
    places: Sequence[int],
    scale: float = 3.0,
    enough: float = inf,
    starts: int = 10,
    steps: int = 80,
) -> float:
    """Seek sup ||D_i phi|| or sup ||D_i D_j phi|| over what operands reach and directions of length 1, by ascent.

    Once `enough` is reached, it goes on for as many steps again, and stops.
    """
    torch.manual_seed(0)
    free = [i for i, r in enumerate(reaches) if r.moves]
    variables = []
    for i in [*free, *places]:
        way = torch.randn((starts, *reaches[i].shape), dtype=torch.float64).reshape(starts, -1)
        longer = torch.linspace(-1.5, 0.3, starts, dtype=torch.float64)[:, None] if len(variables) < len(free) else 0.0
        way = way / way.norm(dim=1, keepdim=True) * 10.0**longer
        variables.append(way.reshape(starts, *reaches[i].shape))

    def size(*given: torch.Tensor) -> torch.Tensor:
        spread = dict(zip(free, given[: len(free)], strict=True))
        points = [_point(spread.get(i, torch.zeros(())), r, scale) for i, r in enumerate(reaches)]
        units = [(i, w / w.norm()) for i, w in zip(places, given[len(free) :], strict=True)]
        return _derivative(phi, points, units).norm()

    batch = torch.func.vmap(size)
    for v in variables:
        v.requires_grad_(True)
    optimiser = torch.optim.Adam(variables, lr=0.1)
    best, last = 0.0, steps
    for step in range(steps):
        if best >= enough and last == steps:
            last = max(2 * step, 10)
        if step >= last:
            break
        optimiser.param_groups[0]["lr"] = 0.12 * 0.03 ** (step / steps)
        optimiser.zero_grad()
        found = batch(*variables)
        best = max(best, float(found.detach().nan_to_num(0.0).max()))
        (-found.clamp(min=1e-12).log().sum()).backward()
        for v in variables:
            v.grad = torch.zeros_like(v) if v.grad is None else v.grad.nan_to_num(0.0)
        optimiser.step()
    return best


def sampled(phi: Function, reaches: Sequence[Reach], local: Local, seed: int = 0, samples: int = 30) -> None:
    """Assert that norm and entries stay within their bounds at samples, next to the border above all."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        z = [torch.as_tensor(rng.normal(size=r.shape) * 10.0 ** rng.uniform(-2, 1)) for r in reaches]
        value = phi(*(_point(v, r) for v, r in zip(z, reaches, strict=True))).numpy()
        slack = 1e-9 * (1 + float(np.linalg.norm(value)))
        assert np.linalg.norm(value) <= local.norm + slack
        assert np.all(value >= np.asarray(local.low) - slack) and np.all(value <= np.asarray(local.high) + slack)


def both_sides(
    phi: Function, reaches: Sequence[Reach], local: Local, attained: dict[tuple[int, ...], float], scale: float = 3.0
) -> None:
    """Assert that constants hold, and that ascent attains the given parts of them; `attained` has places of operands."""
    sampled(phi, reaches, local)
    for places, part in attained.items():
        constant = local.lipschitz[places[0]] if len(places) == 1 else local.smoothness[places]  # type: ignore[index]
        found = supremum(phi, reaches, places, scale=scale, enough=max(part, 0.01) * constant)
        assert found <= constant * (1 + 1e-9), (places, found, constant)
        assert found >= part * constant, (places, found, constant)
