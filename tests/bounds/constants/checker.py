"""Checks bounds of functions on entries from both sides: against samples of torch's derivatives in double precision."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nonsmooth.bounds.constants.record import CONSTANTS, Called
from nonsmooth.bounds.reach import Local, Reach

inf = math.inf


def derivatives(f: Callable, t: np.ndarray, order: int = 2) -> list[np.ndarray]:
    """Give f and its derivatives at points, by reverse mode."""
    u = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    found = [f(u)]
    for _ in range(order):
        last = found[-1]
        grad = (
            torch.autograd.grad(last.sum(), u, create_graph=True, allow_unused=True)[0] if last.requires_grad else None
        )
        found.append(torch.zeros_like(u) if grad is None else grad)
    return [v.detach().numpy() for v in found]


def samples(low: float, high: float, near_to: tuple[float, ...] = (), n: int = 2001) -> np.ndarray:
    """Give points inside of an interval, dense near its ends and some points; of an infinite one those up to 1e7."""
    far = np.concatenate([-np.logspace(2, 7, 60) * (low == -inf), np.logspace(2, 7, 60) * (high == inf)])
    low, high = max(low, -1e7 if low == -inf else -200.0), min(high, 1e7 if high == inf else 200.0)
    even = np.linspace(low, high, n)
    near = (high - low) * np.logspace(-12, -1, 60)
    points = np.concatenate([even, low + near, high - near, np.linspace(-8, 8, n), np.linspace(-200, 200, n), far])
    beside = np.concatenate([-np.logspace(-8, -1, 40), np.logspace(-8, -1, 40)])
    points = np.concatenate([points, *(p + beside for p in near_to)])
    return np.unique(points[(points >= low) & (points <= high)])


@dataclass
class Fault:
    """What a check found: the quantity, the interval, and both numbers."""

    what: str
    interval: tuple[float, float]
    bound: float
    seen: float


def faults_on(
    function, oracle: Callable, low: float, high: float, torn: tuple[float, ...] = (), slack: float = 0.01
) -> list[Fault]:
    """List what is wrong with the bounds on an interval: samples beyond them, or bounds that no sample comes near.

    `torn` are the points near which the oracle's derivatives are not those of the function: they are not sampled. An
    infinite bound is judged by the caller.
    """
    t = samples(low, high, torn)
    for p in torn:
        t = t[np.abs(t - p) > 1e-9 * max(1, abs(p))]
    if not len(t):
        return []
    value, first, second = derivatives(oracle, t)
    ends = np.array(low), np.array(high)
    (least, most), (fall, rise), bend = function.range(*ends), function.slopes(*ends), function.curvature(*ends)
    found = []
    span = float(np.ptp(value))
    checks = [
        ("value", value, float(least), float(most), span),
        ("slope", first, float(fall), float(rise), float(np.max(np.abs(first)))),
        ("curvature", np.abs(second), -inf, float(bend), float(np.max(np.abs(second)))),
    ]
    for what, seen, lower, upper, scale in checks:
        seen = seen[np.isfinite(seen)]
        room = 1e-11 + 1e-9 * scale
        if seen.min() < lower - room or seen.max() > upper + room:
            found.append(Fault(what + " beyond", (low, high), upper, float(seen.max())))
        for bound, extreme in ((lower, seen.min()), (upper, seen.max())):
            if math.isfinite(bound) and abs(bound - extreme) > slack * scale + 1e-6:
                found.append(Fault(what + " not attained", (low, high), bound, float(extreme)))
    return found


def random_intervals(rng: np.random.Generator, domain: tuple[float, float], n: int) -> list[tuple[float, float]]:
    """Draw intervals inside of a domain: short, long, and half-infinite where it is."""
    low, high = max(domain[0], -30.0), min(domain[1], 30.0)
    found = []
    for k in range(n):
        scale = (0.1, 1.0, 3.0, 30.0)[k % 4]
        a, b = np.sort(np.clip(rng.normal(0, scale, 2), low, high))
        found.append((float(a), float(b)))
    if domain[0] == -inf:
        found += [(-inf, v) for v in (-3.0, 0.3, 2.0)]
    if domain[1] == inf:
        found += [(v, inf) for v in (max(domain[0], -2.0) + 0.1, 0.7, 5.0)]
    if domain == (-inf, inf):
        found.append((-inf, inf))
    return [i for i in found if i[0] < i[1]]


# --- several operands -------------------------------------------------------------------------------------------------


@dataclass
class Box:
    """The entries of an operand between two arrays; it moves or not."""

    low: np.ndarray
    high: np.ndarray
    moves: bool = True

    @property
    def reach(self) -> Reach:
        """What records see."""
        norm = float(np.linalg.norm(np.maximum(np.abs(self.low), np.abs(self.high))))
        one = np.ones(1) if self.moves else np.zeros(1)
        center = None if self.moves else self.low
        return Reach(
            self.low.shape, norm, one, np.zeros((1, 1)), self.low, self.high, center, inf if self.moves else 0.0
        )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Give a point of the box, often with entries at its ends."""
        share = rng.choice([0.0, 1.0, rng.random()], size=self.low.shape, p=[0.4, 0.4, 0.2])
        return self.low + share * (self.high - self.low)


