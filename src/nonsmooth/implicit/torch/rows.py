"""Equilibria of a batch as nodes of torch's graph: linear systems solved row by row, the condition checked row by row.

B is block diagonal, a block for each row of the batch; no solve forms more than the blocks, and where B' l = g is solved by
iterating l <- g + (I - B)' l not even these.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from nonsmooth.dictionary import Nonsmooth, Singularity
from nonsmooth.errors import ImplicitWarning, NonsmoothError, NotConverged, NotInvertible
from nonsmooth.frameworks.torch import TORCH
from nonsmooth.frameworks.torch.tree import flatten, unflatten
from nonsmooth.implicit.diagnosis import diagnose_equation
from nonsmooth.implicit.equation import Equation
from nonsmooth.implicit.options import Options
from nonsmooth.implicit.torch.attached import Leaves, Node
from nonsmooth.implicit.torch.batched import AffineMap, dense_solve, fixed_rows
from nonsmooth.implicit.torch.slopes import slopes, without_branches
from nonsmooth.implicit.torch.system import linear_tolerance
from nonsmooth.implicit.torch.trees import TREES
from nonsmooth.program import Program

__all__ = ["AffineRows", "CellRows", "KinkCheck", "Rows", "length"]

STEPS = 100
"""How often a linear system is iterated before the blocks are formed."""

ROUNDS = 2
"""How often splitting is tried, the second time for what the first has left."""

NUMBERS = 30_000_000
"""How many numbers the blocks of a batch may have."""

CHUNK = 64
"""How many rows of all blocks one batched backward pass gives."""

PROBE = 1e-3
"""How far the residual of a random right-hand side must fall, times the root of 1/n."""

ROUNDING = 64.0
"""A kink is looked at within so many units of rounding, times the size of the solution ..."""

NEAR = 10.0
"""... or so many bounds of the error of the solution."""


class Rows(Node):
    """A node whose linear systems are solved row by row; `goal` is the residual that is aimed at."""

    def __init__(
        self,
        residual: Callable[[Any, Leaves], Any],
        y: torch.Tensor,
        inputs: Leaves,
        equation: Equation,
        options: Options,
        check: Callable[[Node], None] | None = None,
    ) -> None:
        super().__init__(residual, y, inputs, equation, options, check)
        self.goal = options.linear_tolerance or options.tolerance or self.system.eps**0.75
        self.allowed = max(linear_tolerance(options, self.system.eps), self.goal)
        self.evaluations = 0
        self.system.adjoint_of = cast("Any", _Adjoint(self))

    def solved(self, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Give B^-1 v or B^-T v for one v like the solution."""
        raise NotImplementedError

    def product(self, vector: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Give B v or B' v."""
        return (self.system.pull if transposed else self.system.push)([vector])[0]

    def residual_of(self, found: torch.Tensor, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Give |b - B x| / |b|, row by row; a row without a right-hand side is measured by the largest one."""
        size = length(right)
        return length(right - self.product(found, transposed)) / torch.where(
            size > 0, size, size.amax().clamp(min=torch.finfo(size.dtype).tiny)
        )

    def verified(self, found: torch.Tensor, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Give a solution after a look at its residual."""
        rest = self.residual_of(found, right, transposed)
        if not bool((rest <= self.allowed).all()):
            row = int((~(rest <= self.allowed)).nonzero()[0, 0])
            raise NotConverged(
                f"the linear system of the {self.system.equation.kind} of {self.system.equation.name} was not solved for row "
                f"{row} of the batch: the residual is {float(rest[row]):.2g} of the right-hand side, asked was {self.allowed:.2g}. "
                "Its derivative may be singular: look at it with `nonsmooth.implicit.diagnose`."
            )
        return found


class _Adjoint:
    """What a system asks to solve for it."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def solve(self, vector: Sequence[torch.Tensor], *, transposed: bool) -> list[torch.Tensor]:
        """Solve, the direction being that of the transposed system; a further first axis holds several right-hand sides."""
        (right,) = vector
        with torch.no_grad():
            if not right.numel():
                return [right.detach()]
            if right.ndim == self.rows.system.leaves[0].ndim:
                return [self.rows.solved(right.detach(), not transposed)]
            return [torch.stack([self.rows.solved(r.detach(), not transposed) for r in right])]


class AffineRows(Rows):
    """y = s(W y + c) where every element of the conservative Jacobian is invertible at every input: B = I - D W.

    The systems are fixed points of the same kind, v = W'q + g with q = D (W'q + g), and solved by the same splitting.
    """

    activation: Callable[[torch.Tensor], torch.Tensor]
    slope: float
    inverse: Callable[[], torch.Tensor] | None

    def solved(self, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Solve by splitting, once more for what is left of the right-hand side; by the blocks if that takes too long."""
        answer, rest, self.evaluations = torch.zeros_like(right), right, 0
        for _ in range(ROUNDS):
            answer = answer + self._split(rest, transposed)
            rest = right - self.product(answer, transposed)
            if bool((length(rest) <= self.goal * length(right)).all()):
                return answer
        W, D = self.explicit[0].detach(), self._slopes()
        if right.numel() * len(W) <= NUMBERS:
            blocks = torch.eye(len(W), dtype=W.dtype, device=W.device) - D[..., None] * W
            answer, _ = dense_solve(blocks, right, transposed, 0.0)
        return self.verified(answer, right, transposed)

    def _split(self, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Solve once by splitting."""
        W, D = self.explicit[0].detach(), self._slopes()
        if self.slope != 1:
            W, D = W * self.slope, D / self.slope
        A, b = (W.T, right) if transposed else (W, right @ W.T)
        still = AffineMap(lambda u: D * u, A, b, self._inverse(transposed))
        size = length(right)
        scale = torch.where(size > 0, size, 1.0)
        splitting = still if still.inverse is not None else None
        found = fixed_rows(still, torch.zeros_like(right), self.goal, STEPS, scale, splitting)
        self.evaluations += found.iterations
        return right + (found.y @ W if transposed else found.y)

    def product(self, vector: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Give B v or B' v."""
        W, D = self.explicit[0].detach(), self._slopes()
        return vector - ((vector * D) @ W if transposed else D * (vector @ W.T))

    def _slopes(self) -> torch.Tensor:
        """Give the diagonal of D, row by row."""
        found = self.__dict__.get("_D")
        if found is None:
            with torch.enable_grad():
                before = torch.addmm(self.explicit[1], self.system.leaves[0], self.explicit[0].T).detach()
                before.requires_grad_()
                (found,) = torch.autograd.grad(self.activation(before).sum(), before)
            self.__dict__["_D"] = found
        return found

    def _inverse(self, transposed: bool) -> Callable[[], torch.Tensor] | None:
        """Give what inverts 2 I - W, or its transpose."""
        inverse = self.inverse
        return inverse if inverse is None or not transposed else lambda: inverse().T


class CellRows(Rows):
    """y = cell(y, x), any cell: iterated, by the blocks, or all rows at once by GMRES; with a look at the condition."""

    inverse_norm = 0.0

    def solved(self, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Solve by what works."""
        found = self._iterated(right, transposed, self.goal)
        return self._directly(right, transposed) if found is None else self.verified(found, right, transposed)

    def _iterated(self, right: torch.Tensor, transposed: bool, goal: float) -> torch.Tensor | None:
        """Iterate v <- b + v - B v; None if that does not converge."""
        shape, flat = right.shape, right.reshape(len(right), -1)
        size = length(right)

        def step(v: torch.Tensor) -> torch.Tensor:
            return flat + v - self.product(v.reshape(shape), transposed).reshape(flat.shape)

        found = fixed_rows(step, flat, goal, STEPS, torch.where(size > 0, size, 1.0))
        self.evaluations = found.iterations
        return found.y.reshape(shape) if found.error <= goal else None

    def _directly(self, right: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Solve by the blocks; where they are too large, or rows depend on each other, all at once by GMRES."""
        count, n = len(right), right[0].numel()
        if count * n * n <= NUMBERS:
            zero = ROUNDING * self.system.eps
            found, singular = dense_solve(self._blocks(), right.reshape(count, n), transposed, zero)
            found = found.reshape(right.shape)
            if bool((self.residual_of(found, right, transposed) <= self.allowed).all()):
                self._refuse(singular)
                return found
        linear = self.system.linear
        linear.probe()
        solved = linear.solve(self.system.flat([right]), transposed=transposed)
        return self.verified(self.system.parts(solved)[0], right, transposed)

    def _blocks(self) -> torch.Tensor:
        """Give the blocks of B, shape (batch, n, n), by batched backward passes."""
        y, (value,) = self.system.leaves[0], self.system.residual
        count, n = len(y), y[0].numel()
        rows = []
        for begin in range(0, n, CHUNK):
            units = torch.zeros(min(CHUNK, n - begin), count, n, dtype=y.dtype, device=y.device)
            units[torch.arange(len(units)), :, begin + torch.arange(len(units))] = 1.0
            units = units.reshape(len(units), *y.shape)
            try:
                (found,) = torch.autograd.grad(value, y, units, retain_graph=True, is_grads_batched=True)
            except RuntimeError:  # an operation without a rule for batches
                found = torch.stack([self.product(u, True) for u in units])
            rows.append(found.reshape(len(units), count, n))
        return torch.cat(rows).transpose(0, 1)

    def _refuse(self, singular: torch.Tensor) -> None:
        """Raise if a block is singular, or if that cannot be told."""
        if self.system.options.violated == "ignore" or not bool(singular.any()):
            return
        equation = self.system.equation
        if self.system.eps > torch.finfo(torch.float32).eps:
            raise NotConverged(
                f"the linear system of the {equation.kind} of {equation.name} was not solved for row "
                f"{int(singular.nonzero()[0, 0])} of the batch: whether its matrix is singular cannot be told in this precision, "
                f"a unit of rounding of {self.system.eps:.2g}. Let the cell take and give float32."
            )
        _report(
            f"the derivative of the {equation.kind} of {equation.name} in its solution is singular in row "
            f"{int(singular.nonzero()[0, 0])} of the batch: the solution is then no function of the parameters that could be "
            "differentiated. Look at it with `nonsmooth.implicit.diagnose`.",
            self.system.options,
        )

    def probe(self) -> None:
        """Solve for a random right-hand side, which a singular matrix cannot reach."""
        y = self.system.leaves[0]
        n = max(y[0].numel(), 1)
        random = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(y)
        goal = max(PROBE / n**0.5, 10 * self.system.eps)
        found = self._iterated(random, True, goal)
        if found is None:
            found = self._directly(random, True)
        self.inverse_norm = float((length(found) / length(random)).amax())


class KinkCheck:
    """A look at the condition on kinks: which rows of a batch lie on some, and a diagnosis of each of them."""

    def __init__(self, cell: Callable[..., Any], x: Any, options: Options, programs: dict[Any, Any]) -> None:
        self.cell, self.x, self.options, self.programs = cell, x, options, programs
        self.done = False

    def __call__(self, node: Node) -> None:
        """Look, once."""
        assert isinstance(node, CellRows)
        y = node.system.leaves[0].detach()
        if self.done or not y.numel() or self.options.violated == "ignore":
            return
        self.done = True
        node.probe()
        if self.options.check == "kinks":
            try:
                for row in self._kinked(node, y):
                    self._diagnose(y, row)
            except NotInvertible:
                raise
            except NonsmoothError as error:
                _warn(
                    f"whether the condition of the implicit function theorem holds on kinks was not checked: {error} Pass "
                    "check='solves' to be told no more"
                )

    def _kinked(self, node: CellRows, y: torch.Tensor) -> list[int]:
        """Give the rows that lie on kinks, equal ones once."""
        theta, count = (self.x,), len(y)
        key = (TORCH.signature(y, theta), *(m.training for m in getattr(self.cell, "modules", list)()))
        if key not in self.programs:
            self.programs[key] = TORCH.capture(lambda y, x: self.cell(y, x), y, theta)

        def margins(y: torch.Tensor, program: Program) -> dict[tuple[int, str], torch.Tensor]:
            with torch.no_grad():
                seen = TORCH.evaluate(program, y, theta, observe=True)
            return {
                (met.step.index, name): margin
                for met in seen.calls
                if isinstance(met.step.operation, Nonsmooth | Singularity)
                for name, margin in met.step.operation.margins(met.call).items()
            }

        here = margins(y, self.programs[key])
        beside = without_branches(self.programs[key])
        steep = slopes(lambda y: margins(y, beside), here, y)
        size = 1 + float(y.abs().max())
        error = node.inverse_norm * float(length(node.value[0]).amax())
        distance = max(ROUNDING * node.system.eps * size, NEAR * error)
        near = torch.zeros(count, dtype=torch.bool, device=y.device)
        for place, margin in here.items():
            close = margin <= distance * steep[place]
            near |= close.reshape(count, -1).any(1) if close.ndim and len(close) == count else close.any()
        rows = near.nonzero()[:, 0].tolist()
        leaves = [t for t in flatten(self.x)[0] if isinstance(t, torch.Tensor) and t.ndim and len(t) == count]
        different: dict[bytes, int] = {}
        for row in rows:
            parts = [t[row].detach().cpu().contiguous().reshape(-1).numpy().tobytes() for t in (y, *leaves)]
            different.setdefault(b"".join(parts), row)
        return list(different.values())

    def _diagnose(self, y: torch.Tensor, row: int) -> None:
        """Decide over all elements at a row, and raise or warn."""
        leaves, structure = flatten(self.x)
        count = len(y)

        def cell(y: torch.Tensor, *parts: Any) -> Any:
            return self.cell(y, unflatten(list(parts), structure))

        cell.__name__ = (
            type(self.cell).__name__
            if isinstance(self.cell, torch.nn.Module)
            else Equation("fixed point", self.cell).name
        )
        alone = [
            t[row : row + 1].detach() if isinstance(t, torch.Tensor) and t.ndim and len(t) == count else t
            for t in leaves
        ]
        with torch.enable_grad():
            found = diagnose_equation(
                Equation("fixed point", cell), TREES, y[row : row + 1], tuple(alone), self.options
            )
        if not found.invertible:
            text = f"row {row} of the batch: {found.message()}"
            _report(text, self.options) if found.invertible is False else _warn(text)


def _report(message: str, options: Options) -> None:
    """Raise or warn, as was chosen."""
    if options.violated == "raise":
        raise NotInvertible(message)
    _warn(message)


def _warn(message: str) -> None:
    """Warn."""
    warnings.warn(message, ImplicitWarning, stacklevel=4)


def length(rows: torch.Tensor) -> torch.Tensor:
    """Give the Euclidean lengths of rows of any shape."""
    found: torch.Tensor = torch.linalg.vector_norm(rows.flatten(1) if rows.ndim > 1 else rows[:, None], dim=1)
    return found
