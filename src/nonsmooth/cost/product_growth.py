"""How the counts grow with p: one evaluation and one gradient of a scalar relu network, p directional derivatives, a product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from nonsmooth.cost.checks import whole_numbers
from nonsmooth.cost.model import CostModel, as_model
from nonsmooth.cost.numbers import Numbers
from nonsmooth.cost.tally import Sweep, Tally
from nonsmooth.errors import UsageError
from nonsmooth.report.reported import Reported
from nonsmooth.report.table import FORMAT_VERSION, Document, Table

__all__ = ["GrowthRow", "ProductGrowth", "count_growth"]

SIZES = (4, 8, 16, 32, 64, 128, 256, 512)
"""The sizes p that are counted by default."""


@dataclass(frozen=True)
class GrowthRow:
    """The counts for matrices p x p.

    Attributes:
        p: the number of directions.
        evaluation: F, the scalar network `trace_network`.
        gradient: F and its reverse sweep.
        derivatives: F and a forward sweep with p directions.
        reverse: the sum of the p derivatives and its reverse sweep with respect to C, which holds a product of matrices.
        schoolbook: the product by its definition, p^2 (2 p - 1).
        strassen: the fewest by Strassen's recursion where it saves, an upper bound of c(p).
        outputs: p^2, all that is proved of c(p) from below here.
    """

    p: int
    evaluation: float
    gradient: float
    derivatives: float
    reverse: float
    schoolbook: float
    strassen: float
    outputs: int

    @property
    def overhead(self) -> float:
        """What p derivatives cost, in evaluations of F."""
        return self.derivatives / self.evaluation


@dataclass(frozen=True)
class ProductGrowth(Reported):
    """Counts for a range of p, and the slopes of their logarithms against log p (least squares)."""

    WIDTH: ClassVar[int] = 130

    format_version: int
    model: str
    rows: tuple[GrowthRow, ...]
    slopes: Mapping[str, float]

    def document(self) -> Document:
        """Lay the counts out for reading."""
        columns = ("p", "F", "gradient", "p derivatives", "per F", "sum + reverse", "product", "Strassen", "p^2")
        rows = [
            (r.p, r.evaluation, r.gradient, r.derivatives, r.overhead, r.reverse, r.schoolbook, r.strassen, r.outputs)
            for r in self.rows
        ]
        slopes = ("slope", *(f"{self.slopes[name]:.2f}" for name in _COUNTED))
        return Document(
            "p directional derivatives against a product of p x p matrices: scalar operations",
            (
                Table(f"Counted ({self.model} prices)", columns, (*rows, slopes)),
                "F: a scalar relu network whose p derivatives at 0 add up to tr(C A B). gradient: F and one reverse sweep.\n"
                "per F: the p derivatives over F. sum + reverse: their sum, and its reverse sweep, which is (A B)'.\n"
                "slope: of the logarithm against log p, over these sizes.\n"
                "Proved: any program for the p derivatives costs c(p)/5 - p + 1 or more, c(p) the cost of a product; p^2 <= c(p).\n"
                "Not known: whether c(p)/p^2 grows. The forward sweep counted here does.",
            ),
        )


_COUNTED = ("evaluation", "gradient", "derivatives", "overhead", "reverse", "schoolbook", "strassen", "outputs")


def count_growth(
    sizes: Iterable[int] = SIZES, model: CostModel | Mapping[str, float] | str | None = None
) -> ProductGrowth:
    """Count what p directional derivatives of a scalar relu network cost against a product of matrices, for a range of p.

        cost(F) = 4 p^2 + 11 p - 2,   cost(F, p derivatives) = (p + 1) cost(F)   at prices of 1

    The counts are those of the scalar programs, exactly; that no program does with fewer than c(p)/5 - p + 1 operations is
    proved, that c(p)/p^2 grows is not.

    Args:
        sizes: the p that are counted, two or more.
        model: what an operation costs; 1 each if it is left out.

    Raises:
        UsageError: sizes that are no positive integers, or fewer than two of them.

    >>> found = count_growth([64, 128, 256])
    >>> found.rows[0].evaluation, found.rows[0].derivatives, found.rows[0].outputs
    (17086, 1110590, 4096)
    >>> {name: round(found.slopes[name], 2) for name in ("gradient", "derivatives", "overhead", "outputs")}
    {'gradient': 1.98, 'derivatives': 2.97, 'overhead': 0.99, 'outputs': 2.0}

    Source: BolteBoustanyPauwelsPesquet2023, derived, docs/theory/matrix_product.md.
    """
    given = whole_numbers("count_growth", "sizes", sizes, count=2)
    wanted = sorted(set(given))
    if len(wanted) < 2:
        raise UsageError(
            f"count_growth: sizes={given!r}; pass two different ones or more, of which slopes can be fitted."
        )
    prices = as_model(model)
    rows = tuple(_row(p, prices) for p in wanted)
    logs = np.log(wanted)
    slopes = {name: float(np.polyfit(logs, np.log([float(getattr(r, name)) for r in rows]), 1)[0]) for name in _COUNTED}
    return ProductGrowth(FORMAT_VERSION, prices.name, rows, slopes)


def _row(p: int, model: CostModel) -> GrowthRow:
    """Count and price everything for one p."""
    F, total = _network(p), _sum(p)
    add, mul = model.price("add"), model.price("mul")
    return GrowthRow(
        p=p,
        evaluation=model.total(F.evaluation),
        gradient=model.total(F.backprop),
        derivatives=model.total(F.forward(p)),
        reverse=model.total(total.backprop),
        schoolbook=model.total(_schoolbook(p)),
        strassen=_strassen(p, add, mul),
        outputs=p * p,
    )


def _network(p: int) -> Sweep:
    """Run `trace_network` on numbers of which only the shape is known; the point moves, the matrices do not."""
    tally = Tally()
    y, s = (Numbers((p,), True, tally) for _ in range(2))
    A, C, level = Numbers((p, p), False, tally), Numbers((p, p), False, tally), Numbers((), False, tally)
    u = A.contracted(y, (p,), p)
    z = C.contracted(u.apply("relu") - (-u).apply("relu"), (p,), p)
    g = level * (s + s - s.sum())
    _ = ((z + g).apply("relu") - g.apply("relu")).sum()
    return tally.sweep()


def _sum(p: int) -> Sweep:
    """Run `sum_of_derivatives` on numbers of which only the shape is known; C moves."""
    tally = Tally()
    A, B, C = (Numbers((p, p), moving, tally) for moving in (False, False, True))
    u = A.contracted(B, (p, p), p)
    z = C.contracted(u.apply("relu") - (-u).apply("relu"), (p, p), p)
    g = Numbers((p, p), False, tally)
    _ = ((z + g).apply("relu") - g.apply("relu")).sum()
    return tally.sweep()


def _schoolbook(p: int) -> Mapping[str, int]:
    """Count a product by its definition."""
    return {"mul": p**3, "add": p**2 * (p - 1)}


@cache
def _strassen(p: int, add: float, mul: float) -> float:
    """Price a product by Strassen's recursion, 7 products of halves and 18 sums of halves, wherever that is less."""
    plain = p**3 * mul + p**2 * (p - 1) * add
    return plain if p % 2 else min(plain, 7 * _strassen(p // 2, add, mul) + 18 * (p // 2) ** 2 * add)
