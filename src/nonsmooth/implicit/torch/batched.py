"""Fixed points of maps on the rows of a batch: plain steps while they contract, then Anderson's, with one memory for each row.

An affine layer y = s(W y + c) whose I - W has a positive definite symmetric part is solved by Peaceman-Rachford splitting

    x = (2 I - W)^-1 (z + c),   y = s(2 x - z),   z <- z + 2 (y - x)

which converges for every increasing s with slopes of at most 1, where y = s(W y + c) iterated may not; y - x is the residual
s(W x + c) - x. Anderson's combinations of its steps are taken back where they do not help.

Source: WinstonKolter2020, LionsMercier1979.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch

__all__ = ["AffineMap", "Found", "at_least_single", "dense_solve", "fixed_rows"]

Map: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

QUICK = 60
"""How many further plain steps are worth making."""

SLOW = 0.9
"""A factor by which plain steps that go on must contract."""

MEMORY = 6
"""How many steps Anderson's iteration combines."""

GROWTH = 2.0
"""A combined step whose residual is larger by this factor than the least so far is taken back."""

CAUTION = 5
"""How many steps are made without combining after one was taken back."""

EVERY = 2
"""A step is combined, then so many less one are not."""

REGULARISATION = 10.0
"""Of the products of residuals, in units of rounding of the largest."""

ROUNDS = 4
"""How often an iteration is begun again when the residual of its result is larger than it seemed."""

STALLED = 200
"""After how many steps without a better residual an iteration ends."""


@dataclass
class Found:
    """An approximate fixed point; `error` is the largest relative residual of a row that was seen."""

    y: torch.Tensor
    error: float
    iterations: int
    method: str


