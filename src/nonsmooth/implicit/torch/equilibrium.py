"""The deep equilibrium layer as a torch.nn.Module."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from nonsmooth.errors import NotConverged, UsageError
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.monotone import (
    EquilibriumReport,
    activation_slopes,
    check_form,
    monotone_matrix,
    singular_value_bound,
)
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.attached import Leaves, attach
from nonsmooth.implicit.torch.batched import AffineMap, Found, at_least_single, fixed_rows
from nonsmooth.implicit.torch.rows import AffineRows, CellRows, KinkCheck, Rows, length
from nonsmooth.implicit.torch.trees import TREES, detached

__all__ = ["DeepEquilibrium"]

ROUNDING = 8.0
"""How many units of rounding, times the size of I - W, its symmetric part must exceed."""


class AffineCell(nn.Module):
    """The cell s(W y + U x + b) with its parametrisation of W."""

    def __init__(
        self,
        inputs: int,
        width: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
        parametrisation: str,
        margin: float,
        slopes: tuple[float, float] | None,
        bias: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        for name, size in (("inputs", inputs), ("width", width)):
            if type(size) is not int or size < 1:
                raise UsageError(f"DeepEquilibrium: {name}={size!r}; pass a whole number of features, at least 1.")
        if slopes is None and parametrisation == "free":
            try:
                slopes = activation_slopes(activation, torch.zeros(2, dtype=torch.float64))
            except UsageError:
                slopes = (-math.inf, math.inf)
        elif slopes is None:
            slopes = activation_slopes(activation, torch.zeros(2, dtype=torch.float64))
        check_form(parametrisation, margin, slopes)
        self.activation, self.parametrisation, self.margin, self.slopes = activation, parametrisation, margin, slopes
        new = {"device": device, "dtype": dtype}
        self.V = nn.Parameter(torch.empty(width, width, **new))
        self.S = nn.Parameter(torch.empty(width, width, **new)) if parametrisation == "monotone" else None
        self.U = nn.Linear(inputs, width, bias, **new)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices uniformly from [-1, 1] / sqrt(width)."""
        bound = 1 / math.sqrt(len(self.V))
        for matrix in (self.V, self.S):
            if matrix is not None:
                nn.init.uniform_(matrix, -bound, bound)
        self.U.reset_parameters()

    @property
    def slope(self) -> float:
        """h: the largest size of a slope."""
        return max(-self.slopes[0], self.slopes[1])

    @property
    def weight(self) -> torch.Tensor:
        """W, as the parametrisation makes it."""
        return self.matrix.to(self.V.dtype)

    @property
    def matrix(self) -> torch.Tensor:
        """W, of half precision in single: its norm and factors are taken, which torch has in no smaller one."""
        V = at_least_single(self.V)
        if self.S is not None:
            identity = torch.eye(len(V), dtype=V.dtype, device=V.device)
            W: torch.Tensor = monotone_matrix(V, at_least_single(self.S), self.margin, identity, self.slope)
            return W
        if self.parametrisation == "contractive":
            norm: torch.Tensor = torch.linalg.matrix_norm(V, 2)
            return V * ((1 - self.margin) / self.slope) / norm.clamp(min=1.0)
        return V

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Give s(W y + U x + b)."""
        return self.activation(functional.linear(y, self.weight) + self.U(x))


class DeepEquilibrium(nn.Module):
    """A layer that gives the equilibrium y of a cell, and differentiates by the implicit function theorem.

        y = s(W y + U x + b),   or   y = cell(y, x)          row by row of a batch

    With parametrisation="monotone" (W = ((1 - m) I - A'A + S - S')/h, slopes of s in [0, h]) or "contractive" (|W| <= (1 - m)/h,
    slopes in [-h, h]) the solution exists, is unique, and I - D W is invertible for every element D of the conservative
    Jacobian of s, at every input. Status: `proved` in exact arithmetic. A free W, or a cell, is checked at each derivative:
    the solves row by row, and on kinks the condition over all elements (`computed`).

    After a call `report` tells what was done. Under `torch.no_grad` it is a solve alone.

    Args:
        inputs: the number of features of x, shape (..., inputs); or a module cell(y, x), with y of shape (batch, ...).
        width: the number n of features of y; of a cell it may stay out, y is then like x.
        activation: s, a function that acts entry by entry, or its name in `torch.nn.functional`.
        parametrisation: "monotone", "contractive" or "free".
        margin: m in (0, 1).
        slopes: the least and the largest slope of s; None: the dictionary knows.
        bias: whether there is a b.
        start: of a cell, start(x) -> the y at which the solver begins.
        options: as of `Options`: violated, tolerance, iterations, linear_tolerance, check.

    Raises:
        UsageError: what cannot be served, by name. At calls: NotConverged, if a row has not the residual that `tolerance`
            allows; NotInvertible, at a backward pass, where the condition does not hold.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> layer = DeepEquilibrium(3, 5, dtype=torch.float64)
    >>> x = torch.randn(4, 3, dtype=torch.float64)
    >>> y = layer(x)
    >>> bool(torch.allclose(y, torch.relu(y @ layer.weight.T + layer.cell.U(x)))), layer.report.condition
    (True, 'by construction')

    Source: BaiKolterKoltun2019, WinstonKolter2020, BolteLePauwelsSilvetiFalls2021, derived, docs/theory/equilibrium.md.
    """

    report: EquilibriumReport | None

    def __init__(
        self,
        inputs: int | nn.Module,
        width: int | None = None,
        *,
        activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
        parametrisation: str = "monotone",
        margin: float = 0.1,
        slopes: tuple[float, float] | None = None,
        bias: bool = True,
        start: Callable[[Any], Any] | None = None,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = Options(**options)
        self.width, self.start = width, start
        self.report = None
        self._programs: dict[Any, Any] = {}
        if isinstance(inputs, nn.Module):
            self.cell: nn.Module = inputs
            return
        if width is None:
            raise UsageError("DeepEquilibrium(inputs, width): the width, the number of features of y, is missing.")
        self.cell = AffineCell(
            inputs, width, _activation(activation), parametrisation, margin, slopes, bias, device, dtype
        )

    def extra_repr(self) -> str:
        """Say what W is."""
        return f"{self.cell.parametrisation}, margin={self.cell.margin}" if isinstance(self.cell, AffineCell) else ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was captured: it is captured again."""
        return {**super().__getstate__(), "_programs": {}}

    @property
    def weight(self) -> torch.Tensor:
        """W of an affine layer."""
        return self._affine().weight

    def singular_value_bound(self) -> float:
        """Give a bound below the singular values of I - D W for every D, at every input; 0 if none is known.

            (K - sqrt(K^2 - 4 m)) / 2,  K = |2 I - h W|;     m of a contractive layer

        Status: `proved` in exact arithmetic, K being computed. Of a free W the margin m is what its symmetric part has.

        Source: derived, docs/theory/equilibrium.md.
        """
        cell = self._affine()
        with torch.no_grad():
            W = cell.weight.double() * cell.slope
            identity = torch.eye(len(W), dtype=W.dtype, device=W.device)
            small = 1 - float(torch.linalg.matrix_norm(W, 2)) if math.isfinite(cell.slope) else 0.0
            if not 0 <= cell.slopes[0] <= cell.slope < math.inf:
                return max(small, 0.0)
            margin = float(torch.linalg.eigvalsh(identity - (W + W.T) / 2)[0])
            norm = float(torch.linalg.matrix_norm(2 * identity - W, 2))
        return max(small, singular_value_bound(margin, norm) if margin > 0 else 0.0, 0.0)

    def forward(self, x: Any) -> torch.Tensor:
        """Give the equilibrium at x."""
        if isinstance(self.cell, AffineCell):
            return self._of_affine(self.cell, x)
        return self._of_cell(x)

    def _affine(self) -> AffineCell:
        """Give the affine cell."""
        if not isinstance(self.cell, AffineCell):
            raise UsageError("this is known of an affine layer alone, DeepEquilibrium(inputs, width), not of a cell.")
        return self.cell

    def _of_affine(self, cell: AffineCell, x: Any) -> torch.Tensor:
        """Solve y = s(W y + c), c = U x + b."""
        if not isinstance(x, torch.Tensor) or not x.ndim or x.shape[-1] != cell.U.in_features:
            what = f"shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else f"a {type(x).__name__}"
            raise UsageError(f"DeepEquilibrium takes a tensor of shape (..., {cell.U.in_features}); found {what}.")
        c: torch.Tensor = cell.U(x)
        with torch.autocast(c.device.type, enabled=False):
            return self._of_rows(cell, at_least_single(c).reshape(-1, c.shape[-1])).reshape(c.shape).to(c.dtype)

    def _of_rows(self, cell: AffineCell, rows: torch.Tensor) -> torch.Tensor:
        """Solve y = s(W y + c) for the rows c, in single precision at least."""
        W, s, h = cell.matrix, cell.activation, cell.slope
        certificate = Certificate(cell, W.detach())
        begin = torch.zeros_like(rows)
        if certificate.condition is None:
            return self._general(_FreeCell(s, W), rows, begin)
        still = AffineMap(s if h == 1 else lambda u: s(u) / h, certificate.W, rows.detach(), certificate.inverse)
        with torch.no_grad():
            found = self._found(still, begin, still if still.inverse is not None else None)
            y = found.y * h if h != 1 else found.y

        def residual(y: torch.Tensor, given: Leaves) -> torch.Tensor:
            rest: torch.Tensor = y - s(torch.addmm(given[1], y, given[0].T))
            return rest

        def node() -> Rows:
            made = AffineRows(residual, y, [W, rows], Equation("fixed point", self), self.options)
            made.activation, made.slope, made.inverse = s, h, certificate.inverse
            return made

        return self._attached(node, [W, rows], residual, y, found, certificate.condition)

    def _of_cell(self, x: Any) -> torch.Tensor:
        """Solve y = cell(y, x)."""
        leaves = [t for t in flatten(x)[0] if isinstance(t, torch.Tensor) and t.is_floating_point()]
        if self.start is not None:
            begin: Any = self.start(detached(x))
        elif not leaves:
            raise UsageError("DeepEquilibrium: x holds no floating tensor that y could be like: pass start=.")
        else:
            begin = torch.zeros_like(leaves[0])
            begin = begin if self.width is None else begin.new_zeros(len(begin), self.width)
        if not isinstance(begin, torch.Tensor) or not (begin.is_floating_point() and begin.ndim):  # a user's, perhaps
            raise UsageError("DeepEquilibrium: the start must be a floating tensor of shape (batch, ...).")
        return self._general(self.cell, x, begin.detach())

    def _general(self, cell: Callable[..., torch.Tensor], x: Any, begin: torch.Tensor) -> torch.Tensor:
        """Solve y = cell(y, x), of which nothing is known."""
        leaves, structure = flatten(x)
        places = [k for k, t in enumerate(leaves) if isinstance(t, torch.Tensor) and t.is_floating_point()]
        inputs = [leaves[k] for k in places]

        def residual(y: torch.Tensor, given: Leaves) -> torch.Tensor:
            filled = list(leaves)
            for k, tensor in zip(places, given, strict=True):
                filled[k] = tensor
            found: torch.Tensor = TREES.plus(y, cell(y, unflatten(filled, structure)), -1.0)
            return found

        still, shape = detached(x), begin.shape

        def step(y: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = cell(y.reshape(shape), still)
            TREES.plus(begin, found)
            return found.reshape(y.shape)

        with torch.no_grad():
            found = self._found(step, begin.reshape(len(begin), -1) if begin.numel() else begin, None)
            y = found.y.reshape(shape)

        def node() -> Rows:
            check = None if self.options.violated == "ignore" else KinkCheck(cell, still, self.options, self._programs)
            return CellRows(residual, y, inputs, Equation("fixed point", cell), self.options, check)

        return self._attached(node, inputs, residual, y, found, "at the solution")

    def _found(self, step: Any, begin: torch.Tensor, splitting: AffineMap | None) -> Found:
        """Run the solver."""
        goal = self.options.tolerance or torch.finfo(begin.dtype).eps ** 0.75
        return fixed_rows(step, begin, goal, self.options.iterations, splitting=splitting)

    def _attached(
        self,
        node: Callable[[], Rows],
        inputs: Leaves,
        residual: Callable[[Any, Leaves], torch.Tensor],
        y: torch.Tensor,
        found: Found,
        condition: str,
    ) -> torch.Tensor:
        """Check a solution and attach it to the graph."""
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            made = node()
            self._accept(y, made.value[0], found, condition)
            return attach(made, inputs)[0]
        self._accept(y, residual(y, [t.detach() for t in inputs]), found, condition)
        return y

    def _accept(self, y: torch.Tensor, rest: torch.Tensor, found: Found, condition: str) -> None:
        """Refuse what is no solution, row by row, and report."""
        error = 0.0
        if y.numel():
            lengths = [length(t.detach()) for t in (rest, y)]
            rows = lengths[0] / (1 + lengths[1])
            error = float(rows.amax())
            allowed = self.options.tolerance or torch.finfo(y.dtype).eps ** 0.5
            if not error <= allowed:
                row = int(torch.nan_to_num(rows, nan=math.inf).argmax())
                raise NotConverged(
                    f"DeepEquilibrium: row {row} of the batch has the residual |y - T(y)| = {float(lengths[0][row]):.3g} after "
                    f"{found.iterations} evaluations of its cell ({found.method}), asked was {allowed:.2g} (1 + |y|). Make more "
                    "iterations=, allow a larger tolerance=, or take parametrisation='monotone', which has one solution."
                )
        self.report = EquilibriumReport(found.method, found.iterations, error, condition)


class _FreeCell:
    """s(W y + c) as a cell, by name."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor], W: torch.Tensor) -> None:
        self.activation, self.W = activation, W
        self.__name__ = "DeepEquilibrium"

    def __call__(self, y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Give s(W y + c)."""
        return self.activation(functional.linear(y, self.W) + c)


class Certificate:
    """Whether a matrix W makes I - D W invertible for all D, and what inverts 2 I - h W where splitting converges."""

    def __init__(self, cell: AffineCell, W: torch.Tensor) -> None:
        self.W = W * cell.slope if cell.slope != 1 and math.isfinite(cell.slope) else W
        increasing = 0 <= cell.slopes[0] <= cell.slope < math.inf
        self.condition: str | None = "by construction"
        self.splits = increasing
        if cell.parametrisation == "free":
            self.splits = increasing and self._is_monotone()
            self.condition = "by the matrix" if self.splits or (not increasing and self._is_small(cell)) else None

    def _is_monotone(self) -> bool:
        """Tell whether the symmetric part of I - W is positive definite, beyond rounding: by Cholesky factors."""
        W = self.W
        part = (W + W.T).mul_(-0.5)
        size = 1 + float(torch.linalg.matrix_norm(part, "fro")) if W.numel() else 1.0
        part.diagonal().add_(1 - ROUNDING * torch.finfo(W.dtype).eps * len(W) * size)
        _, info = torch.linalg.cholesky_ex(part)
        return bool(info == 0) and math.isfinite(size)

    def _is_small(self, cell: AffineCell) -> bool:
        """Tell whether |h W| < 1 beyond rounding."""
        if not math.isfinite(cell.slope):
            return False
        norm = float(torch.linalg.matrix_norm(self.W, 2))
        return norm < 1 - ROUNDING * torch.finfo(self.W.dtype).eps * len(self.W)

    @property
    def inverse(self) -> Callable[[], torch.Tensor] | None:
        """What gives (2 I - h W)^-1, where splitting converges."""
        return (lambda: self._inverse) if self.splits else None

    @cached_property
    def _inverse(self) -> torch.Tensor:
        """(2 I - h W)^-1, which exists: the symmetric part of I - h W is positive definite."""
        with torch.no_grad():
            identity = torch.eye(len(self.W), dtype=self.W.dtype, device=self.W.device)
            found: torch.Tensor = torch.linalg.inv(2 * identity - self.W)
            return found


def _activation(activation: str | Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Find an activation by its name."""
    if not isinstance(activation, str):
        return activation
    found = getattr(functional, activation, None)
    if not callable(found):
        raise UsageError(
            f"activation={activation!r}: torch.nn.functional has no function of this name; pass a function."
        )
    activation_: Callable[[torch.Tensor], torch.Tensor] = found
    return activation_