def box(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float, moves: bool = True) -> Box:
    """Draw a box whose entries lie between two numbers."""
    ends = np.sort(rng.uniform(low, high, (2, *shape)), axis=0)
    return Box(ends[0], ends[1] if moves else ends[0], moves)


def called(name: str, boxes: list[Box], attributes=None, evaluate=None) -> tuple[Called, Local]:
    """Call a record on boxes."""
    shape = np.broadcast_shapes(*(b.low.shape for b in boxes))
    call = Called(name, tuple(b.reach for b in boxes), attributes or {}, (shape,), evaluate or (lambda *a: None))
    local = CONSTANTS[name](call)
    assert isinstance(local, Local)
    return call, local


def _bilinear_norm(tensor: np.ndarray, rng: np.random.Generator) -> float:
    """Bound sup |sum T_ijk x_i h_j k_k| over unit vectors from below, by turns."""
    tensor = np.nan_to_num(tensor)
    if not np.any(tensor):
        return 0.0
    slices = np.linalg.svd(tensor)
    best = float(np.max(slices.S))
    for k in (rng.normal(size=tensor.shape[2]), slices.Vh[int(np.argmax(slices.S[:, 0])), 0]):
        for _ in range(8):
            k = k / np.linalg.norm(k)
            u, _, v = np.linalg.svd(np.einsum("ijk,k->ij", tensor, k))
            k = np.einsum("ijk,i,j->k", tensor, u[:, 0], v[0])
            if not np.any(k):
                break
        best = max(best, float(np.linalg.norm(k)))
    return best


@dataclass
class Seen:
    """The largest that samples show of each constant, over the constant."""

    first: list[float]
    second: dict[tuple[int, int], float]
    joint: float
    inside: bool
    norm: float


def observe(f: Callable, boxes: list[Box], local: Local, rng: np.random.Generator, n: int = 8) -> Seen:
    """Sample a function on boxes: ratios of what is seen to what its record says, and whether values keep their interval."""
    p = len(boxes)
    seen = Seen([0.0] * p, {(i, j): 0.0 for i in range(p) for j in range(i, p)}, 0.0, True, 0.0)
    moving = [i for i in range(p) if boxes[i].moves]
    for _ in range(n):
        points = [torch.tensor(b.draw(rng)) for b in boxes]
        value = f(*points).numpy()
        room = 1e-9 * (1 + np.abs(value))
        seen.inside &= bool(np.all(value >= local.low - room) and np.all(value <= local.high + room))
        seen.norm = max(seen.norm, float(np.linalg.norm(value)) / local.norm if local.norm else 0.0)
        size = value.size
        jacobians = torch.func.jacrev(f, tuple(range(p)))(*points)
        flat = [j.reshape(size, -1).numpy() for j in jacobians]
        for i in moving:
            seen.first[i] = max(seen.first[i], _ratio(np.linalg.norm(flat[i], 2), local.lipschitz[i]))
        if local.stacked:
            scaled = [flat[i] / local.lipschitz[i] for i in moving if 0 < local.lipschitz[i] < inf]
            if scaled:
                seen.joint = max(seen.joint, float(np.linalg.norm(np.concatenate(scaled, 1), 2)))
        hessians = torch.func.jacrev(torch.func.jacrev(f, tuple(range(p))), tuple(range(p)))(*points)
        for i, j in [(i, j) for i in moving for j in moving if i <= j]:
            tensor = hessians[i][j].reshape(size, points[i].numel(), points[j].numel()).numpy()
            ratio = _ratio(_bilinear_norm(tensor, rng), local.smoothness.get((i, j), 0.0))
            seen.second[i, j] = max(seen.second[i, j], ratio)
    return seen


def _ratio(seen: float, bound: float) -> float:
    """Give seen / bound, 0 / 0 being 0."""
    if seen < 1e-12:
        return 0.0
    return float(seen / bound) if bound > 0 else inf