@dataclass
class AffineMap:
    """T(y) = s(y W' + c) on rows, s acting entry by entry with slopes in [0, 1]; `inverse` gives (2 I - W)^-1."""

    activation: Map
    W: torch.Tensor
    c: torch.Tensor
    inverse: Callable[[], torch.Tensor] | None = None

    def __call__(self, y: torch.Tensor) -> torch.Tensor:
        """Give T(y)."""
        if y.ndim == 2 == self.c.ndim:
            return self.activation(torch.addmm(self.c, y, self.W.T))
        return self.activation(y @ self.W.T + self.c)

    @cached_property
    def resolvent(self) -> torch.Tensor:
        """(2 I - W)^-1, transposed, for rows."""
        assert self.inverse is not None
        return self.inverse().T

    def split(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give x and y of a step."""
        x = (z + self.c) @ self.resolvent
        return x, self.activation(2 * x - z)

    def inner(self, y: torch.Tensor) -> torch.Tensor:
        """Give the z whose x is y."""
        return 2 * y - y @ self.W.T - self.c


def fixed_rows(
    T: Map,
    start: torch.Tensor,
    goal: float,
    limit: int,
    scale: torch.Tensor | None = None,
    splitting: AffineMap | None = None,
) -> Found:
    """Find y = T(y), row by row: |T(y) - y| <= goal times the scale of the row, by default 1 + |y|.

    Args:
        T: maps an array (..., n) row by row.
        splitting: T as an affine map for which Peaceman-Rachford splitting converges, if it is one.
    """

    def error(y: torch.Tensor, residual: torch.Tensor) -> float:
        size = 1 + torch.linalg.vector_norm(y, dim=-1) if scale is None else scale
        return float((torch.linalg.vector_norm(residual, dim=-1) / size).amax())

    if not start.numel():
        return Found(start, 0.0, 0, "plain iteration")
    found = _plain(T, start, goal, limit, error)
    if found.error <= goal or found.iterations >= limit:
        return found
    if splitting is None:
        ahead = _anderson(lambda y: (y, T(y)), found.y, found.iterations, goal, limit, error, "Anderson")
        return ahead if ahead.error < found.error else replace(found, iterations=ahead.iterations)
    aim = goal / 2
    for _ in range(ROUNDS):
        found = _anderson(
            splitting.split, splitting.inner(found.y), found.iterations, aim, limit, error, "Peaceman-Rachford"
        )
        found = replace(found, error=error(found.y, T(found.y) - found.y), iterations=found.iterations + 1)
        if found.error <= goal or found.iterations >= limit:
            break
        aim *= min(0.5, 0.5 * goal / found.error)  # the residual was that of x, which y follows
    return found


def _plain(T: Map, start: torch.Tensor, goal: float, limit: int, error: Callable[..., float]) -> Found:
    """Iterate y <- T(y), measuring seldom, until the goal is reached or the steps contract slowly."""
    y, best, best_error, before, used, ahead = start, start, float("inf"), 0.0, 0, 2
    while used < limit:
        steps = min(ahead, limit - used)
        for _ in range(steps):
            last, y = y, T(y)
        used += steps
        now = error(last, y - last)
        if not now < best_error:  # a nan, too
            break
        best, best_error = y, now
        if now <= goal:
            break
        rate = (now / before) ** (1 / steps) if before else 0.0
        before = now
        if rate >= SLOW:
            break
        needed = _steps(now, goal, rate) if rate else 4
        if rate and needed > QUICK:
            break
        ahead = max(1, min(needed, 16))
    if not best_error <= 1:  # far from a solution the residual is as large as y
        best, best_error = start, float("inf")
    return Found(best, best_error, used, "plain iteration")


def _steps(now: float, goal: float, rate: float) -> int:
    """Give how many steps lead from a residual to the goal at some rate."""
    steps, now = 1, now * rate
    while now > goal and steps <= QUICK:
        steps, now = steps + 1, now * rate
    return steps


def _anderson(
    split: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    z: torch.Tensor,
    used: int,
    goal: float,
    limit: int,
    error: Callable[..., float],
    method: str,
) -> Found:
    """Iterate z <- G(z), combined over the last steps of each row so that the combined residual is least.

    `split(z)` gives x and y with residual y - x; G(z) is z + (y - x) for plain steps, z + 2 (y - x) for a splitting.
    """
    factor = 1.0 if method == "Anderson" else 2.0
    best, wait, since = Found(z, float("inf"), used, method), 0, 0
    least, anchor = float("inf"), z
    memory = _Memory(z)
    while used < limit and since < STALLED:
        x, y = split(z)
        residual = y - x
        used, since, now = used + 1, since + 1, error(x, residual)
        if now < best.error:
            since = 0 if now < 0.9 * best.error else since
            best = Found(y, now, used, method)
        if now <= goal:
            break
        if not now <= GROWTH * least and memory.held:
            z, memory.held, wait, least = anchor, 0, CAUTION, float("inf")
            continue
        moved = z + factor * residual
        if now < least:
            least, anchor = now, moved
        if wait:
            wait, z = wait - 1, moved
            continue
        memory.add(moved, residual)
        z = memory.combined() if memory.held % EVERY == 0 else moved
    return replace(best, iterations=used)


class _Memory:
    """The last steps of an iteration."""

    def __init__(self, like: torch.Tensor) -> None:
        shape = (*like.shape[:-1], MEMORY, like.shape[-1])
        self.moved, self.residuals = like.new_zeros(shape), like.new_zeros(shape)
        self.held = 0

    def add(self, moved: torch.Tensor, residual: torch.Tensor) -> None:
        """Take a step in the place of the oldest."""
        place = self.held % MEMORY
        self.moved[..., place, :], self.residuals[..., place, :] = moved, residual
        self.held += 1

    def combined(self) -> torch.Tensor:
        """Combine the steps of each row so that its combined residual is least: the weights sum up to 1."""
        count = min(self.held, MEMORY)
        R = self.residuals[..., :count, :]
        gram = at_least_single(R @ R.mT)
        eps = torch.finfo(gram.dtype).eps
        largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        gram = gram / (largest + torch.finfo(gram.dtype).tiny)[..., None, None]
        gram.diagonal(dim1=-2, dim2=-1).add_(REGULARISATION * eps)
        weights, info = torch.linalg.solve_ex(gram, torch.ones_like(gram[..., :1]))
        weights = weights / weights.sum(-2, keepdim=True)
        last = torch.zeros_like(weights)
        last[..., (self.held - 1) % MEMORY, :] = 1.0
        fine = torch.isfinite(weights).all(-2, keepdim=True) & (info == 0)[..., None, None]
        weights = torch.where(fine, weights, last)
        return (weights.mT.to(R.dtype) @ self.moved[..., :count, :]).squeeze(-2)


def dense_solve(
    blocks: torch.Tensor, right: torch.Tensor, transposed: bool, zero: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve B_i x_i = b_i, or with B_i', for the matrices of a batch; tell which of them are singular within rounding.

    Args:
        blocks: shape (b, n, n). right: shape (..., b, n).
        zero: below how large a singular value counts as 0, relative to the largest.
    """
    blocks, kind = at_least_single(blocks), right.dtype
    right = right.to(blocks.dtype)
    factors, pivots, info = torch.linalg.lu_factor_ex(blocks)
    n = blocks.shape[-1]
    columns = right.reshape(-1, *blocks.shape[:2]).permute(1, 2, 0)
    probe = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(blocks)
    columns = torch.cat([columns, probe.expand(len(blocks), n, 2)], dim=2)
    found = torch.linalg.lu_solve(factors, pivots, columns, adjoint=transposed)
    size = torch.linalg.vector_norm(found[..., -2:], dim=1).amax(1) / torch.linalg.vector_norm(probe, dim=0).amax()
    norm = torch.linalg.matrix_norm(blocks)
    singular = (info != 0) | ~(size * norm * zero < 1)
    return found[..., :-2].permute(2, 0, 1).reshape(right.shape).to(kind), singular


def at_least_single(tensor: torch.Tensor) -> torch.Tensor:
    """Give half precision as single, in which torch has factors and norms of matrices."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
